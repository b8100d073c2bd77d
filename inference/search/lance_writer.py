"""Write a Parquet file to a LanceDB table: `python -I lance_writer.py FILE.parquet FOLDER TABLE`, a process of its own.

It imports nothing of ours, see `inference/search/export.py`.
"""

import importlib
import sys


def main(parquet: str, folder: str, table: str) -> None:
    """Stream the rows of a Parquet file into a new table, FOLDER/TABLE.lance."""
    lancedb, pyarrow = importlib.import_module("lancedb"), importlib.import_module("pyarrow")
    file = importlib.import_module("pyarrow.parquet").ParquetFile(parquet)
    rows = pyarrow.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches())
    lancedb.connect(folder).create_table(table, rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
