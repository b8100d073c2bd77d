"""Numbers on command lines: what is too small is refused before anything is read or written."""

import importlib
import sys

import pytest

BAD = (
    ("app", "--top 0", "--top: 0: give 1 or more"),
    ("app", "--port -1", "--port: -1: give 0 or more"),
    ("app", "--index I --port 70000", "--port: 70000: give 65535 or less"),
    ("app", "--max-upload-mib 0", "--max-upload-mib: 0: give a number above 0"),
    ("benchmark", "encoder --rounds 0", "--rounds: 0: give 1 or more"),
    ("benchmark", "encoder --threads many", "--threads: invalid whole_number value: 'many'"),
    ("check_dataset", "--config C --decode -1", "--decode: -1: give 0 or more"),
    ("check_dataset", "--config C --timeout nan", "--timeout: nan: give a number above 0"),
    ("compare_reducers", "--config C --workers 0", "--workers: 0: give 1 or more"),
    ("count_flops", "--frames 0", "--frames: 0: give 1 or more"),
    ("estimate_scale", "--config C --processes 0", "--processes: 0: give 1 or more"),
    ("estimate_scale", "--config C --gigabits inf", "--gigabits: inf: give a number above 0"),
    ("extract_features", "SOURCE --batch-size 0", "--batch-size: 0: give 1 or more"),
    ("make_shards", "SOURCE OUT --shard-mb 0", "--shard-mb: 0: give 1 or more"),
    ("make_story_videos", "OUT --workers 0", "--workers: 0: give 1 or more"),
    ("plan_memory", "--config C --text-tokens 0", "--text-tokens: 0: give 1 or more"),
    ("plan_memory", "--config C --gpu-memory 0", "--gpu-memory: 0: give a number above 0"),
    ("preprocess_videos", "SOURCE OUT --jobs -1", "--jobs: -1: give 0 or more"),
    ("reproduce", "--nproc 0", "--nproc: 0: give 1 or more"),
    ("search", "index FOLDER --workers -1", "--workers: -1: give 0 or more"),
    ("search", "query TEXT --rerank -1", "--rerank: -1: give 0 or more"),
)


@pytest.mark.parametrize(("script", "words", "said"), BAD)
def test_what_is_too_small_is_refused(
    script: str, words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, *words.split()])
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(f"scripts.{script}").main()
    assert capsys.readouterr().err.splitlines()[-1].endswith(f": error: argument {said}")
