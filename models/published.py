"""The published weights of every system, by the system's name."""

from models.parts.published import Published
from models.stoa.published import PUBLISHED as STOA
from models.testa.published import PUBLISHED as TESTA
from models.tvts.published import PUBLISHED as TVTS
from models.umt.published import PUBLISHED as UMT

PUBLISHED: dict[str, tuple[Published, ...]] = {"testa": TESTA, "umt": UMT, "tvts": TVTS, "stoa": STOA}
