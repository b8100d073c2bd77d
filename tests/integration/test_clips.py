"""Real files that break readers: each decodes, or is quarantined with one line; no run ends because of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runs import ROOT, losses_of, results_of, start, write_config

BROKEN = {"empty.mp4", "not_a_video.mp4"}
SOUND = {"av1.mkv", "h265_10_frames.mp4", "vp9.webm", "rot_0.mov", "rot_90.mov", "rot_180.mov", "rot_270.mov"}


def test_hard_files_are_read_or_quarantined(real_data: Path, tmp_path: Path) -> None:
    hard = sorted((real_data / "clips" / "hard").iterdir())
    whole = sorted((real_data / "clips" / "videos").iterdir())[:4]
    assert {path.name for path in hard} >= BROKEN | SOUND
    (tmp_path / "captions.jsonl").write_text(
        "".join(json.dumps({"video": str(path), "caption": f"the file {path.stem}"}) + "\n" for path in hard + whole)
    )
    config = write_config(
        "retrieval", tmp_path, train={"max_epochs": 1, "batch_size": len(hard + whole), "accumulate": 4, "workers": 1}
    )
    assert start("train_retrieval", "--config", config) == 0
    run = tmp_path / "run"
    assert len(losses_of(run)) == 1
    quarantined = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    names = {Path(entry["video"]).name for entry in quarantined}
    assert len(names) == len(quarantined)  # each once, though training and evaluation both met it
    assert BROKEN <= names <= {path.name for path in hard} - SOUND
    for entry in quarantined:
        assert entry["reason"].strip() and "\n" not in entry["reason"] and len(entry["reason"]) < 500

    results = results_of(run)
    assert {Path(entry["video"]).name for entry in results["failed"]} == names
    assert (results["num_missing"], results["num_videos"]) == (len(names), len(hard + whole) - len(names))

    again = tmp_path / "evaluation"
    checkpoint = run / "checkpoint_best"
    assert start("train_retrieval", "--evaluate", f"checkpoint={checkpoint}", f"output_dir={again}") == 0
    assert results_of(again)["metrics"] == results["metrics"]
    assert results_of(again)["failed"] == results["failed"]


def test_hard_files_alone_end_in_one_line(real_data: Path, tmp_path: Path) -> None:
    broken = [real_data / "clips" / "hard" / name for name in sorted(BROKEN)]
    (tmp_path / "captions.jsonl").write_text(
        "".join(json.dumps({"video": str(path), "caption": path.stem}) + "\n" for path in broken)
    )
    config = write_config("retrieval", tmp_path, train={"batch_size": 2, "workers": 1})
    assert start("train_retrieval", "--config", config) == 2
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_real_clips_are_learned_by_heart(real_data: Path, tmp_path: Path) -> None:
    """The main job on real video: every paragraph finds its clip and every clip its paragraph, reranked and not."""
    run, again = tmp_path / "run", tmp_path / "evaluation"
    data = f"data.root={real_data / 'clips'}"
    assert start("train_retrieval", "--config", ROOT / "configs/debug/clips.yaml", data, f"output_dir={run}") == 0
    results = results_of(run)
    assert results["num_videos"] == results["num_texts"] == 16 and results["num_missing"] == 0
    recalls = [f"{direction}_r1{suffix}" for direction in ("t2v", "v2t") for suffix in ("", "_cosine")]
    assert {name: results["metrics"][name] for name in recalls} == dict.fromkeys(recalls, 100.0)
    checkpoint = run / "checkpoint_best"
    assert start("train_retrieval", "--evaluate", f"checkpoint={checkpoint}", data, f"output_dir={again}") == 0
    assert results_of(again)["metrics"] == results["metrics"]


def evaluated_again(script: str, run: Path, data: str, folder: Path, *overrides: str) -> dict[str, Any]:
    """The results of evaluating a run's best weights in a new folder."""
    checkpoint = f"checkpoint={run / 'checkpoint_best'}"
    assert start(script, "--evaluate", checkpoint, data, f"output_dir={folder}", *overrides) == 0
    return results_of(folder)


def test_questions_about_real_clips_are_answered(real_data: Path, tmp_path: Path) -> None:
    """All 16, by ranking and in its own words; two of them are the same question about different clips."""
    run, data = tmp_path / "run", f"data.root={real_data / 'clips'}"
    assert start("train_vqa", "--config", ROOT / "configs/debug/clips_qa.yaml", data, f"output_dir={run}") == 0
    results = results_of(run)
    assert (results["num_texts"], results["num_missing"], results["answers"]) == (16, 0, "train")
    assert results["metrics"]["accuracy"] == results["metrics"]["answer_list_coverage"] == 100.0
    assert results["metrics"]["majority_accuracy"] == 12.5
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    same = [row["predicted"] for row in rows if row["question"] == "what is the woman doing"]
    assert same == ["dancing", "yoga"]
    written = evaluated_again("train_vqa", run, data, tmp_path / "written", "evaluation.inference=generate")
    assert (written["answers"], written["metrics"]["accuracy"]) == ("generated", 100.0)


def test_real_clips_are_described(real_data: Path, tmp_path: Path) -> None:
    """Nearly word by word; with Java or without."""
    run, data = tmp_path / "run", f"data.root={real_data / 'clips'}"
    assert start("train_caption", "--config", ROOT / "configs/debug/clips_caption.yaml", data, f"output_dir={run}") == 0
    results = results_of(run)
    assert (results["num_videos"], results["num_texts"], results["num_missing"]) == (16, 16, 0)
    name = "cider" if "cider" in results["metrics"] else "cider_plain"
    assert results["metrics"][name] > 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        plain = evaluated_again("train_caption", run, data, tmp_path / "plain")
        nucleus = ("evaluation.method=nucleus", "evaluation.top_p=0.5")
        sampled = evaluated_again("train_caption", run, data, tmp_path / "sampled", *nucleus)
    assert plain["metrics"]["cider_plain"] > 5 and "meteor" not in plain["metrics"]
    assert (tmp_path / "plain" / "predictions.jsonl").read_text() == (run / "predictions.jsonl").read_text()
    assert sampled["generation"]["top_p"] == 0.5 and sampled["metrics"]["cider_plain"] > 5
