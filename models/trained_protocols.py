"""What an objective may ask of a model that it trains, besides `models.protocols`.

Shapes: B batch, P texts, K transcripts or layers, S text tokens, V visible patches, D width, E width of the shared
space.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from models.parts.bert_attention import Memory
from models.parts.processes import Processes
from models.protocols import (
    DualEncoder,
    EmbeddedVideo,
    Matcher,
    ReadText,
    StateMatcher,
    Trainable,
    Twinnable,
)


class ContrastiveModel(DualEncoder, Matcher, Twinnable, Trainable, Protocol):
    """What contrast with matching, and captioning where the model writes, asks of a model."""

    temp: nn.Parameter
    is_tied: bool

    def clamp_temperature(self) -> None:
        """Keep the contrastive temperature in the range it is defined on."""
        ...

    def text_loss(self, memory: Memory, ids: Tensor, mask: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """Loss (P,) of each text, summed over its tokens, by a decoder that attends to the same memory."""
        ...


@runtime_checkable
class WordGuesser(Protocol):
    """Masked words, guessed from the rest of their text and its video."""

    mask_id: int
    num_words: int

    def guess_words(self, memory: Memory, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits (P, S, words) of each place of texts, some of whose words are `mask_id`."""
        ...


@runtime_checkable
class Student(Protocol):
    """A video encoder that sees some of the patches, and learns what a teacher makes of these."""

    def encode_visible(self, video_BTCHW: Tensor, keep_BV: Tensor) -> tuple[EmbeddedVideo, Tensor]:
        """Features of the patches `keep_BV` alone, and what is to equal the teacher's features of them (K, B, V, C)."""
        ...


class StudentModel(DualEncoder, Matcher, StateMatcher, WordGuesser, Student, Trainable, Protocol):
    """What UMT's objective asks of a model; of words and a teacher only where the configuration has those losses."""

    temp: nn.Parameter

    def encode_text(self, ids: Tensor, mask: Tensor) -> ReadText:
        """Embeddings and states of texts alone; ids and mask (P, S)."""
        ...

    def clamp_temperature(self) -> None:
        """Keep the contrastive temperature in the range it is defined on."""
        ...


@runtime_checkable
class TakesLosses(Protocol):
    """A model that takes its own losses of encoded clips and their texts."""

    def take_losses(
        self,
        names: tuple[str, ...],
        video: Any,
        ids: Tensor,
        mask: Tensor,
        nouns_and_verbs: tuple[Tensor, Tensor] | None,
        *,
        seed: int,
        step: int,
        part: int,
        contrast_reaches_frames: bool,
        videos_of_rows: Tensor | None,
        processes: Processes,
    ) -> dict[str, Tensor]:
        """The losses of clips, as `encode_video` gives them, and of a text (B, S) of each, by name."""
        ...


class FusionModel(DualEncoder, Matcher, TakesLosses, Trainable, Protocol):
    """What the losses of an encoder that fuses clips with texts ask of a model."""

    def freeze_unused(self, losses: tuple[str, ...], contrast_reaches_frames: bool = True) -> None:
        """Freeze what none of the losses reaches; contrast may be kept from the video tower."""
        ...

    def clamp_temperature(self) -> None:
        """Keep the contrastive temperature in the range it is defined on."""
        ...


class SortedClips(Protocol):
    """Embeddings `video` and `text` (B, E) of clips and of their texts together, and logits (B, K, K) of their order.

    `order_logits` is None where a clip has a single text.
    """

    @property
    def video(self) -> Tensor: ...  # noqa: D102

    @property
    def text(self) -> Tensor: ...  # noqa: D102

    @property
    def order_logits(self) -> Tensor | None: ...  # noqa: D102


class DrawsKept(Protocol):
    """A tower that can be shown some patches of a clip alone, the same in every frame."""

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch."""
        ...

    def draw_kept(self, num_patches: int, noise_BP: Tensor) -> Tensor | None:
        """Places (B, kept) of the patches that training keeps of each clip; None where it keeps all."""
        ...


@runtime_checkable
class Sorter(DrawsKept, Protocol):
    """Which of a clip's K transcripts is spoken first, second and so on, judged by the video."""

    @property
    def sorting_head(self) -> nn.Module | None:
        """The head that only sorting trains; None where the model has none."""
        ...

    def sort(self, video_BTCHW: Tensor, ids_BKS: Tensor, keep_BL: Tensor | None = None) -> SortedClips:
        """Encode clips, of which only the patches `keep_BL` are seen, and their transcripts in order of time."""
        ...
