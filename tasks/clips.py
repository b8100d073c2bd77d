"""Encode clips, with what goes along with them where there is something."""

from typing import Any

from torch import Tensor

from datasets.samples import Clip
from models.protocols import EmbeddedVideo, EmbedsAlone


def encode_clip(model: Any, clip: Clip) -> EmbeddedVideo:
    """Tokens and embeddings of a batch of clips; a model that gets extras is a `models.protocols.ReadsExtras`."""
    return model.encode_video(clip.pixels, clip.extras) if clip.extras else model.encode_video(clip.pixels)


def embed_clip(model: Any, clip: Clip) -> Tensor:
    """The embeddings (B, E) of a batch of clips whose tokens nobody needs."""
    if isinstance(model, EmbedsAlone) and not clip.extras:
        return model.embed_video(clip.pixels)
    return encode_clip(model, clip).embedding


def clip_tokens(model: Any, clip: Clip) -> Tensor:
    """The tokens (B, N, D) of a batch of clips."""
    return model.video_tokens(clip.pixels, clip.extras) if clip.extras else model.video_tokens(clip.pixels)
