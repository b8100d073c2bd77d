"""Find needles in hours: train a small model on minutes, index hours by windows, search them by text.

    python -m benchmarks.needles --out outputs/needles
    python -m benchmarks.needles --out outputs/needles --seeds 0 --hours 5 --passes

For every seed, hours and minutes are made (`scripts.make_needle_videos`), a model is trained, and each hour is indexed
by windows of --window seconds; the embeddings are those of `scripts.search index`, but each file is read once. Then the
same hours are encoded in long passes, without training for it, with every `video.time_table`: an embedding of a whole
pass, and windows of its tokens.

OUT/needles.json holds what is known so far: the share of needles whose hour has the best row, and whose moment that row
shows. The same command resumes.
"""

import argparse
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import torch
from numpy.typing import NDArray

from benchmarks.needles.mistakes import mistakes, oracle
from benchmarks.needles.passes import Pass, encode_hours
from benchmarks.needles.scores import Needle, read_needles, shares
from benchmarks.reducers.runs import Run, run_all
from configs.model import TimeTable
from datasets.stories.needle_set import NEEDLES, SCENES, NeedleSet, make
from engine.checkpoint_folder import read_json, write_json
from engine.checkpoint_rotation import LAST
from engine.command_line import exit_status
from engine.folder_lock import only_writer
from engine.logging import start_logging
from inference.api import load_model
from scripts.parts.arguments import at_least
from scripts.parts.commands import run_printed

RESULTS = "needles.json"
EMBEDDING, TOKENS = "the embedding of a pass", "windows of its tokens"
SHARES = ("hour", "hour_top5", "moment", "moment_in_hour")


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        made: the hours and minutes, but for their seed.
        stride: seconds from one window to the next.
        passes: seconds of each long pass.
        overrides: settings of training.
    """

    out: Path
    config: str
    made: NeedleSet
    stride: int
    passes: tuple[int, ...]
    overrides: tuple[str, ...]
    workers: int


class Seed:
    """The runs and results of one seed, in a folder of its own."""

    def __init__(self, request: Request, seed: int) -> None:
        self.request, self.folder = request, request.out / f"seed{seed}"
        self.made = replace(request.made, seed=seed)
        self.videos, self.model = self.folder / "videos", self.folder / "model"

    @property
    def hours(self) -> list[Path]:
        """The files that are searched."""
        return sorted((self.videos / "videos" / "hours").iterdir())

    def training(self) -> Run:
        """Training on the minutes."""
        own = (f"seed={self.made.seed}", f"data.root={self.videos}", f"output_dir={self.model}")
        return Run(self.model, ("pretrain.py", "--config", self.request.config, *own, *self.request.overrides))

    def run(self) -> None:
        """Do what is not done yet; results of what is done are in the seed's own file at any time."""
        make(self.videos, self.made, self.request.workers)
        run_all([self.training()], run_printed)

        # Windows as the model was trained on, then longer passes.
        window = Pass(self.made.window, self.request.stride)
        kinds = [window]
        for seconds in self.request.passes:
            kinds += [Pass(seconds, seconds, table) for table in get_args(TimeTable)]

        results = read_json(self.folder / RESULTS) if (self.folder / RESULTS).exists() else {}
        results["training"] = {"seconds": self.training().seconds}
        needles, scenes = read_needles(self.videos / NEEDLES), read_needles(self.videos / SCENES)
        results["oracle"] = oracle(scenes, needles)
        texts = load_model(self.model / LAST).encode_text([needle.text for needle in needles]).numpy()
        for kind in kinds:
            if kind.name not in results:
                results[kind.name] = self._found(kind, window, needles, texts, scenes)
                write_json(self.folder / RESULTS, results)

    def _found(
        self, kind: Pass, window: Pass, needles: list[Needle], texts: NDArray, scenes: list[Needle]
    ) -> dict[str, Any]:
        begun = time.monotonic()
        passes, windows = encode_hours(self.hours, self.model / LAST, kind, window, self.folder / "passes" / kind.name)
        found: dict[str, Any] = {"seconds": round(time.monotonic() - begun, 1)}
        found[EMBEDDING] = shares(*passes, needles, texts)
        if kind == window:
            found["mistakes"] = mistakes(*passes, needles, texts, scenes)
        else:
            found[TOKENS] = shares(*windows, needles, texts)
        return found


def report(out: Path, made: NeedleSet) -> list[str]:
    """Write the results of all seeds so far, and return the table of their means with the lowest and highest."""
    found = {path.parent.name: read_json(path) for path in sorted(out.glob(f"seed*/{RESULTS}"))}
    machine = {"cores": os.cpu_count(), "torch": torch.__version__, "python": platform.python_version()}
    write_json(out / RESULTS, {"set": asdict(made), "machine": machine, "seeds": found})

    lines = [
        "| encoded | compared | hour first | hour in 5 | moment | moment in its hour |",
        "|---|---|---|---|---|---|",
    ]
    oracles = [results["oracle"] for results in found.values()]
    lines.append(f"| every fact of every scene | oracle | {' | '.join(_spread(oracles, share) for share in SHARES)} |")
    for name in dict.fromkeys(name for results in found.values() for name in results):
        for kind in (EMBEDDING, TOKENS):
            rows = [results[name][kind] for results in found.values() if kind in results.get(name, {})]
            if rows:
                seconds, _, table = name.partition("_")
                cells = [f"{seconds} s, {table}", kind, *(_spread(rows, share) for share in SHARES)]
                lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", f"{len(found)} seeds"]


def _spread(rows: Sequence[dict[str, float]], share: str) -> str:
    values = [row[share] for row in rows]
    spread = f" ({min(values):g} to {max(values):g})" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made = NeedleSet()
    parser.add_argument("--out", type=Path, default=Path("outputs/needles"), help="folder to write (%(default)s)")
    parser.add_argument("--config", default="configs/debug/needles.yaml", help="of training (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of hours and weights (%(default)s)")
    parser.add_argument("--hours", type=at_least(2), default=made.hours, help="to search (%(default)s)")
    parser.add_argument("--minutes", type=at_least(2), default=made.minutes, help="to learn from (%(default)s)")
    parser.add_argument("--window", type=at_least(1), default=made.window, help="seconds of a window (%(default)s)")
    parser.add_argument("--stride", type=at_least(1), default=1, help="seconds between windows (%(default)s)")
    parser.add_argument("--passes", type=int, nargs="*", default=[60, 3600], help="seconds of long ones (%(default)s)")
    parser.add_argument("--workers", type=at_least(1), default=1, help="processes that draw videos (%(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of training, such as train.max_epochs=2")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks; a bad one, or a run that fails, ends it with one line and status 2."""
    options = parse_arguments(arguments)
    with exit_status():
        start_logging()
        made = NeedleSet(hours=options.hours, minutes=options.minutes, window=options.window)
        request = Request(
            options.out,
            options.config,
            made,
            options.stride,
            tuple(options.passes),
            tuple(options.overrides),
            options.workers,
        )

        for number in options.seeds:
            seed = Seed(request, number)
            with only_writer(seed.folder):
                seed.run()
            print("\n".join(report(options.out, made)), flush=True)


if __name__ == "__main__":
    main()
