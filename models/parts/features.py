"""The outputs of video and text towers. Shapes: B batch, N video tokens, D width, E width of the shared space."""

from typing import NamedTuple

from torch import Tensor


class VideoFeatures(NamedTuple):
    """Tokens (B, N, D) for cross-attention and the embedding (B, E), float32.

    A similarity is the dot product of two embeddings. They need not have length 1, so never normalise them again. Of
    videos that keep different numbers of tokens, `mask` (B, N) is False for padding, which is zero in `tokens`; None
    if there is none.
    """

    tokens: Tensor
    embedding: Tensor
    mask: Tensor | None = None


class TextFeatures(NamedTuple):
    """The embedding (B, E), float32."""

    embedding: Tensor


class EncodedVideo(NamedTuple):
    """The output of a video encoder.

    Attributes:
        tokens: (B, 1 + N, D) class token, then the tokens that are left, frame by frame (divided) or patch by patch
            (joint); space-only: (B, T * (1 + L), D), each frame with a class token of its own in front.
        size: (B, 1 + N) float32, how many original cells each token holds; 1 for a class token, 0 for padding.
        origins: (B, T, L) int64, for every original cell the index in `tokens` of the token that holds it, -1 if the
            cell was dropped; None unless asked for. A patch that stands for others (run-length) is theirs too.
        mask: (B, 1 + N) bool, False for padding, which is zero in `tokens`; None if all videos have the same number of
            tokens. See `models.parts.ragged`.
    """

    tokens: Tensor
    size: Tensor
    origins: Tensor | None
    mask: Tensor | None = None
