"""Long files after each other: memory stays level, and a damaged one is named while all others are encoded."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hour import made_file
from tests.integration.runs import ROOT, train
from tests.tiny_runs import write_data

FILES, SECONDS, WINDOW = 10, 1200, 60
DAMAGED = 4
GROWTH = 32e6
"""Bytes; the frames of the files stay listed, 3 MB an hour, and what a process holds goes up and down."""


def memory_of(process: int) -> int:
    """Bytes that a process and its children hold, what they share counted once; 0 where it has ended.

    Without the files that they map, whose pages count less while other programs map them, too.
    """
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    held = sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return 1024 * held + sum(memory_of(int(child)) for child in children)


def damage(path: Path) -> None:
    """Overwrite more than 2 % in the middle of a file."""
    content = bytearray(path.read_bytes())
    middle, length = len(content) // 2, len(content) // 30
    content[middle : middle + length] = bytes(length)
    path.unlink()
    path.write_bytes(content)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [0, 1])
def test_ten_long_files_after_each_other(tmp_path: Path, workers: int) -> None:
    root = write_data(tmp_path / "data", [1] * 4)
    checkpoint = train(root, root / "run", train={"max_epochs": 1, "batch_size": 4}) / "checkpoint_best"
    made = made_file(SECONDS)
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(FILES):
        os.link(made, folder / f"{number}.mp4")
    damage(folder / f"{DAMAGED}.mp4")

    command = [sys.executable, "-m", "scripts.extract_features", str(folder), "--checkpoint", str(checkpoint)]
    command += ["--out", str(tmp_path / "out"), "--window", str(WINDOW), "--workers", str(workers), "--json"]
    started, held = time.monotonic(), []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            held.append(memory_of(process.pid))
            time.sleep(0.25)
        assert process.stdout is not None and process.stderr is not None
        output, log = process.stdout.read(), process.stderr.read()
    assert process.returncode == 1, log

    # The highest of each tenth. The first two warm up; at the end, features are put together.
    tenths = [int(max(part)) for part in np.array_split(held, 10)]
    megabytes = [round(level / 1e6) for level in tenths]
    print(f"{workers} workers, {time.monotonic() - started:.0f} s, MB in each tenth: {megabytes}")
    assert tenths[-2] - tenths[2] < GROWTH

    # Every window of every file, but those in which one is damaged.
    counts, of_file = json.loads(output), 1 + SECONDS // WINDOW
    failed = [json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    assert {Path(row["video"]).name for row in failed} == {f"{DAMAGED}.mp4"}
    assert 1 <= len(failed) <= 8 and all("damaged" in row["reason"] for row in failed)
    assert counts["videos"] == FILES * of_file and counts["failed"] == len(failed)
    rows = [json.loads(line) for line in (tmp_path / "out" / "features" / "index.jsonl").read_text().splitlines()]
    whole = {f"{number}.mp4": of_file for number in range(FILES)}
    assert Counter(Path(row["video"]).name for row in rows) == Counter(whole) - Counter({f"{DAMAGED}.mp4": len(failed)})

    # The same video gives the same features, of which those beside the damage are some.
    embeddings = np.load(tmp_path / "out" / "features" / "embeddings.npy")
    first = {(row["start"], row["end"]): embeddings[row["row"]] for row in rows if row["video"].endswith("/0.mp4")}
    for row in rows:
        np.testing.assert_allclose(embeddings[row["row"]], first[row["start"], row["end"]], atol=2e-6)
