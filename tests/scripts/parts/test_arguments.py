"""Numbers on command lines: what is too small is refused before anything is read or written."""

import importlib
import sys

import pytest

BAD = (
    ("scripts.app", "--top 0", "--top: 0: give 1 or more"),
    ("scripts.app", "--port -1", "--port: -1: give 0 or more"),
    ("scripts.app", "--index I --port 70000", "--port: 70000: give 65535 or less"),
    ("scripts.app", "--max-upload-mib 0", "--max-upload-mib: 0: give a number above 0"),
    ("benchmarks", "encoder --rounds 0", "--rounds: 0: give 1 or more"),
    ("benchmarks", "encoder --threads many", "--threads: invalid whole_number value: 'many'"),
    ("scripts.check_dataset", "--config C --decode -1", "--decode: -1: give 0 or more"),
    ("scripts.check_dataset", "--config C --timeout nan", "--timeout: nan: give a number above 0"),
    ("benchmarks.reducers", "--config C --workers 0", "--workers: 0: give 1 or more"),
    ("scripts.count_flops", "--frames 0", "--frames: 0: give 1 or more"),
    ("scripts.estimate_scale", "--config C --processes 0", "--processes: 0: give 1 or more"),
    ("scripts.estimate_scale", "--config C --gigabits inf", "--gigabits: inf: give a number above 0"),
    ("scripts.extract_features", "SOURCE --batch-size 0", "--batch-size: 0: give 1 or more"),
    ("scripts.make_shards", "SOURCE OUT --shard-mb 0", "--shard-mb: 0: give 1 or more"),
    ("scripts.make_story_videos", "OUT --workers 0", "--workers: 0: give 1 or more"),
    ("scripts.plan_memory", "--config C --text-tokens 0", "--text-tokens: 0: give 1 or more"),
    ("scripts.plan_memory", "--config C --gpu-memory 0", "--gpu-memory: 0: give a number above 0"),
    ("scripts.preprocess_videos", "SOURCE OUT --jobs -1", "--jobs: -1: give 0 or more"),
    ("scripts.reproduce", "--nproc 0", "--nproc: 0: give 1 or more"),
    ("scripts.search", "index FOLDER --workers -1", "--workers: -1: give 0 or more"),
    ("scripts.search", "query TEXT --rerank -1", "--rerank: -1: give 0 or more"),
)


@pytest.mark.parametrize(("command", "words", "said"), BAD)
def test_what_is_too_small_is_refused(
    command: str, words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [command, *words.split()])
    module = importlib.import_module(command)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{command}.__main__")
    with pytest.raises(SystemExit, match="2"):
        module.main()
    assert capsys.readouterr().err.splitlines()[-1].endswith(f": error: argument {said}")
