"""The momentum twin and the queue of its features, as in MoCo and ALBEF."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.protocols import Twinnable

NO_INDEX = -100


class MomentumTwin(nn.Module):
    """A copy of the parts that make embeddings; it follows the trained ones slowly and takes no gradient.

    Its embeddings are the contrastive keys and soft targets. Parts have the model's names with the suffix `_m`.
    """

    def __init__(self, model: Twinnable, momentum: float) -> None:
        super().__init__()
        self.momentum, self.names = momentum, model.twinned
        for name in self.names:
            setattr(self, f"{name}_m", deepcopy(getattr(model, name)))

        for part in self.modules():
            # fairscale's checkpoint wrapper is a `forward` of the instance, whose copy still runs the trained module.
            vars(part).pop("forward", None)
        self.requires_grad_(False)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The copies, by the names of the originals."""
        return {name: getattr(self, f"{name}_m") for name in self.names}

    def copy_from(self, model: Twinnable) -> None:
        """Become equal to the trained parts, in place."""
        for name, part in self.parts.items():
            part.load_state_dict(getattr(model, name).state_dict())

    @torch.no_grad()
    def update(self, model: Twinnable) -> None:
        """Move every parameter to momentum * itself + (1 - momentum) * the trained one, in place."""
        own: list[Tensor] = []
        trained: list[Tensor] = []
        for name, part in self.parts.items():
            own += list(part.parameters())
            trained += [parameter.detach() for parameter in getattr(model, name).parameters()]
        torch._foreach_lerp_(own, trained, 1 - self.momentum)

    @torch.no_grad()
    def embed(self, model: Twinnable, video_BTCHW: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, E) of videos and texts, made as `model` makes its own."""
        return model.embed_with(self.parts, video_BTCHW, ids, mask)


class FeatureQueue(nn.Module):
    """The last `size` momentum features of videos and texts, and the sample that each pair belongs to.

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

        A batch with a feature that is not finite leaves the entries unchanged, since its step is skipped.
        """
        size = len(self.index)
        if size == 0:
            return
        kept = min(size, len(index))  # of a batch larger than the queue only the last entries survive
        first = self.pointer + len(index) - kept
        slots = (first + torch.arange(kept, device=index.device)) % size

        # Choose by `where` instead of `if`: the host need not wait for the device.
        is_finite = video.isfinite().all() & text.isfinite().all()
        for queue, new in ((self.video, video), (self.text, text), (self.index, index)):
            queue[slots] = torch.where(is_finite, new[len(new) - kept :].to(queue.dtype), queue[slots])
        self.pointer.copy_((self.pointer + len(index)) % size)
