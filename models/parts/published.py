"""How to describe published weights; each system lists its own in `published.py`."""

from typing import NamedTuple


class Published(NamedTuple):
    """One file of published weights.

    Attributes:
        name: the file's name.
        size: the model it belongs to.
        purpose: what it was trained for, or what training starts from it.
        source: an address that `checkpoint=` takes (`hf://OWNER/REPO/FILE`), or a page to download it from.
        licence: of the release; "not stated" if the release names none.
    """

    name: str
    size: str
    purpose: str
    source: str
    licence: str

    @property
    def can_be_fetched(self) -> bool:
        """Whether `checkpoint=` takes the source as it is."""
        return self.source.startswith("hf://")
