"""UMT's retrieval, questions and choices, end to end: on small files of each format, and on real videos.

The numbers are those of one process and one batch, whatever the batch size and the number of processes.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.schema import TaskConfig
from datasets.annotations import public
from datasets.records import ChoiceRecord, QuestionRecord, VideoTextRecord
from engine.loop import evaluate
from tests.gloo import run_ranks
from tests.integration.runs import ROOT, results_of, start
from tests.integration.test_every_config import TASKS, small
from tests.integration.tiny_datasets import write_dataset
from tests.models.tiny import randomise

CPU = torch.device("cpu")
FOLDERS = ("retrieval", "vqa", "choice")
CONFIGS = sorted(path for folder in FOLDERS for path in (ROOT / "configs/umt" / folder).glob("*_b16.yaml")
                 if not path.stem.startswith(("base", "recipe_")))  # fmt: skip
VINDLU = {
    "msrvtt": {"train_9k": "msrvtt_ret_train9k.json", "test_1k": "msrvtt_ret_test1k.json"},
    "msvd": {split: f"msvd_ret_{split}.json" for split in ("train", "test")},
    "activitynet_captions": {"train": "anet_ret_train.json", "val_1": "anet_ret_val_1.json"},
    "didemo": {split: f"didemo_ret_{split}.json" for split in ("train", "val", "test")},
    "lsmdc": {"train": "lsmdc_ret_train.json", "test": "lsmdc_ret_test_1000.json"},
    "ssv2_label": {split: f"ssv2_ret_label_{split}.json" for split in ("train", "val_small")},
    "ssv2_template": {split: f"ssv2_ret_template_{split}.json" for split in ("train", "val_small")},
    "msrvtt_qa": {split: f"msrvtt_qa_{split}.json" for split in ("train", "test")},
    "msvd_qa": {split: f"msvd_qa_{split}.json" for split in ("train", "test")},
    "activitynet_qa": {split: f"anet_qa_{split}.json" for split in ("train", "test")},
    "msrvtt_mc": {"train": "msrvtt_ret_train7k.json", "test": "msrvtt_mc_test.json"},
}
"""The splits that UMT's configurations read, and the files of VindLU's that hold them."""
PARAGRAPHS = ("didemo", "activitynet_captions")


def as_vindlu(root: Path, dataset: str) -> None:
    """Put VindLU's lists in the place of the files of a small data set."""
    videos = root / "videos"
    lists = {file: rows_of(dataset, public.read(dataset, root, split, videos).records)
             for split, file in VINDLU[dataset].items()}  # fmt: skip
    for path in root.iterdir():
        if path.is_file():
            path.unlink()
    for file, rows in lists.items():
        (root / file).write_text(json.dumps(rows))


def rows_of(dataset: str, records: list[Any]) -> list[dict[str, Any]]:
    """Records as VindLU writes them."""
    shared: dict[str, list[str]] = defaultdict(list)
    rows: list[dict[str, Any]] = []
    for record in records:
        name = Path(record.video).name
        if isinstance(record, QuestionRecord):
            answer = list(record.answers)
            rows.append({"video": name, "question": record.question, "answer": answer, "question_id": len(rows)})
        elif isinstance(record, ChoiceRecord):
            rows.append({"video": name, "caption": list(record.options), "answer": record.answer})
        elif dataset.startswith("ssv2"):
            shared[record.captions[0]].append(name)
        else:
            texts = list(record.captions)
            rows.append({"video": name, "caption": texts if dataset in PARAGRAPHS else texts[0]})
    return rows + [{"caption": text, "video": names} for text, names in shared.items()]


def result_of(config: TaskConfig, batch_size: int) -> dict[str, Any]:
    """What an evaluation gives, of random weights that are the same each time."""
    torch.manual_seed(3)
    task = TASKS[config.task](config, CPU).eval()
    randomise(task.model)
    object.__setattr__(task.evaluation, "batch_size", batch_size)
    results = evaluate(task, config, CPU, final=True)
    counts = ("num_videos", "num_annotated", "num_texts", "num_missing", "split")
    return {"metrics": results["metrics"], **{name: results[name] for name in counts}}


