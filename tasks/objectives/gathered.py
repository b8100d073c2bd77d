"""The video tokens of all processes, which negatives are drawn from."""

import torch
from torch import Tensor

from engine.distributed import all_gather_rows_with_grad, all_reduce_max, world_size
from models.parts.ragged import padded_to
from models.protocols import EmbeddedVideo, RaggedVideo


def gathered_tokens(video: EmbeddedVideo) -> Tensor:
    """The tokens (G, N, D) of the videos of all processes, padded to the longest row of all; with gradient."""
    tokens = video.tokens
    if world_size() > 1 and isinstance(video, RaggedVideo) and video.mask is not None:
        longest = all_reduce_max(torch.tensor(tokens.shape[1], device=tokens.device))
        tokens = padded_to(tokens, int(longest))
    return all_gather_rows_with_grad(tokens)
