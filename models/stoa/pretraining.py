"""The losses of a pre-training batch that several processes share.

Every loss is scaled so that its mean over the processes is the loss of the whole batch, in one process or many.
Shapes: B clips of this process, G of all processes, S text tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.losses import draw_negatives, selection_noise
from models.stoa.draws import draw_masked, draw_starts, uniform_noise
from models.stoa.fusion import ClipMemory
from models.stoa.model import StoaModel, TextFeatures, VideoFeatures
from models.stoa.objectives import (
    Tags,
    alignment_loss,
    masked_language_loss,
    matching_loss,
    writing_loss,
)
from models.stoa.summed import Summed

WITHOUT_TAGS = (
    "objective.losses: aligning objects and actions needs tags of the captions; make them with `python -m "
    "scripts.tag_captions` and name the file, or leave out 'align'"
)


def itself(tensor: Tensor) -> Tensor:
    """What a process that is alone gathers, and sums."""
    return tensor


@dataclass(frozen=True)
class Processes:
    """Those that share a batch, in equal parts.

    Attributes:
        gather: rows of all processes in their order; the gradient of a row is summed over all of them.
        add: the sum over processes, without gradient.
    """

    rank: int = 0
    count: int = 1
    gather: Callable[[Tensor], Tensor] = itself
    add: Callable[[Tensor], Tensor] = itself

    def share(self, loss: Summed) -> Tensor:
        """This process' part of a loss, scaled so that the mean over processes is that of all terms."""
        return loss.total * self.count / self.add(loss.terms).clamp(min=1)

    def own(self, rows: Tensor) -> Tensor:
        """This process' part of the rows of all."""
        return rows.chunk(self.count)[self.rank]


@dataclass(frozen=True)
class PretrainingObjective:
    """Which losses are taken: `vtm`, `mlm`, `plm`, `align`, and `vtc` in as many epochs as the caller asks for.

    Attributes:
        reference_form: as the published weights were trained, with the defects that docs/NUMERICS.md lists.
    """

    losses: tuple[str, ...] = ("vtm", "mlm", "plm", "align")
    reference_form: bool = False
    seed: int = 0

    def __call__(
        self,
        model: StoaModel,
        video: VideoFeatures,
        ids: Tensor,
        mask: Tensor,
        tags: Tags | None,
        step: int,
        processes: Processes | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch of clips and their texts, by name.

        Frames and texts get no gradient but from `vtc`; in reference form the frames not from that either. ValueError
        if tags are missing, or if no clip has another one to be told from.
        """
        processes = processes or Processes()
        if "align" in self.losses and tags is None:
            raise ValueError(WITHOUT_TAGS)
        texts = model.encode_text(ids, mask)
        memory, read = video.memory.with_detached_frames(), texts._replace(states=texts.states.detach())
        rows = len(ids) * processes.count
        noise = processes.own(uniform_noise(self.seed, step, rows, model.sizes.max_words + 1)).to(ids.device)

        found: dict[str, Summed] = {}
        if "vtc" in self.losses:
            seen = video._replace(embedding=video.embedding.detach()) if self.reference_form else video
            found["vtc"] = contrast_over_all(model, seen, texts, processes)
        if "vtm" in self.losses:
            found["vtm"] = self._matching(model, memory, video, read, step, processes)
        if "mlm" in self.losses:
            masked = draw_masked(mask, noise[:, : ids.shape[1]])
            found["mlm"], _ = masked_language_loss(model, memory, ids, mask, masked)
        if "plm" in self.losses:
            first = draw_starts(mask, noise[:, -1])
            found["plm"] = writing_loss(model, memory, read.states, ids, mask, first, not self.reference_form)
        if "align" in self.losses:
            assert tags is not None
            found["align"] = alignment_loss(memory, read, tags, self.reference_form).loss
        return {name: processes.share(loss) for name, loss in found.items()}

    def _matching(
        self,
        model: StoaModel,
        memory: ClipMemory,
        video: VideoFeatures,
        texts: TextFeatures,
        step: int,
        processes: Processes,
    ) -> Summed:
        """Hard negatives are drawn from all processes, by similarity."""
        videos_G, texts_G = (processes.gather(part.embedding.detach()) for part in (video, texts))
        num_rows, num_all = len(texts.embedding), len(texts_G)
        if num_all == 1:
            raise ValueError("train.batch_size: one clip on one process has no negative to match; use at least 2")
        noise = selection_noise(self.seed, step, 0, num_all).to(videos_G.device)
        own = torch.arange(num_rows, device=videos_G.device) + processes.rank * num_rows
        is_own = F.one_hot(own, num_all).bool()
        with torch.no_grad():
            of_texts = model.similarity(texts.embedding, videos_G)
            of_videos = model.similarity(video.embedding, texts_G)
        hard_video, _ = draw_negatives(of_texts, is_own, processes.own(noise[0]), floor=0.0)
        hard_text, _ = draw_negatives(of_videos, is_own, processes.own(noise[1]), floor=0.0)

        # Own rows first, then those of all processes.
        clips, of_all = joined_with_all(memory, texts, model.sizes.max_words, processes)
        loss, _ = matching_loss(model, clips, of_all, num_rows + hard_video, num_rows + hard_text, self.reference_form)
        return loss


def contrast_over_all(model: StoaModel, video: VideoFeatures, texts: TextFeatures, processes: Processes) -> Summed:
    """Cross-entropy of own texts among all videos and of own videos among all texts, half of each (VTC)."""
    videos_G, texts_G = processes.gather(video.embedding), processes.gather(texts.embedding)
    num_rows = len(texts.embedding)
    own = torch.arange(num_rows, device=videos_G.device) + processes.rank * num_rows
    of_texts = F.cross_entropy(model.similarity(texts.embedding, videos_G), own, reduction="sum")
    # Transposed, since the scale belongs to both directions alike.
    of_videos = F.cross_entropy(model.similarity(texts_G, video.embedding).T, own, reduction="sum")
    return Summed((of_texts + of_videos) / 2, torch.tensor(num_rows, device=videos_G.device))


def joined_with_all(
    memory: ClipMemory, texts: TextFeatures, max_words: int, processes: Processes
) -> tuple[ClipMemory, TextFeatures]:
    """Own clips and texts, then those of all processes; alone, a process has its own twice."""
    # Processes pad their texts to other lengths.
    states = F.pad(texts.states, (0, 0, 0, max_words - texts.states.shape[1]))
    mask = F.pad(texts.mask, (0, max_words - texts.mask.shape[1]))

    def together(part: Tensor | None) -> Tensor | None:
        if part is None:
            return None
        gathered = processes.gather(part.int()).bool() if part.dtype == torch.bool else processes.gather(part)
        return torch.cat([part, gathered])

    clips = ClipMemory(*(together(part) for part in memory))  # type: ignore[arg-type]
    joined_states, joined_mask = together(states), together(mask)
    assert joined_states is not None and joined_mask is not None
    return clips, TextFeatures(joined_states, joined_mask, texts.embedding)
