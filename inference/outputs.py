"""What a trained model returns.

Shapes: B batch, N video tokens, D width, E width of the shared space, T frames, L patches a frame.
"""

from typing import NamedTuple

from torch import Tensor


class Match(NamedTuple):
    """The matching head's verdict on a video and a text: the logit of a match, and its probability in (0, 1)."""

    logit: float
    probability: float


class EncodedTokens(NamedTuple):
    """The encoder's output for one video, on the CPU.

    Attributes:
        tokens: (N, D), the class token first.
        size: (N,) float32, how many original cells each token holds.
        origins: (T, L) int64, for each original cell the index in `tokens` of the token that holds it; -1 if dropped.
        frames: (T, 3, H, W) uint8, the pixels that were encoded.
    """

    tokens: Tensor
    size: Tensor
    origins: Tensor
    frames: Tensor


class PixelFeatures(NamedTuple):
    """Tokens (B, N, D), and embeddings (B, E) if the checkpoint was trained for them."""

    tokens: Tensor
    embedding: Tensor | None


class VideoWindows(NamedTuple):
    """Embeddings of windows over a video and of the whole, unit length, float32, on the CPU.

    Attributes:
        embedding: (E,), of the whole.
        windows: (W, E), of the windows, in order of time.
        spans: (W, 2) float64, when each window starts and ends, in seconds from the video's first frame.
    """

    embedding: Tensor
    windows: Tensor
    spans: Tensor
