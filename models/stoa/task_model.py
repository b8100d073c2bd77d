"""STOA-VLP as tasks use it: clips with their extras in, memories as tokens, and the losses of a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from models.parts.pixels import normalise_pixels
from models.parts.processes import Processes
from models.stoa.fusion import ClipMemory, without_unused_trajectories
from models.stoa.model import CLIP_MEAN, CLIP_STD, StoaModel, VideoFeatures
from models.stoa.objectives import Tags
from models.stoa.pretraining import PretrainingObjective
from models.stoa.sizes import StoaSizes


class TaskModel(StoaModel):
    """The model behind the protocols of `models.protocols`.

    Args:
        reference_form: match texts and train as the published weights were; see docs/NUMERICS.md.
    """

    is_tied = False
    # Contrast takes the features of the batch itself; there is no momentum twin.
    twinned: tuple[str, ...] = ()
    end_is_candidate = True
    """Whether training may align objects with the end of a text that has nouns, see `objective.end_is_candidate`."""

    def __init__(
        self,
        sizes: StoaSizes,
        reference_form: bool = False,
        pixel_mean: tuple[float, float, float] = CLIP_MEAN,
        pixel_std: tuple[float, float, float] = CLIP_STD,
    ) -> None:
        super().__init__(sizes, pixel_mean, pixel_std)
        self.reference_form = reference_form

    @property
    def similarity_scale(self) -> float:
        """What similarities are multiplied by in training."""
        return float(self.logit_scale.detach().exp())

    def video_tokens(self, video_BTCHW: Tensor, extras: Mapping[str, Tensor] | None = None) -> Tensor:
        """The memory of clips as tokens (B, N, E): frames, trajectories, actions; padding is exactly zero."""
        return self.encode_video(video_BTCHW, extras).tokens

    def trace_video(self, video_BTCHW: Tensor, steps: list[list[Any]] | None = None) -> Any:
        """Tokens, sizes and origins of uint8 videos; fills the list `steps` with what each block merges.

        Tokens are those of the video tower in the shared space. ValueError where nothing merges, or where it depends on
        objects.
        """
        if self.sizes.aggregation.reducer == "none":
            raise ValueError(
                "aggregation.reducer: none merges no tokens, so there is nothing to show; set it to tempme"
            )
        if self.sizes.objects == "attention":
            raise ValueError("model.objects: what merges depends on objects with attention, which videos here lack")
        pixels = normalise_pixels(video_BTCHW, self.pixel_mean, self.pixel_std, self.visual.proj.dtype)
        return self.visual.trace_clips(pixels, steps)

    def project(self, video_tokens: Tensor) -> ClipMemory:
        """What texts are fused with of videos (V, N, E)."""
        return ClipMemory.of_tokens(video_tokens, self.sizes)

    def project_once(self, video_tokens: Tensor) -> ClipMemory:
        """The same for one use."""
        return self.project(video_tokens)

    def match(self, video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None) -> Tensor:
        """Logits (P, 2), no match and match, of texts with the videos `about` (P,), or P / V texts each in order.

        In reference form the logits depend on each other: give all candidates of one query, and no others.
        """
        if about is None:
            videos = torch.arange(len(video_tokens), device=ids.device)
            about = videos.repeat_interleave(len(ids) // len(video_tokens))
        memory, texts = self.project(video_tokens).rows(about), self.encode_text(ids, mask)
        return self.match_memory(memory, texts.states, texts.mask, self.reference_form)

    def match_groups(self, groups: Sequence[tuple[int, ClipMemory]], ids: Tensor, mask: Tensor) -> Tensor:
        """The same for groups of texts one after the other: how many texts, and the memory of their videos."""
        return self.match_states(groups, self.encode_text(ids, mask).states, mask)

    def match_states(self, groups: Sequence[tuple[int, ClipMemory]], states: Tensor, mask: Tensor) -> Tensor:
        """The same for texts whose states (P, S, E) `encode_text` has read."""
        videos = ClipMemory(
            *(None if parts[0] is None else torch.cat(parts) for parts in zip(*(of for _, of in groups), strict=True))  # type: ignore[arg-type]
        )
        counts = torch.tensor([count for count, _ in groups], device=states.device)
        about = torch.arange(len(groups), device=states.device).repeat_interleave(counts)
        memory = without_unused_trajectories(videos).rows(about)
        return self.match_memory(memory, states, mask, self.reference_form)

    def take_losses(
        self,
        names: tuple[str, ...],
        video: VideoFeatures,
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
        """The losses of clips and their texts by name; see `models.stoa.pretraining`."""
        settings = (self.reference_form, seed, contrast_reaches_frames, self.end_is_candidate)
        objective = PretrainingObjective(names, *settings)
        tags = None if nouns_and_verbs is None else Tags(*nouns_and_verbs)
        return objective(self, video, ids, mask, tags, step, part, videos_of_rows, processes)

    def clamp_temperature(self) -> None:
        """Keep the scale of similarities at or below 100."""
        self.clamp_scale()

    def compile_towers(self) -> None:
        """Nothing is compiled: blocks are taken apart, and each branch is small."""
        raise ValueError("train.compile: is not to be had with stoa; set it to false")

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Only evaluate from now on; nothing here can be folded."""
        self.eval().requires_grad_(False)
