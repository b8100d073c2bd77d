"""Class names and templates of CLIP's zero-shot sets, from the Markdown file in which OpenAI published them."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

from datasets.annotations.files import GET_IT_AGAIN, text_of


class ClipPrompts(NamedTuple):
    """The classes of a set, in order, and its templates, with `{}` in place of the class name."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]


def read_clip_prompts(path: Path, dataset: str) -> ClipPrompts:
    """The prompts below the heading `## dataset`, such as UCF101 or Kinetics700; parsed as data, never executed.

    ValueError, which lists the sets of the file, if `dataset` is not one of them.
    """
    sections = re.split(r"^## +(.+?)\s*$", text_of(path), flags=re.MULTILINE)
    by_name = dict(zip(sections[1::2], sections[2::2], strict=True))
    if dataset not in by_name:
        raise ValueError(f"{path}: has no prompts of {dataset}; it has {', '.join(by_name) or 'none'}")
    return ClipPrompts(*(_list_of(by_name[dataset], name, f"{path}: {dataset}") for name in ("classes", "templates")))


def _list_of(section: str, name: str, place: str) -> tuple[str, ...]:
    found = re.search(rf"^{name} = (\[.*?^\])", section, flags=re.MULTILINE | re.DOTALL)
    try:
        values = ast.literal_eval(found[1]) if found else None
    except (SyntaxError, ValueError):
        values = None
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{place}: {name} is no list of texts; {GET_IT_AGAIN}")
    return tuple(values)
