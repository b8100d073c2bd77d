"""Fetch all that configurations need from the hub, weights and vocabularies, into one folder for machines without it.

    python -m scripts.fetch --config configs/testa/retrieval/queryd_f32.yaml --to FOLDER   what training starts from
    python -m scripts.fetch --row queryd_f32 didemo_f32 --to FOLDER                        what scripts.reproduce needs
    python -m scripts.fetch --checkpoint hf://OWNER/REPO/FILE.pth --to FOLDER              any other weights

Copy FOLDER to the other machine as it is, links included (`rsync -a` or `tar`), and set there

    export HF_HOME=FOLDER HF_HUB_OFFLINE=1

All commands then take from it what they would fetch. Run again, this fetches only what is new. Ends with status 2 if
something could not be had. docs/OFFLINE.md has the whole way.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from configs.load import load_any
from configs.schema import CONFIG_CLASSES, RunConfig
from engine.fetching import Need, obtain_all
from engine.hub import why_unreachable
from scripts.parts.row_configs import default_weights, published_at, read_config
from scripts.parts.rows.table import ROWS

CACHE = "hub"
"""Where below HF_HOME the hub's own library looks for what was fetched."""


@dataclass(frozen=True)
class Request:
    """What is to be fetched, and where to.

    Attributes:
        configs: YAML files of runs. rows: names of rows of scripts.reproduce. checkpoints: addresses of other weights.
        overrides: `key=value` over every configuration.
        folder: the folder that becomes HF_HOME.
    """

    configs: tuple[Path, ...]
    rows: tuple[str, ...]
    checkpoints: tuple[str, ...]
    overrides: tuple[str, ...]
    folder: Path


def configurations(request: Request) -> Iterator[tuple[str, RunConfig]]:
    """Every configuration that is asked for, with the file or the row that it comes from."""
    overrides = list(request.overrides)
    if not any(override.startswith("data.root=") for override in overrides):
        # Most files leave the folder of the data to the command line; it does not matter here.
        overrides.append("data.root=data")

    for path in request.configs:
        yield str(path), load_any(CONFIG_CLASSES, path, overrides)

    for name in request.rows:
        if name not in ROWS:
            raise ValueError(f"--row: {name}: no such row; `python -m scripts.reproduce` lists them")
        yield name, replace(read_config(ROWS[name], overrides), checkpoint=default_weights(ROWS[name]))


def fetch(request: Request) -> list[str]:
    """Fetch everything and print where it is; what could not be fetched, a line each."""
    cache_dir = request.folder.absolute() / CACHE
    failed: dict[str, str] = {}

    for origin, config in configurations(request):
        found, refused = obtain_all(config, cache_dir)
        for need, path in found.items():
            if need.is_of_hub:
                print(f"{origin}: {need.source} is {path}")
        for need, error in refused.items():
            if need.is_of_hub:
                failed[need.source] = f"{origin}: {error}"
            else:
                print(f"note: {origin}: {_about_path(need)}", file=sys.stderr)

    for source in request.checkpoints:
        try:
            print(f"{source} is {Need('--checkpoint', source, 'weights').obtain(cache_dir)}")
        except ValueError as error:
            failed[source] = str(error)

    return list(failed.values())


def _about_path(need: Need) -> str:
    address = published_at(need.source)
    whence = f" (from {address})" if address is not None else ""
    return f"{need.setting}: {need.source} is a path and not of the hub; copy that file{whence} yourself"


def config_file(text: str) -> Path:
    """The type of --config, which may have several values and must not take settings for some of them."""
    if "=" in text and not Path(text).exists():
        raise argparse.ArgumentTypeError(f"{text} is no file; write settings before --config")
    return Path(text)


def parse(words: list[str] | None) -> Request:
    """Read the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over the files', as for the run")
    parser.add_argument("--config", nargs="+", action="extend", type=config_file, default=[], help="YAML files of runs")
    parser.add_argument("--row", nargs="+", action="extend", default=[], help="rows of scripts.reproduce")
    parser.add_argument(
        "--checkpoint", nargs="+", action="extend", default=[], metavar="hf://...", help="other weights"
    )
    parser.add_argument("--to", type=Path, required=True, help="the folder that becomes HF_HOME")
    arguments = parser.parse_intermixed_args(words)
    if not (arguments.config or arguments.row or arguments.checkpoint):
        parser.error("give --config, --row or --checkpoint")

    return Request(
        tuple(arguments.config),
        tuple(arguments.row),
        tuple(arguments.checkpoint),
        tuple(arguments.overrides),
        arguments.to,
    )


def main(words: list[str] | None = None) -> int:
    """Do what the command line says; the status to end with."""
    request = parse(words)
    try:
        failures = fetch(request)
        if failures and why_unreachable() is not None:
            failures = [f"the hub cannot be reached ({why_unreachable()}); run this where it can"]
    except ValueError as error:
        failures = [str(error)]

    for line in failures:
        print(f"error: {line}", file=sys.stderr)
    if failures:
        return 2

    home = shlex.quote(str(request.folder.absolute()))
    print(f"\nCopy {request.folder} as it is, links included, and there: export HF_HOME={home} HF_HUB_OFFLINE=1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
