"""Say in one table what a configuration's data are: what is there, missing, undecodable, lengths and words.

    python -m scripts.check_dataset --config configs/testa/retrieval/didemo_f32.yaml data.root=data/didemo --decode all

A column is a part of the data: train, eval, test, or a source to pre-train on. Videos are read as the configuration
samples them, 200 of each part (the seed draws them) or, with `--decode all`, every one; a file that hangs is given up.
OUT gets `dataset.json` (the table's numbers), `missing.jsonl`, `undecodable.jsonl`, and for each part `examples_*.png`
with its first videos as evaluation sees them, and with `data.objects` boxes and trajectories on their frames.

Exit status: 0 if every part can be read, missing videos or not; 1 if one cannot, or, with `--strict`, if anything is
missing or undecodable or a video to train on is in another part too; 2 if the command itself is wrong.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from configs.load import load_any
from configs.names import run_name
from configs.schema import CONFIG_CLASSES, TaskConfig
from scripts.check_dataset.parts import part_names, read_part
from scripts.parts.arguments import at_least, positive
from scripts.parts.worker_pool import JOBS_HELP


def check(
    config: TaskConfig, names: list[str], decode: int | None, workers: int, timeout: float, out: Path, strict: bool
) -> int:
    """Check the parts of the configuration that `names` names; returns the exit status."""
    parts, broken = [], False
    for name in names:
        try:
            parts.append(read_part(config, name))
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
            broken = True
    if not parts:
        return 1

    # Imports torch, which takes seconds: what cannot be read is named before.
    from scripts.check_dataset.report import report

    is_complete = report(config, parts, decode, workers, timeout, out)
    return 1 if broken or (strict and not is_complete) else 0


def number_or_all(text: str) -> int | None:
    """`all` as None."""
    return None if text == "all" else at_least(0)(text)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number_type: Callable[[str], int | None] = number_or_all
    parser.add_argument("--config", type=Path, required=True, help="the YAML file of a run")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings over the file's")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="train, eval, test, or a file of data.sources")
    parser.add_argument(
        "--decode", type=number_type, default=200, metavar="N", help="videos of each part to read, or all"
    )
    parser.add_argument("--jobs", type=at_least(0), default=os.cpu_count() or 1, help=JOBS_HELP)
    parser.add_argument("--timeout", type=positive, default=120.0, help="seconds for one video (%(default)s)")
    parser.add_argument("--out", type=Path, help="folder to write (outputs/check/<name of the config>)")
    parser.add_argument("--strict", action="store_true", help="status 1 if anything is missing, broken or leaks")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Checks what the command line names; a wrong one ends it with one line and status 2."""
    options = parse_arguments(arguments)
    try:
        config = load_any(CONFIG_CLASSES, options.config, options.overrides)
        names = part_names(config)
        for name in options.parts or []:
            if name not in names:
                raise ValueError(f"--parts {name}: the configuration has {', '.join(names)}")
        out = options.out or Path("outputs") / "check" / run_name(options.config)
        status = check(
            config, options.parts or names, options.decode, options.jobs, options.timeout, out, options.strict
        )
    except (ValueError, OSError) as error:
        print(f"check_dataset: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None

    raise SystemExit(status)


if __name__ == "__main__":
    main()
