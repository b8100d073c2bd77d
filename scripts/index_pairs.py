"""Index files of pre-training pairs ahead of a job: `python -m scripts.index_pairs FILE ...`.

A job makes what it lacks by itself; this does so where nobody waits, and finds the rows that are not as they should be.
A folder stands for the tar shards in it: it gets an `index.json` that lists them, unless it has one.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

from configs.sizes import format_bytes
from datasets import shards
from datasets.sources import open_source


def main(arguments: list[str] | None = None) -> None:
    """Open every file named on the command line, and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help=".jsonl, .csv, .json or .tsv, or a folder of .tar shards")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for path in parser.parse_args(arguments).files:
        begun = time.monotonic()
        try:
            if path.is_dir():
                path = path / shards.INDEX
                if not path.is_file():
                    shards.write_index(path, shards.find_shards(path.parent))
            table = open_source(path, path.parent)
        except ValueError as error:
            sys.exit(f"error: {error}")

        size = sum(column.nbytes for column in table.columns.values())
        print(
            f"{path}: {len(table)} pairs of {table.num_videos} videos or images, {table.left_out} rows without words "
            f"left out, {format_bytes(size)} in {table.folder}, opened in {time.monotonic() - begun:.1f} s"
        )


if __name__ == "__main__":
    main()
