"""The comparison of models with objects and without: which commands run, and what is made of their results."""

from pathlib import Path

import pytest

from benchmarks.stoa.objects import FORMS, PRETRAINING, TASKS, finished_runs, report, runs_of, table
from engine.checkpoint_folder import write_json


def test_each_run_starts_from_the_one_before_and_differs_in_objects_alone(tmp_path: Path) -> None:
    runs = {form: runs_of(tmp_path, 1, form, list(TASKS), ["train.max_epochs=1"]) for form in FORMS}
    names = [f"pretrain_{data}" for data in PRETRAINING] + list(TASKS)
    for form, of_form in runs.items():
        assert list(of_form) == names
        starts = [[word for word in run.words if word.startswith("checkpoint=")] for run in of_form.values()]
        folder = tmp_path / "seed1" / form
        assert starts[0] == [] and starts[1] == [f"checkpoint={folder}/pretrain_scenes/checkpoint_last"]
        assert starts[2:] == [[f"checkpoint={folder}/pretrain_stories/checkpoint_last"]] * len(TASKS)
    for name in names:
        others = set(runs["without"][name].words) ^ set(runs["with"][name].words)
        assert {word for word in others if not word.startswith(("output_dir=", "checkpoint="))} == set(FORMS["without"])
        assert {"seed=1", "train.max_epochs=1"} <= set(runs["with"][name].words)


def test_the_table_has_means_spread_and_the_difference_of_each_seed(tmp_path: Path) -> None:
    recall = {("with", 0): 40.0, ("with", 2): 50.0, ("without", 0): 42.5, ("without", 2): 45.5}
    for (form, seed), value in recall.items():
        run = runs_of(tmp_path, seed, form, ["retrieval"], [])["retrieval"]
        found = {"t2v_r1": value, "t2v_r10": 90.0, "v2t_r1": 0.0, "t2v_r1_cosine": 1.0}
        write_json_in(run.folder, "results.json", {"metrics": found})
        write_json_in(run.folder, "done.json", {"words": list(run.words), "seconds": 1.0})
    found = report(finished_runs(tmp_path, []))
    assert found["text to video: R@1"] == {"with": {0: 40.0, 2: 50.0}, "without": {0: 42.5, 2: 45.5}}
    (row,) = [line for line in table(found) if line.startswith("| text to video: R@1 |")]
    assert row == "| text to video: R@1 | 45 (40 .. 50) | 44 (42.5 .. 45.5) | -2.5, +4.5 |"
    assert "| captions: CIDEr |  |  |  |" in table(found)


def test_runs_with_other_settings_are_refused(tmp_path: Path) -> None:
    run = runs_of(tmp_path, 0, "with", ["vqa"], [])["vqa"]
    write_json_in(run.folder, "done.json", {"words": ["other"], "seconds": 1.0})
    with pytest.raises(ValueError, match="holds a run with other settings"):
        finished_runs(tmp_path, [])


def write_json_in(folder: Path, name: str, content: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / name, content)
