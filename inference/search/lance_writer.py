"""Write a Parquet file to a LanceDB table, in a process of its own that `inference/search/export.py` starts.

It imports nothing of ours: LanceDB takes any module called `datasets` for a library of that name.
"""

import importlib


def main(parquet: str, folder: str, table: str) -> None:
    """Stream the rows of a Parquet file into a new table, FOLDER/TABLE.lance."""
    lancedb, pyarrow = importlib.import_module("lancedb"), importlib.import_module("pyarrow")
    file = importlib.import_module("pyarrow.parquet").ParquetFile(parquet)
    rows = pyarrow.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches())
    lancedb.connect(folder).create_table(table, rows)
