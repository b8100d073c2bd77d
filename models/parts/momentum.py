"""The momentum twin and the queue of its features, as in MoCo and ALBEF."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.bert import TextEncoder
from models.testa.model import VisionLanguageModel, text_features, video_features
from models.testa.video_encoder import VideoEncoder

TWINNED = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
NO_INDEX = -100


class MomentumTwin(nn.Module):
    """A copy of both encoders and projections that follows the trained ones slowly and takes no gradient.

    Its embeddings are the contrastive keys and soft targets. Parts have the reference's names, ending in `_m`.
    """

    visual_encoder_m: VideoEncoder
    text_encoder_m: TextEncoder
    vision_proj_m: nn.Linear
    text_proj_m: nn.Linear

    def __init__(self, model: VisionLanguageModel, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.weighted_pooling = model.weighted_pooling
        for name in TWINNED:
            setattr(self, f"{name}_m", deepcopy(getattr(model, name)))
        for part in self.modules():
            # fairscale's checkpoint wrapper is a `forward` of the instance, whose copy still runs the trained module.
            vars(part).pop("forward", None)
        self.requires_grad_(False)

    def copy_from(self, model: VisionLanguageModel) -> None:
        """Become equal to the trained parts, in place."""
        for name in TWINNED:
            getattr(self, f"{name}_m").load_state_dict(getattr(model, name).state_dict())

    @torch.no_grad()
    def update(self, model: VisionLanguageModel) -> None:
        """Move every parameter to momentum * itself + (1 - momentum) * the trained one, in place."""
        own, trained = [], []
        for name in TWINNED:
            own += list(getattr(self, f"{name}_m").parameters())
            trained += [parameter.detach() for parameter in getattr(model, name).parameters()]
        torch._foreach_lerp_(own, trained, 1 - self.momentum)

    @torch.no_grad()
    def embed(self, video_BTCHW: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Unit-length embeddings (B, E) of videos and texts."""
        video = video_features(self.visual_encoder_m, self.vision_proj_m, video_BTCHW, self.weighted_pooling)
        text = text_features(self.text_encoder_m, self.text_proj_m, ids, mask)
        return video.embedding, text.embedding


class FeatureQueue(nn.Module):
    """The last `size` momentum features of videos and texts, and which sample each pair is of.

    Starts with random unit vectors that belong to no sample (index -100). Every rank holds the same.
    """

    video: Tensor
    text: Tensor
    index: Tensor
    pointer: Tensor

    def __init__(self, embed_dim: int, size: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name in ("video", "text"):
            self.register_buffer(name, F.normalize(torch.randn(size, embed_dim, generator=generator), dim=-1))
        self.register_buffer("index", torch.full((size,), NO_INDEX))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, video: Tensor, text: Tensor, index: Tensor) -> None:
        """Overwrite the oldest entries with a batch (G, E), (G, E), (G,) of all ranks; wraps, whatever its size.

        A batch with any feature that is not finite leaves the entries as they are: its step is left out.
        """
        size = len(self.index)
        if size == 0:
            return
        kept = min(size, len(index))  # of a batch larger than the queue only the last entries survive
        first = self.pointer + len(index) - kept
        slots = (first + torch.arange(kept, device=index.device)) % size
        is_finite = video.isfinite().all() & text.isfinite().all()
        for queue, new in ((self.video, video), (self.text, text), (self.index, index)):
            queue[slots] = torch.where(is_finite, new[len(new) - kept :].to(queue.dtype), queue[slots])
        self.pointer.copy_((self.pointer + len(index)) % size)
