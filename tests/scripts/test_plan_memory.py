"""The command: its columns, what fits, and what it refuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.aggregation import AggregationConfig
from configs.load import dump
from scripts.plan_memory import __main__ as plan_memory
from scripts.plan_memory.__main__ import (
    GIB,
    as_json,
    in_all,
    main,
    plan,
    rows_a_process,
    table,
)
from scripts.plan_memory.step import Need, count
from tests.scripts.plan_memory.test_step import MERGING, PLAIN, TOKENS, configured


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["plan_memory", *words])
    try:
        main()
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


def test_a_column_for_each_way_and_the_configured_one_marked(tmp_path: Path) -> None:
    columns = plan(configured(tmp_path, "retrieval", MERGING, {}), 1, TOKENS, None)
    assert [column.name for column in columns] == ["none", "recompute", "aggregation", "aggregation+recompute"]
    assert [column.configured for column in columns] == [False, False, True, False]
    assert "aggregation*" in table(columns, None)
    listed = json.loads(as_json(columns, None))
    for column in columns:
        rows = listed[column.name]
        kinds = sum(size for name, size in rows.items() if name in column.need.at_peak)
        assert rows["tensors"] == kinds + rows["buckets"] == column.need.total
        assert rows["total"] == rows["tensors"] + rows["allowance"] + rows["context"]
    without = plan(configured(tmp_path, "retrieval", PLAIN, {}), 1, TOKENS, None)
    assert [column.name for column in without] == ["none", "recompute"]


def test_the_largest_batch_fits_and_one_more_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(tmp_path, "caption", PLAIN, {})
    memory = 0.6
    gone_through: list[tuple[str, int]] = []

    def noted(way: Any, rows: int, *others: int) -> Need:
        gone_through.append((way.train.activation_checkpointing, rows))
        return count(way, rows, *others)

    monkeypatch.setattr(plan_memory, "count", noted)
    column = plan(config, 1, TOKENS, memory)[0]
    assert len(set(gone_through)) == len(gone_through)  # each takes seconds
    assert column.largest is not None and column.largest > 6
    assert in_all(count(config, column.largest, 1, TOKENS)) <= memory * GIB
    assert in_all(count(config, column.largest + 1, 1, TOKENS)) > memory * GIB


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yaml"
    dump(configured(tmp_path, "caption", PLAIN, {"precision": "auto", "batch_size": 8}), file)
    start = ("--config", str(file), "--text-tokens", "12")
    assert command(monkeypatch, *start, "--processes", "2", "--gpu-memory", "0.6", "--json") == 0
    column = json.loads(capsys.readouterr().out)["none"]
    assert column["fits"] and column["configured"] and column["buckets"] > 0
    assert command(monkeypatch, *start) == 0
    assert "8 samples a GPU, 1 GPUs, bf16" in capsys.readouterr().out
    for words, said in (
        (("train.batchsize=3",), "train.batchsize"),
        (("--processes", "3"), "train.batch_size: 8 cannot be shared out evenly over 3 processes"),
        (("train.activation_checkpointing=offload",), "plan with recompute"),
        (
            ("model.attention=joint", "aggregation.reducer=quadtree", "aggregation.keep=0.5"),
            "plan with aggregation.reducer=run_length aggregation.keep=0.5",
        ),
    ):
        assert command(monkeypatch, *start, *words) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_drawn_budgets_are_planned_by_the_largest(tmp_path: Path) -> None:
    drawn = AggregationConfig(reducer="run_length", keep=0.5, train_keep=(0.5, 1.0))
    largest, configured_one = (AggregationConfig(reducer="run_length", keep=keep) for keep in (1.0, 0.5))
    config = configured(tmp_path, "caption", PLAIN, {})
    needs = [count(replace(config, aggregation=one), 2, 1, TOKENS) for one in (drawn, largest, configured_one)]
    assert needs[0] == needs[1] and needs[0].total > needs[2].total


def test_questions_have_one_length(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--text-tokens: has no effect on questions"):
        plan(configured(tmp_path, "vqa", PLAIN, {"batch_size": 8}), 1, 12, None)


def test_samples_a_process(tmp_path: Path) -> None:
    assert rows_a_process(configured(tmp_path, "caption", PLAIN, {"batch_size": 12, "accumulate": 2}), 3) == 2
