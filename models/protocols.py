"""What a task may ask of a model.

A model has the protocols of what it can do; nothing outside its room knows its towers. What objectives ask besides is
in `models/trained_protocols.py`.

Shapes: B batch, V videos, P texts, T frames, N video tokens, S text tokens, D width, E width of the shared space.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from models.parts.bert_attention import Memory


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


@runtime_checkable
class RaggedVideo(EmbeddedVideo, Protocol):
    """Features of videos that may keep different numbers of tokens, see `models.parts.ragged`."""

    @property
    def mask(self) -> Tensor | None:
        """(B, N) bool, False for padding; None if there is none."""
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
class EmbedsAlone(Protocol):
    """A dual encoder that makes embeddings faster where nobody asks for tokens."""

    def embed_video(self, video_BTCHW: Tensor) -> Tensor:
        """The embeddings (B, E) of `encode_video`, to 1e-5 in float32."""
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


@runtime_checkable
class FirstTokenAnswerer(Answerer, Protocol):
    """One whose published accuracy counts the first token of an answer alone."""

    def first_tokens(self, states: Tensor) -> Tensor:
        """The likeliest first token (P,) of each answer, given the states of questions, among the whole vocabulary."""
        ...
