"""Run commands of this project one after the other in one process, each with the record that it is done.

    python -m benchmarks.reducers.in_turn RUNS.json

RUNS.json is a list of {"folder", "words"}. An evaluation of a small model takes less time than starting a process that
can do it, and a comparison has a hundred of them.
"""

import runpy
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from engine.checkpoint_folder import read_json, write_json
from scripts.parts.commands import ROOT

DONE = "done.json"


def run_here(words: list[str]) -> None:
    """Run `python WORDS` within this process; SystemExit if it fails."""
    before = sys.argv
    sys.argv = list(words)
    try:
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.argv = before


def write_done(folder: Path, words: tuple[str, ...], seconds: float) -> None:
    """Record that a command was run to its end, and how long it took."""
    write_json(folder / DONE, {"words": words, "seconds": round(seconds, 1)})


def main(runs: list[dict[str, Any]]) -> None:
    """Run all of them; SystemExit with the status of the first that fails."""
    for run in runs:
        print(f"\n$ {shlex.join(('python', *run['words']))}", flush=True)
        begun = time.monotonic()
        run_here(run["words"])
        write_done(Path(run["folder"]), tuple(run["words"]), time.monotonic() - begun)


if __name__ == "__main__":
    main(read_json(Path(sys.argv[1])))
