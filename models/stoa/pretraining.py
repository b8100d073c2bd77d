"""The losses of a pre-training batch that several processes share.

Every loss is scaled so that its mean over the processes is the loss of the whole batch, in one process or many.
Shapes: B clips of this process, G of all processes, S text tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.losses import contrastive, draw_negatives, selection_noise
from models.parts.processes import Processes, Summed
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

WITHOUT_TAGS = (
    "objective.losses: aligning objects and actions needs tags of the captions; make them with `python -m "
    "scripts.tag_captions` and name the file, or leave out 'align'"
)


@dataclass(frozen=True)
class Pairs:
    """Which pairs (B, G) of a row of this process and a row of all are positives: those of one video."""

    are_positive: Tensor

    @classmethod
    def of(cls, num_rows: int, videos_of_rows: Tensor | None, processes: Processes, device: torch.device) -> "Pairs":
        """Each row's own pair alone, or all rows of the same video."""
        if videos_of_rows is None:
            own = torch.arange(num_rows, device=device) + processes.rank * num_rows
            return cls(F.one_hot(own, num_rows * processes.count).bool())
        return cls(videos_of_rows[:, None] == processes.gather(videos_of_rows)[None])


@dataclass(frozen=True)
class PretrainingObjective:
    """Which losses are taken: `vtm`, `mlm`, `plm`, `align` and `vtc`.

    Attributes:
        reference_form: as the published weights were trained, with the defects that docs/NUMERICS.md lists.
        contrast_reaches_frames: whether `vtc` trains the video tower; not in the reference's pre-training.
        end_is_candidate: whether objects and actions may be aligned with the end of a text that has nouns, or verbs.
    """

    losses: tuple[str, ...] = ("vtm", "mlm", "plm", "align")
    reference_form: bool = False
    seed: int = 0
    contrast_reaches_frames: bool = True
    end_is_candidate: bool = True

    def __call__(
        self,
        model: StoaModel,
        video: VideoFeatures,
        ids: Tensor,
        mask: Tensor,
        tags: Tags | None,
        step: int,
        part: int = 0,
        videos_of_rows: Tensor | None = None,
        processes: Processes | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch of clips and their texts, by name.

        Frames and texts get no gradient but from `vtc`. ValueError if tags are missing, or if no clip has another one
        to be told from.

        Args:
            step, part: of the run, and the micro-batch of it; what is drawn follows from them.
            videos_of_rows: (B,) which video each row is of, so that texts of one video are not each other's negatives;
                None where each pair stands alone.
        """
        processes = processes or Processes()
        if "align" in self.losses and tags is None:
            raise ValueError(WITHOUT_TAGS)
        texts = model.encode_text(ids, mask)
        memory, read = video.memory.with_detached_frames(), texts._replace(states=texts.states.detach())
        rows = len(ids) * processes.count
        noise = processes.own(uniform_noise(self.seed, step, part, rows, model.sizes.max_words + 1)).to(ids.device)
        pairs = Pairs.of(len(ids), videos_of_rows, processes, ids.device)

        found: dict[str, Summed] = {}
        if "vtc" in self.losses:
            seen = video if self.contrast_reaches_frames else video._replace(embedding=video.embedding.detach())
            found["vtc"] = contrast_over_all(model, seen, texts, pairs, processes)
        if "vtm" in self.losses:
            found["vtm"] = self._matching(model, memory, video, read, (step, part), pairs, processes)
        if "mlm" in self.losses:
            masked = draw_masked(mask, noise[:, : ids.shape[1]])
            found["mlm"], _ = masked_language_loss(model, memory, ids, mask, masked)
        if "plm" in self.losses:
            first = draw_starts(mask, noise[:, -1])
            found["plm"] = writing_loss(model, memory, read.states, ids, mask, first, not self.reference_form)
        if "align" in self.losses:
            assert tags is not None
            found["align"] = alignment_loss(memory, read, tags, self.reference_form, self.end_is_candidate).loss
        return {name: processes.share(loss) for name, loss in found.items()}

    def _matching(
        self,
        model: StoaModel,
        memory: ClipMemory,
        video: VideoFeatures,
        texts: TextFeatures,
        moment: tuple[int, int],
        pairs: Pairs,
        processes: Processes,
    ) -> Summed:
        """Hard negatives are drawn from all processes, by similarity; a row without any is not counted."""
        videos_G, texts_G = (processes.gather(part.embedding.detach()) for part in (video, texts))
        num_rows, num_all = len(texts.embedding), len(texts_G)
        if num_all == 1:
            raise ValueError("train.batch_size: one clip on one process has no negative to match; use at least 2")
        noise = selection_noise(self.seed, *moment, num_all).to(videos_G.device)
        with torch.no_grad():
            of_texts = model.similarity(texts.embedding, videos_G)
            of_videos = model.similarity(video.embedding, texts_G)
        hard_video, has_other = draw_negatives(of_texts, pairs.are_positive, processes.own(noise[0]), floor=0.0)
        hard_text, _ = draw_negatives(of_videos, pairs.are_positive, processes.own(noise[1]), floor=0.0)

        # Own rows first, then those of all processes.
        clips, of_all = joined_with_all(memory, texts, model.sizes.max_words, processes)
        hard = num_rows + hard_video, num_rows + hard_text
        loss, _ = matching_loss(model, clips, of_all, *hard, self.reference_form, has_other)
        return loss


def contrast_over_all(
    model: StoaModel, video: VideoFeatures, texts: TextFeatures, pairs: Pairs, processes: Processes
) -> Summed:
    """Cross-entropy of own texts among all videos and of own videos among all texts, half of each (VTC).

    Where several rows are of one video, its target is spread evenly over them.
    """
    videos_G, texts_G = processes.gather(video.embedding), processes.gather(texts.embedding)
    total = torch.zeros((), device=videos_G.device)
    # Transposed, since the scale belongs to both directions alike.
    for similarity in (
        model.similarity(texts.embedding, videos_G),
        model.similarity(texts_G, video.embedding).T,
    ):
        total = total + contrastive(similarity, similarity, pairs.are_positive, alpha=0.0).sum() / 2
    return Summed(total, torch.tensor(len(texts.embedding), device=videos_G.device))


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
