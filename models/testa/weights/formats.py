"""The files that TESTA's models can start from: our own, TESTA's, BLIP's and timm's ViTs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import ClassVar

from torch import Tensor

from configs.model import TimeTable
from models.checkpoints import native
from models.checkpoints.stored import OTHER_VOCABULARY, FittedPart
from models.parts.tokenizer import BLIP_TOKENS
from models.testa.weights import blip, testa, timm
from models.testa.weights.encoder import fit_encoder
from models.testa.weights.timm import ENCODER

PRETRAINED = "a pre-trained file (TESTA's, or BLIP's model_base.pth, model_base_14M.pth, model_base_capfilt_large.pth)"


@dataclass(frozen=True)
class TestaFormats:
    """The `models.checkpoints.load.WeightFormats` of TESTA.

    Attributes:
        time_table: how time positions are stretched to a model of more frames.
    """

    time_table: TimeTable = "nearest"

    # In the order in which they are asked: TESTA's files have all names that BLIP's have.
    adapters: ClassVar[tuple[ModuleType, ...]] = (native, testa, blip, timm)
    known_files: ClassVar[str] = "no checkpoint of this project, TESTA, BLIP or a ViT of timm"
    # Which files have a part that another lacks.
    found_in: ClassVar[Mapping[str, str]] = {
        "text_encoder": f"{PRETRAINED}, or one fine-tuned for retrieval or question answering",
        "text_decoder": f"{PRETRAINED}, or one fine-tuned for question answering or captions",
        **dict.fromkeys(
            ("vision_proj", "text_proj", "itm_head", "temp"), f"{PRETRAINED}, or one fine-tuned for retrieval"
        ),
    }
    otherwise_found_in: ClassVar[str] = PRETRAINED

    def stretching(self, time_table: TimeTable) -> "TestaFormats":
        """The same formats, which stretch time positions in this way."""
        return replace(self, time_table=time_table)

    def fit_part(self, part: str, found: dict[str, Tensor], own: dict[str, Tensor]) -> FittedPart:
        """Make the weights `found` of a part fit the model's state `own`; names are relative to the part."""
        return fit_encoder(found, own, self.time_table) if part == ENCODER else FittedPart(found)

    def remedy(self, name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
        """What to do if the vocabularies differ."""
        if not name.endswith("word_embeddings.weight") or shape[0] == wanted[0]:
            return ""
        if shape[0] == wanted[0] - len(BLIP_TOKENS):
            return f"take a file that was saved after {' and '.join(BLIP_TOKENS)} were added"
        return OTHER_VOCABULARY


FORMATS = TestaFormats()