@pytest.mark.parametrize("form", ["the authors", "VindLU"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_set_is_evaluated_from_each_form_whatever_the_batch(path: Path, form: str, tmp_path: Path) -> None:
    config = small(path, tmp_path)
    write_dataset(config.data, tmp_path, questions=config.task == "vqa")
    if form == "VindLU":
        as_vindlu(tmp_path, config.data.dataset)
    expected = result_of(config, 4)
    assert expected["num_videos"] == expected["num_annotated"] == 4 and expected["num_missing"] == 0
    # Two of the four videos share each of SSV2's captions, which are one query.
    assert expected["num_texts"] == (2 if config.data.dataset.startswith("ssv2") else 4)
    for batch_size in (1, 3):
        assert result_of(config, batch_size) == expected
    asked = config.data.test_split or config.data.eval_split
    assert expected["split"] == asked


@pytest.mark.parametrize("name", ["retrieval/ssv2_label", "vqa/msvd_qa"])
def test_two_processes_give_the_numbers_of_one(name: str, tmp_path: Path) -> None:
    config = small(ROOT / f"configs/umt/{name}_b16.yaml", tmp_path)
    write_dataset(config.data, tmp_path, questions=config.task == "vqa")
    assert run_ranks(2, result_of, config, 1) == [result_of(config, 4)] * 2


# How a small UMT reads real videos by the settings of the files, and learns next to nothing of them.
TINY = (
    "model.depth=2", "model.width=48", "model.heads=2", "model.embed_dim=16", "checkpoint=null",
    "model.text.tokenizer=from_data", "model.text.vocab_size=300", "model.text.depth=2", "model.text.width=48",
    "model.text.heads=2", "model.text.intermediate=64", "model.text.fusion_layer=1", "model.text.dropout=0.0",
    "video.num_frames=4", "video.image_size=64", "train.batch_size=8", "train.max_epochs=1", "train.workers=1",
    "data.dataset=manifest", "data.train_split=train", "data.eval_split=null", "train.activation_checkpointing=none",
    "optim.warmup_ratio=0.0", "optim.warmup_lr=0.0",
)  # fmt: skip
TINY_CLIP_TASKS = {
    "retrieval": ("retrieval/msrvtt_b16.yaml", "train_retrieval", "captions.jsonl"),
    "vqa": ("vqa/msvd_qa_b16.yaml", "train_vqa", "qa.jsonl"),
    "choice": ("choice/msrvtt_mc_b16.yaml", "train_choice", "choices.jsonl"),
}


def write_clip_choices(folder: Path, clips: Path) -> None:
    """Each real clip's first words among those of two others."""
    lines = [json.loads(line) for line in (clips / "captions.jsonl").read_text().splitlines()]
    texts = [" ".join(line["caption"].split()[:12]) for line in lines]
    rows = []
    for number, line in enumerate(lines):
        options = [texts[(number + step) % len(texts)] for step in (1, 0, 2)]
        rows.append({"video": line["video"], "options": options, "answer": 1})
    (folder / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    "task", [task if task == "vqa" else pytest.param(task, marks=pytest.mark.soak) for task in TINY_CLIP_TASKS]
)
def test_real_videos_are_trained_on_and_evaluated_alike_by_batches_and_processes(
    task: str, real_data: Path, tmp_path: Path
) -> None:
    file, script, manifest = TINY_CLIP_TASKS[task]
    clips = real_data / "clips"
    write_clip_choices(tmp_path, clips)
    path = tmp_path / manifest if task == "choice" else clips / manifest
    words = (
        "--config", ROOT / "configs/umt" / file, f"data.root={clips}", f"data.manifest={path}",
        f"data.eval_manifest={path}", *TINY, *(("data.max_tokens=60",) if task == "retrieval" else ()),
    )  # fmt: skip
    run = tmp_path / "run"
    assert start(script, *words, f"output_dir={run}") == 0
    expected = results_of(run)
    assert expected["num_videos"] == expected["num_annotated"] == 16 and expected["num_missing"] == 0

    again = ("--evaluate", f"checkpoint={run / 'checkpoint_best'}")
    alone = tmp_path / "alone"
    assert start(script, *again, "evaluation.batch_size=1", f"output_dir={alone}") == 0
    assert results_of(alone)["metrics"] == expected["metrics"]
    run_ranks(2, start, script, *map(str, again), "evaluation.batch_size=3", f"output_dir={tmp_path / 'two'}")
    assert results_of(tmp_path / "two")["metrics"] == expected["metrics"]
    rows = {"vqa": 16, "choice": 16}
    if task in rows:
        assert len((alone / "predictions.jsonl").read_text().splitlines()) == rows[task]


def test_records_of_each_kind_become_vindlus_rows() -> None:
    """The writer above, without which VindLU's form would go untested."""
    pair = VideoTextRecord("/v/a.mp4", ("one",))
    assert rows_of("msrvtt", [pair]) == [{"video": "a.mp4", "caption": "one"}]
    assert rows_of("didemo", [pair]) == [{"video": "a.mp4", "caption": ["one"]}]
    assert rows_of("ssv2_label", [pair, pair]) == [{"caption": "one", "video": ["a.mp4", "a.mp4"]}]
