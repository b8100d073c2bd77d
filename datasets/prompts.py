"""Class names as sentences: a template with a place for the name, or several."""

import string
from collections.abc import Sequence

TVTS_TEMPLATE = "a person {}"


def check_template(template: str) -> None:
    """ValueError if a template is not a text with `{}` once and no other placeholder."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"prompt {template!r}: {error}; write {{}} once, where the class name stands") from None
    if fields != [""]:
        found = ", ".join(f"{{{field}}}" for field in fields) or "none"
        raise ValueError(f"prompt {template!r}: its placeholders are {found}; write {{}} once, for the class name")


def fill_prompts(classes: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """For each class its prompts, one a template; names are taken as they are. ValueError for a wrong template."""
    if not templates:
        raise ValueError("no prompt template is given; write at least one, such as 'a person {}'")
    for template in templates:
        check_template(template)
    return [[template.format(name) for template in templates] for name in classes]
