"""What a task may ask of a model.

A model has the protocols of what it can do; nothing outside its room knows its towers.

Shapes: B batch, V videos, P texts, T frames, N video tokens, S text tokens, D width, E width of the shared space.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from models.parts.bert_attention import Memory
from models.parts.processes import Processes


class Embedded(Protocol):
    """Features with an embedding (B, E), float32. A similarity is a dot product: it need not have length 1."""

    @property
    def embedding(self) -> Tensor:
        """The embedding (B, E)."""
        ...


class EmbeddedVideo(Embedded, Protocol):
    """Features of videos: the embedding, and the tokens (B, N, D) that matching and decoders attend to."""

    @property
    def tokens(self) -> Tensor:
        """The tokens (B, N, D)."""
        ...


class Trainable(Protocol):
    """What the training loop asks: parts to compile, to fold, and to freeze where no loss reaches them."""

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch."""
        ...

    @property
    def num_blocks(self) -> int:
        """Blocks of the video encoder, each of which may take tokens away."""
        ...

    def compile_towers(self) -> None:
        """Compile what is worth it, in place."""
        ...

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Evaluate in `dtype` from now on, with outputs equal to 1e-5; the model no longer trains."""
        ...

    def freeze_unused(self, losses: tuple[str, ...]) -> None:
        """Freeze what none of the losses reaches: all that is trained has a gradient, as DDP requires.

        `classes` is the loss of a head on the video embedding; it is asked of dual encoders.
        """
        ...

    def video_tokens(self, video_BTCHW: Tensor) -> Tensor:
        """The tokens (B, N, D) of uint8 videos, or of floats that are normalised already."""
        ...

    def trace_video(self, video_BTCHW: Tensor, steps: list[list[Any]] | None = None) -> Any:
        """Tokens, sizes and origins of uint8 videos; `steps` gets what each block merges or drops."""
        ...


class Twinnable(Protocol):
    """A model whose embeddings a momentum twin can make with copies of its parts."""

    @property
    def twinned(self) -> tuple[str, ...]:
        """The names of the parts that make embeddings."""
        ...

    def embed_with(
        self, parts: Mapping[str, nn.Module], video_BTCHW: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Embeddings (B, E) of videos and texts by other modules in the place of the twinned parts."""
        ...


@runtime_checkable
class DualEncoder(Protocol):
    """Videos and texts in one space."""

    @property
    def embed_dim(self) -> int:
        """Width of the shared space."""
        ...

    @property
    def similarity_scale(self) -> float:
        """What similarities are multiplied by in training: 1 / temperature."""
        ...

    def encode_video(self, video_BTCHW: Tensor) -> EmbeddedVideo:
        """Tokens and embeddings of uint8 videos, or of floats that are normalised already."""
        ...

    def encode_text(self, ids: Tensor, mask: Tensor) -> Embedded:
        """Embeddings of texts alone; ids and mask (P, S)."""
        ...

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Unit vectors (..., E) of video tokens (..., D) in the shared space."""
        ...


@runtime_checkable
class AveragesWindows(Protocol):
    """A dual encoder whose sliding windows are averaged before the mean becomes an embedding.

    Without it the embeddings themselves are averaged, so a similarity is the mean over windows.
    """

    def encode_windows(self, video_BTCHW: Tensor) -> Tensor:
        """What of each window (B, E) is averaged, float32."""
        ...

    def embed_mean(self, mean_VE: Tensor) -> Tensor:
        """The embeddings (V, E) of videos, from the means over their windows."""
        ...


@runtime_checkable
class Matcher(Protocol):
    """Whether a text is of a video."""

    def project(self, video_tokens: Tensor) -> Memory:
        """What texts attend to of videos (V, N, D), made once."""
        ...

    def project_once(self, video_tokens: Tensor) -> Memory:
        """The same for one use, layer by layer."""
        ...

    def match(self, video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None) -> Tensor:
        """Logits (P, 2), no match and match, of texts with the videos `about` (P,), or P / V texts each in order."""
        ...

    def match_groups(self, groups: Sequence[tuple[int, Memory]], ids: Tensor, mask: Tensor) -> Tensor:
        """The same for groups of texts one after the other: how many texts, and the memory of their videos."""
        ...


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


class ReadText(Embedded, Protocol):
    """Features of texts that were read alone: the embedding, and states (P, S, D) that are fused with videos later."""

    @property
    def states(self) -> Tensor:
        """The states (P, S, D)."""
        ...


@runtime_checkable
class ReadsTexts(Protocol):
    """An encoder of texts alone that also returns their states."""

    def encode_text(self, ids: Tensor, mask: Tensor) -> ReadText:
        """Embeddings and states of texts alone; ids and mask (P, S)."""
        ...


@runtime_checkable
class StateMatcher(ReadsTexts, Protocol):
    """Matching that reuses what was read of each text alone; a model without it reads a text again for every video."""

    def project(self, video_tokens: Tensor) -> Memory:
        """What texts attend to of videos (V, N, D), made once."""
        ...

    def match_states(self, groups: Sequence[tuple[int, Memory]], states: Tensor, mask: Tensor) -> Tensor:
        """As `Matcher.match_groups`, of texts that `encode_text` has read: states (P, S, D) and mask (P, S)."""
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


class ReadsExtras(Protocol):
    """A model that reads what goes along with clips; clips have extras where the configuration asks for them."""

    def encode_video(self, video_BTCHW: Tensor, extras: Mapping[str, Tensor]) -> EmbeddedVideo:
        """The features of clips with their extras."""
        ...

    def video_tokens(self, video_BTCHW: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """The tokens (B, N, D) of clips with their extras."""
        ...


@runtime_checkable
class Writer(Protocol):
    """Texts written about a context: video tokens, or the states of questions."""

    def text_loss(self, memory: Memory, ids: Tensor, mask: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """Loss (P,) of each text, summed over its tokens."""
        ...

    def context_loss(self, context: Tensor, ids: Tensor, mask: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """The same for a context (V, N, D) that is not projected yet."""
        ...

    def generate(self, context: Tensor, context_mask: Tensor | None = None, **settings: Any) -> Tensor:
        """Ids (B, S) of a text for each context (B, N, D)."""
        ...


@runtime_checkable
class Answerer(Protocol):
    """Answers to questions about videos."""

    def ground_text(self, video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None) -> Tensor:
        """States (P, S, D) of questions that attend to the videos `about` (P,)."""
        ...

    def answer(
        self,
        question_states: Tensor,
        question_mask: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        shortlist: int = 128,
    ) -> Tensor:
        """The best of a list of answers for each question, as rows (P,) of `answer_ids`."""
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


@runtime_checkable
class Sorter(Protocol):
    """Which of a clip's K transcripts is spoken first, second and so on, judged by the video."""

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch."""
        ...

    @property
    def sorting_head(self) -> nn.Module | None:
        """The head that only sorting trains; None where the model has none."""
        ...

    def sort(self, video_BTCHW: Tensor, ids_BKS: Tensor, keep_BL: Tensor | None = None) -> SortedClips:
        """Encode clips, of which only the patches `keep_BL` are seen, and their transcripts in order of time."""
        ...

    def draw_kept(self, num_patches: int, noise_BP: Tensor) -> Tensor | None:
        """Places (B, kept) of the patches that pre-training keeps of each clip; None where it keeps all."""
        ...


@runtime_checkable
class FirstTokenAnswerer(Answerer, Protocol):
    """One whose published accuracy counts the first token of an answer alone."""

    def first_tokens(self, states: Tensor) -> Tensor:
        """The likeliest first token (P,) of each answer, given the states of questions, among the whole vocabulary."""
        ...
