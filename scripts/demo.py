"""From nothing to a table in minutes on a CPU: make videos, pre-train, fine-tune with aggregation, evaluate.

    make demo        or        python -m scripts.demo [--out outputs/demo]

Everything goes through the public commands, which are printed. One pre-trained model is fine-tuned for retrieval, for
question answering and for captioning, with token aggregation. The retrieval weights are evaluated on held-out videos
without and with it; answers and captions are of the same held-out videos. The tables are also left in OUT/summary.json.
The same command resumes an interrupted demo.
"""

import argparse
import json
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from configs.load import load_to_evaluate
from configs.schema import RetrievalConfig
from datasets.loaders import evaluation_loader
from datasets.records import VideoTextRecord
from engine.checkpoint_folder import write_json
from engine.children import run_child
from models.systems import count
from tasks.clips import embed_clip
from tasks.data import video_text
from tasks.retrieval import RetrievalTask

REDUCERS = ("none", "geometry")
TIMED_VIDEOS = 8
TIMED_RUNS = 9


def command(*words: str) -> None:
    """Print and run one of the project's commands; exit with its status if it fails."""
    print(f"\n$ {shlex.join(('python', *words))}", flush=True)
    status = run_child((sys.executable, *words))
    if status:
        sys.exit(status)


def pretrain(out: Path) -> Path:
    """Make the story set and pre-train on it; the checkpoint."""
    command("-m", "scripts.make_story_videos", str(out / "stories"), "--train", "1500", "--test", "200")
    command(
        "pretrain.py", "--config", "configs/debug/pretrain_stories.yaml", f"data.root={out / 'stories'}",
        f"output_dir={out / 'pretrain'}",
    )  # fmt: skip
    return out / "pretrain" / "checkpoint_last"


def finetune(task: str, config: str, pretrained: Path, out: Path) -> Path:
    """Fine-tune for one task; the folder, whose results.json is of the held-out videos."""
    command(
        f"train_{task}.py", "--config", f"configs/debug/{config}.yaml", f"data.root={out / 'stories'}",
        f"checkpoint={pretrained}", f"output_dir={out / task}",
    )  # fmt: skip
    return out / task


def evaluate_without(checkpoint: Path, out: Path) -> Path:
    """Evaluate the fine-tuned weights on the held-out videos without the aggregation they have; the folder."""
    command(
        "train_retrieval.py", "--evaluate", f"checkpoint={checkpoint}", f"output_dir={out / 'none'}",
        "aggregation.reducer=none",
    )  # fmt: skip
    return out / "none"


def recalls(folder: Path) -> dict[str, float]:
    """Text to video, of the results in a folder."""
    metrics = json.loads((folder / "results.json").read_text())["metrics"]
    return {name: metrics[name] for name in ("t2v_r1", "t2v_r5", "t2v_r10")}


def answers_and_captions(questions: Path, captions: Path, stories: Path) -> dict[str, Any]:
    """How well held-out videos are answered about and described, and how well a rule answers that sees no video."""
    answered, written = (json.loads((folder / "results.json").read_text()) for folder in (questions, captions))
    # Without Java their names end in _plain.
    scores = {name.removesuffix("_plain"): value for name, value in written["metrics"].items()}
    return {
        "num_questions": answered["num_texts"],
        "vqa_accuracy": answered["metrics"]["accuracy"],
        "majority_accuracy": answered["metrics"]["majority_accuracy"],
        "question_only_accuracy": question_only_accuracy(stories),
        "num_captions": written["num_videos"],
        **{f"caption_{name}": scores[name] for name in ("cider", "bleu4", "rouge_l")},
    }


def question_only_accuracy(stories: Path) -> float:
    """Accuracy, in percent, of the commonest training answer to the same question, or to questions that begin alike."""
    counts: dict[str, Counter[str]] = {}
    for line in _json_lines(stories / "train_qa.jsonl"):
        for known in (line["question"], _beginning(line["question"])):
            counts.setdefault(known, Counter())[line["answer"]] += 1

    test = _json_lines(stories / "test_qa.jsonl")
    nearest = (counts.get(line["question"], counts[_beginning(line["question"])]) for line in test)
    right = [seen.most_common(1)[0][0] == line["answer"] for seen, line in zip(nearest, test, strict=True)]
    return 100 * sum(right) / len(right)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _beginning(question: str) -> str:
    return " ".join(question.split()[:2])


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
    videos = torch.cat([embed_clip(task.model, batch["clip"]) for batch in loader])
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
    print(f"\n{summary['num_questions']} questions about them, and a caption for each of {summary['num_captions']}\n")
    print("accuracy   question only   commonest answer   |   CIDEr   BLEU-4   ROUGE-L")
    print(
        f"{summary['vqa_accuracy']:8.1f}   {summary['question_only_accuracy']:13.1f}   "
        f"{summary['majority_accuracy']:16.1f}   |   {summary['caption_cider']:5.2f}   "
        f"{summary['caption_bleu4']:6.1f}   {summary['caption_rouge_l']:7.1f}"
    )
    print(
        "\nIn percent, except CIDEr, which is 10 for exact copies. Question only: the commonest training answer to the"
    )
    print("same question, or to questions that begin alike; it sees no video.")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"))
    out = parser.parse_args().out
    start = time.perf_counter()
    pretrained = pretrain(out)
    retrieval = finetune("retrieval", "stories", pretrained, out)
    questions = finetune("vqa", "stories_qa", pretrained, out)
    captions = finetune("caption", "stories_caption", pretrained, out)
    checkpoint = retrieval / "checkpoint_best"
    folders = {"none": evaluate_without(checkpoint, out), "geometry": retrieval}
    tasks = {reducer: load_task(checkpoint, reducer) for reducer in REDUCERS}
    speed = milliseconds_per_video(tasks)
    summary: dict[str, Any] = {"held_out_videos": json.loads((retrieval / "results.json").read_text())["num_videos"]}
    for reducer, task in tasks.items():
        cost = count(task.config.model, task.config.video, task.config.aggregation)
        summary[reducer] = {
            **recalls(folders[reducer]),
            "gmacs": cost.gmacs,
            "tokens": cost.tokens,
            "ms_per_video": speed[reducer],
            "order_accuracy": order_accuracy(task, out / "stories"),
        }

    summary |= answers_and_captions(questions, captions, out / "stories")
    write_json(out / "summary.json", summary)
    print_table(summary)
    print(f"\n{out / 'summary.json'} written; {time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
