"""What a run is called after: the name of its configuration's file, where that is enough to tell it from others."""

from pathlib import Path

CONFIGS = Path(__file__).resolve().parent
NAMED_BY_FILE = ("debug", "testa")
"""Folders of `configs/` whose files all have names of their own."""


def run_name(path: Path) -> str:
    """The name of the run of a configuration, by which its default folder is called.

    It is the file's name for TESTA, the quick configurations and files of users: `didemo_f32`. The other systems'
    files are called after a data set and a size, so theirs begins with the folder: `umt/retrieval/didemo_b16`.
    """
    file = path if path.is_absolute() else CONFIGS.parent / path
    if not file.resolve().is_relative_to(CONFIGS):
        return path.stem

    inside = file.resolve().relative_to(CONFIGS).with_suffix("")
    return path.stem if inside.parts[0] in NAMED_BY_FILE else inside.as_posix()
