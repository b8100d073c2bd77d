"""From nothing to a table in minutes on a CPU: make videos, pre-train, fine-tune with aggregation, evaluate.

    make demo        or        python -m scripts.demo [--out outputs/demo]

Everything goes through the public commands, which are printed. The same fine-tuned weights are evaluated on held-out
videos without and with token aggregation; the table is also left in OUT/summary.json. Run again, it goes on where it
stopped.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from configs.load import load_to_evaluate
from configs.schema import RetrievalConfig
from datasets.loaders import evaluation_loader
from datasets.records import VideoTextRecord
from engine.checkpoint import write_json
from scripts.count_flops import count
from tasks.base import video_text
from tasks.retrieval import RetrievalTask

REDUCERS = ("none", "geometry")
TIMED_VIDEOS = 8
TIMED_RUNS = 9


def command(*words: str) -> None:
    """Print and run one of the project's commands; exit with its status if it fails."""
    print(f"\n$ {shlex.join(('python', *words))}", flush=True)
    status = subprocess.run((sys.executable, *words), check=False).returncode
    if status:
        sys.exit(status)


def train(out: Path) -> Path:
    """Make the story set, pre-train and fine-tune; the fine-tuned checkpoint."""
    root = f"data.root={out / 'stories'}"
    command("-m", "scripts.make_story_videos", str(out / "stories"), "--train", "1500", "--test", "200")
    pretrained, finetuned = out / "pretrain", out / "finetune"
    command("pretrain.py", "--config", "configs/debug/pretrain_stories.yaml", root, f"output_dir={pretrained}")
    command(
        "train_retrieval.py", "--config", "configs/debug/stories.yaml", root,
        f"checkpoint={pretrained / 'checkpoint_last'}", f"output_dir={finetuned}",
    )  # fmt: skip
    return finetuned / "checkpoint_best"


def evaluate(checkpoint: Path, reducer: str, out: Path) -> dict[str, Any]:
    """Retrieval metrics of the held-out videos with or without aggregation."""
    # The checkpoint's own aggregation is what it was fine-tuned with.
    override = ["aggregation.reducer=none"] if reducer == "none" else []
    command("train_retrieval.py", "--evaluate", f"checkpoint={checkpoint}", f"output_dir={out / reducer}", *override)
    results = json.loads((out / reducer / "results.json").read_text())
    return {
        "held_out_videos": results["num_videos"],
        **{name: results["metrics"][name] for name in ("t2v_r1", "t2v_r5", "t2v_r10")},
    }


def load_task(checkpoint: Path, reducer: str) -> RetrievalTask:
    """The fine-tuned task with or without aggregation, ready to evaluate."""
    override = ["aggregation.reducer=none"] if reducer == "none" else []
    config = load_to_evaluate(RetrievalConfig, None, [f"checkpoint={checkpoint}", *override])
    return RetrievalTask(config, torch.device("cpu")).eval()


@torch.inference_mode()
def order_accuracy(task: RetrievalTask, stories: Path) -> float:
    """How often, in percent, a video is closer to its paragraph than to the same sentences in another order."""
    lines = [json.loads(line) for line in (stories / "order_pairs.jsonl").read_text().splitlines()]
    records = [
        VideoTextRecord(str(stories / "videos" / line["video"]), (line["caption"], line["reordered"])) for line in lines
    ]
    data = video_text(task.config, records, training=False)
    loader = evaluation_loader(data, batch_size=32, rank=0, world_size=1, workers=0)
    videos = torch.cat([task.model.encode_video(batch["video"]).embedding for batch in loader])
    texts = task.model.encode_text(*task.tokenize(data.captions)).embedding.unflatten(0, (-1, 2))
    right, reordered = torch.einsum("v e, v t e -> t v", videos, texts)
    return 100 * (right > reordered).float().mean().item()


@torch.inference_mode()
def milliseconds_per_video(tasks: dict[str, RetrievalTask]) -> dict[str, float]:
    """Median time to encode one of a batch of videos, measured in turns so that a busy machine hits all alike."""
    times: dict[str, list[float]] = {reducer: [] for reducer in tasks}
    for _ in range(TIMED_RUNS):
        for reducer, task in tasks.items():
            video = task.config.video
            frames = torch.zeros(TIMED_VIDEOS, video.num_frames, 3, video.image_size, video.image_size)
            start = time.perf_counter()
            task.model.encode_video(frames)
            times[reducer].append((time.perf_counter() - start) / TIMED_VIDEOS * 1000)
    return {reducer: sorted(values)[len(values) // 2] for reducer, values in times.items()}


def print_table(summary: dict[str, Any]) -> None:
    """The summary as people read it."""
    print(f"\nRetrieval of {summary['held_out_videos']} held-out videos by paragraphs; same weights in both rows\n")
    print("aggregation   R@1    R@5   R@10   order   GMACs   tokens   ms/video")
    for reducer in REDUCERS:
        row = summary[reducer]
        print(
            f"{reducer:<11} {row['t2v_r1']:5.1f}  {row['t2v_r5']:5.1f}  {row['t2v_r10']:5.1f}   "
            f"{row['order_accuracy']:5.1f}   {row['gmacs']:5.3f}   {row['tokens']:6d}   {row['ms_per_video']:8.2f}"
        )
    print("\nAll in percent. Order: how often the right one of two paragraphs that differ only in order ranks higher.")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"))
    out = parser.parse_args().out
    start = time.perf_counter()
    checkpoint = train(out)
    rows = {reducer: evaluate(checkpoint, reducer, out) for reducer in REDUCERS}
    tasks = {reducer: load_task(checkpoint, reducer) for reducer in REDUCERS}
    speed = milliseconds_per_video(tasks)
    summary: dict[str, Any] = {"held_out_videos": rows["none"].pop("held_out_videos")}
    for reducer, task in tasks.items():
        cost = count(task.config.model, task.config.video, task.config.aggregation)
        rows[reducer].pop("held_out_videos", None)
        summary[reducer] = {
            **rows[reducer],
            "gmacs": cost.gmacs,
            "tokens": cost.tokens,
            "ms_per_video": speed[reducer],
            "order_accuracy": order_accuracy(task, out / "stories"),
        }
    write_json(out / "summary.json", summary)
    print_table(summary)
    print(f"\n{out / 'summary.json'} written; {time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
