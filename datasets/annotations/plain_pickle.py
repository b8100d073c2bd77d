"""Pickles of plain data (texts, numbers, lists, tuples, dicts), read so that nothing in them can run."""

import copyreg
import io
import pickle
from pathlib import Path
from typing import Any, NoReturn


class _Refused(Exception):
    """The pickle asks for something that is not plain data; its text says for what."""


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler without classes, functions or objects kept elsewhere: what is left of the format is data."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, identifier: object) -> NoReturn:
        raise _Refused(f"an object kept outside the file, {identifier!r}")


def load(path: Path) -> Any:
    """Read one pickle of plain data, of any protocol and of Python 2 or 3.

    ValueError, with the file and what it asks for, if it wants a class, a function, or anything but data; nothing of it
    is imported or called. ValueError too if it is damaged.
    """
    content = path.read_bytes()
    # A pickle may name a function by a number the process has registered. Those met before would be taken from this
    # cache; without it `find_class` is asked for them too.
    copyreg.clear_extension_cache()
    try:
        # Python 2 kept texts as bytes.
        return _PlainUnpickler(io.BytesIO(content), encoding="utf-8").load()
    except _Refused as refused:
        raise ValueError(
            f"{path}: the pickle asks for {refused}, which is not plain data and may run code; nothing of it was run, "
            "get the file from where docs/DATASETS.md says"
        ) from None
    except Exception as error:
        # The library says that damaged content may raise anything.
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path}: not a pickle of plain data ({text}); get the file again, docs/DATASETS.md says where"
        ) from None
