"""How far a command is with many videos, and within a file that takes long: on a terminal a bar, else lines."""

import logging
import os
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

from datasets.reading import Progress

logger = logging.getLogger(__name__)

LINE_SECONDS = 30.0
"""Between two lines of the log, where no terminal shows a bar."""
DELAY_SECONDS = 2.0
"""What is over sooner shows no bar."""
FILES_SHOWN = 3


class FileProgress:
    """Progress over `total` items of a kind that `unit` names in the plural, and within the files being read.

    Args:
        shown: False in processes that print nothing.
        told: is told the same in words without names of files.
    """

    def __init__(
        self, total: int, unit: str, shown: bool = True, told: Callable[[str], None] = lambda words: None
    ) -> None:
        self._told = told
        self.total, self.unit, self.done = total, unit, 0
        self._bar = tqdm(
            total=total, unit=f" {unit}", disable=None if shown else True, leave=False, delay=DELAY_SECONDS
        )
        self._shown, self._begun = shown, time.monotonic()
        self._lined = self._begun

    def reading(self, files: Sequence[Progress]) -> None:
        """Show how far files are read; a `datasets.reading.Told`."""
        if files:
            self._told(in_words(files[0]))
            more = f" and {len(files) - FILES_SHOWN} more" if len(files) > FILES_SHOWN else ""
            shown = [f"{os.path.basename(file.path)}: {in_words(file)}" for file in files[:FILES_SHOWN]]
            self._show(f"reading {', '.join(shown)}{more}")

    def encoding(self, names: Sequence[str]) -> None:
        """Show what is encoded now: the paths of a batch."""
        names = list(dict.fromkeys(map(os.path.basename, names)))
        if names:
            self._told("encoding")
            self._show(f"encoding {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else ""))

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def advance(self, items: int) -> None:
        """Count items that are done."""
        self.done += items
        self._bar.update(items)

    def _show(self, state: str) -> None:
        now = time.monotonic()
        if not self._bar.disable:
            if now - self._begun >= DELAY_SECONDS:
                self._bar.set_postfix_str(state)
        elif self._shown and now - self._lined >= LINE_SECONDS:
            self._lined = now
            passed = tqdm.format_interval(now - self._begun)
            logger.info("%d of %d %s in %s, %s", self.done, self.total, self.unit, passed, state)


def in_words(file: Progress) -> str:
    """How far a file is read, for people."""
    if file.wanted:
        return f"{file.read} of {file.wanted} frames"
    return "its frames are counted" if file.heard else "is opened"
