"""Types of command line arguments; argparse names the option and says what was given in place of a fit value."""

import argparse
import os
from collections.abc import Callable

from datasets.remote.addresses import Folder, folder_of


def at_least(least: int) -> Callable[[str], int]:
    """The type of a whole number that is not below `least`."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: give {least} or more")
        return int(text)

    return whole_number


def positive(text: str) -> float:
    """The type of a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0")
    return value


def place(text: str) -> Folder:
    """The type of a file or folder on this machine or elsewhere."""
    try:
        return folder_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


READERS = min(os.cpu_count() or 1, 4)
READERS_HELP = "processes that read videos, for each GPU (%(default)s)"


def from_zero(text: str) -> float:
    """The type of a finite number that is not negative."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: give a number of 0 or more")
    return value
