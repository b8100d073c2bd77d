"""List the published weights of every system: the model's size, what it was trained for, where it is from, its licence.

    python -m scripts.list_models
    python -m scripts.list_models --system umt --json

An `hf://` address can be given as `checkpoint=` as it is; any other source is a page or file to download first.
"""

import argparse
import json
import sys

from models.systems import published_weights

COLUMNS = ("system", "weights", "size", "for", "from", "licence")


def rows(system: str | None) -> list[dict[str, str]]:
    """A row for each file, of all systems or of one; ValueError for a system that there is not."""
    published = published_weights()
    if system is not None and system not in published:
        raise ValueError(f"--system: there is no {system}, only {', '.join(published)}")

    chosen = published if system is None else {system: published[system]}
    listed = []
    for name, files in chosen.items():
        for file in files:
            cells = (name, file.name, file.size, file.purpose, file.source, file.licence)
            listed.append(dict(zip(COLUMNS, cells, strict=True)))
    return listed


def table(listed: list[dict[str, str]]) -> list[str]:
    """The rows in aligned columns, below a header."""
    lines = [COLUMNS, *(tuple(row.values()) for row in listed)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    aligned = []
    for line in lines:
        cells = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        aligned.append("  ".join(cells).rstrip())
    return aligned


def main(words: list[str] | None = None) -> int:
    """Print what the command line asks for; the status to end with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", help="list the weights of this one alone")
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects")
    arguments = parser.parse_args(words)

    try:
        listed = rows(arguments.system)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    print(json.dumps(listed, indent=1) if arguments.json else "\n".join(table(listed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
