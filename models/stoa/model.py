"""STOA-VLP: CLIP's towers, object trajectories, action queries, and an encoder that fuses them with text.

Zhong et al., AAAI 2023. Shapes: B clips, P texts or pairs, T frames, S text tokens, E shared width, V vocabulary.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.clip.text_tower import TextTower, states_at
from models.parts.losses import similarities
from models.parts.pixels import normalise_pixels
from models.parts.precision import without_autocast
from models.stoa.fusion import ClipMemory, FusionEncoder
from models.stoa.objects import ActionEncoder, ClipObjects, TrajectoryEncoder
from models.stoa.reach import reached
from models.stoa.sizes import StoaSizes
from models.stoa.video_tower import VideoTower

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels that CLIP was trained on, on a scale from 0 to 1."""
MOST_SCALE = math.log(100)
"""The similarity's scale is kept at or below e to this after every step."""


class VideoFeatures(NamedTuple):
    """A batch of encoded clips: what the fusion encoder sees of them, and their embedding (B, E) of length 1."""

    memory: ClipMemory
    embedding: Tensor

    @property
    def tokens(self) -> Tensor:
        """The memory as tokens (B, N, E)."""
        return self.memory.as_tokens()


class TextFeatures(NamedTuple):
    """A batch of encoded texts: states of all tokens (P, S, E), and the end token's, of length 1 (P, E)."""

    states: Tensor
    mask: Tensor
    embedding: Tensor


class StoaModel(nn.Module):
    """Every branch of STOA-VLP that its sizes ask for.

    Args:
        pixel_mean, pixel_std: of uint8 frames, on a scale from 0 to 1.
    """

    def __init__(
        self,
        sizes: StoaSizes,
        pixel_mean: tuple[float, float, float] = CLIP_MEAN,
        pixel_std: tuple[float, float, float] = CLIP_STD,
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.pixel_mean, self.pixel_std = pixel_mean, pixel_std
        width, embed_dim = sizes.vision_width, sizes.embed_dim
        self.visual = VideoTower(sizes)
        self.text = TextTower(sizes.text_tower)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.fusion = FusionEncoder(sizes)
        # Trajectories and actions read object tokens with it; the frames that they stand beside do not.
        if sizes.objects == "fusion" or (sizes.objects == "attention" and sizes.actions):
            self.object_frame_pos_emb = nn.Parameter(torch.randn(sizes.num_frames, width) * 0.01)
        if sizes.objects == "fusion":
            self.object_cls_embedding = nn.Parameter(torch.randn(1, width) * embed_dim**-0.5)
            self.object_fusion = TrajectoryEncoder(width, sizes.vision_heads, embed_dim)
        if sizes.actions:
            self.object_action = nn.Parameter(torch.randn(sizes.num_actions, width) * width**-0.5)
            self.object_act_fusion = ActionEncoder(width, sizes.vision_heads, embed_dim)

        # The vocabulary's table doubles as the last layer of writing, masked words and answers.
        self.fusion_proj = nn.Parameter(torch.randn(embed_dim, sizes.text_width) * embed_dim**-0.5)
        self.fusion_logit_bias = nn.Parameter(torch.zeros(sizes.vocab_size))
        self.fusion_match_matrix = nn.Parameter(torch.randn(embed_dim, embed_dim) * embed_dim**-0.5)
        self.fusion_unmatch_matrix = nn.Parameter(torch.randn(embed_dim, embed_dim) * embed_dim**-0.5)

    def encode_video(
        self, frames_BTCHW: Tensor, objects: ClipObjects | Mapping[str, Tensor] | None = None
    ) -> VideoFeatures:
        """Encode frames (B, T, 3, H, W), uint8 or normalised, and the objects on them if the model has objects.

        Objects may be given as the extras of clips. ValueError if the model has objects and the clips have none, or
        more frames than it has embeddings for.
        """
        num_frames = frames_BTCHW.shape[1]
        if isinstance(objects, Mapping):
            objects = ClipObjects.of_extras(objects)
        if self.sizes.objects != "none" and objects is None:
            raise ValueError(
                f"model.objects: {self.sizes.objects} encodes clips with their boxes, and these have none; prepare "
                "them with `python -m scripts.prepare_objects`, or set model.objects=none"
            )
        if num_frames > self.sizes.num_frames:
            raise ValueError(f"clips of {num_frames} frames; this model has positions for {self.sizes.num_frames}")

        if frames_BTCHW.dtype == torch.uint8:
            frames_BTCHW = normalise_pixels(frames_BTCHW, self.pixel_mean, self.pixel_std, self.visual.proj.dtype)
        encoded = self.visual.encode_clips(frames_BTCHW, objects)
        object_tokens = encoded.objects
        if object_tokens is not None and (self.sizes.objects == "fusion" or self.sizes.actions):
            object_tokens = object_tokens + self.object_frame_pos_emb[:num_frames, None]
        trajectories, trajectory_mask, actions = None, None, None
        if self.sizes.objects == "fusion":
            assert objects is not None and object_tokens is not None
            trajectories = self.object_fusion(
                object_tokens.flatten(1, 2),
                objects.classes.flatten(1, 2),
                objects.trajectory_ids,
                self.object_cls_embedding,
            )
            trajectory_mask = objects.trajectory_ids != 0
        if self.sizes.actions:
            padding = None if objects is None else objects.padding
            actions = self.object_act_fusion(self.object_action, encoded.tap, object_tokens, padding)

        memory = ClipMemory(encoded.frames, trajectories, trajectory_mask, actions)
        return VideoFeatures(memory, pool_frames(encoded.frames))

    def encode_text(self, ids_PS: Tensor, mask_PS: Tensor) -> TextFeatures:
        """Encode texts that begin with the start token, end with the end token, and are padded behind it."""
        states = self.text(ids_PS).states @ self.text.text_projection
        at_end = states_at(states, mask_PS.sum(dim=1) - 1)
        return TextFeatures(states, mask_PS.bool(), F.normalize(at_end.float(), dim=-1))

    def similarity(self, text_PE: Tensor, video_BE: Tensor) -> Tensor:
        """Scaled cosines (P, B) of embeddings, float32."""
        return self.logit_scale.exp() * similarities(text_PE, video_BE)

    def vocabulary_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of the fusion encoder's outputs (..., E).

        The projection is multiplied with the few outputs, never with the whole table.
        """
        hidden = F.dropout(hidden, self.sizes.dropout, self.training)
        table = self.text.token_embedding.weight
        return F.linear(hidden @ self.fusion_proj, table, self.fusion_logit_bias)

    def match_logits(self, separator_PE: Tensor, end_PE: Tensor, reference_form: bool = False) -> Tensor:
        """Logits (P, 2) that a pair does not match, and that it does.

        `reference_form` divides the end token's outputs by their norm over the pairs of this call, channel by channel,
        as the published weights were trained; then logits depend on the other pairs.
        """
        video = F.normalize(separator_PE.float(), dim=-1)
        text = F.normalize(end_PE.float(), dim=0 if reference_form else -1)
        matrices = (self.fusion_unmatch_matrix, self.fusion_match_matrix)
        with without_autocast(video.device):
            logits = [(self._dropped(video) @ matrix.float() * self._dropped(text)).sum(dim=-1) for matrix in matrices]
        return torch.stack(logits, dim=-1)

    def match_memory(self, memory: ClipMemory, states: Tensor, mask: Tensor, reference_form: bool = False) -> Tensor:
        """Logits (P, 2) of the clip and the text in each row. In reference form: give all candidates of one query."""
        separator, end = self.fusion.read_pair(memory, self.fusion.place_text(states, mask), mask)
        return self.match_logits(separator, end, reference_form)

    def answer_logits(self, memory: ClipMemory, states_PSE: Tensor, mask_PS: Tensor) -> Tensor:
        """Logits (P, V) of the first token of the answer to each row's question."""
        return self.vocabulary_logits(self.answer_states(memory, states_PSE, mask_PS))

    def answer_states(self, memory: ClipMemory, states_PSE: Tensor, mask_PS: Tensor) -> Tensor:
        """Outputs (P, E) of the slot that the answer to each row's question is read from."""
        placed = self.fusion.place_text(states_PSE, mask_PS)
        # The answer has an empty slot of its own behind the longest question there may be, whatever the batch.
        slot = self.fusion.text_positions(self.sizes.max_words + 1)[-1:].to(placed.dtype)
        placed = torch.cat([placed, slot.expand(len(placed), 1, -1)], dim=1)
        mask = F.pad(mask_PS, (0, 1), value=1)
        last = torch.full((len(placed), 1), placed.shape[1] - 1, device=placed.device)
        return self.fusion.read_text(memory, placed, mask, last)[:, 0]

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Unit vectors (..., E), float32, of clips' tokens, which lie in the shared space already."""
        return F.normalize(tokens.float(), dim=-1)

    @property
    def embed_dim(self) -> int:
        """Width of the space that videos and texts share."""
        return self.sizes.embed_dim

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch."""
        return self.sizes.patch_size

    @property
    def num_blocks(self) -> int:
        """Blocks of the video tower."""
        return self.sizes.vision_depth

    def freeze_unused(self, losses: tuple[str, ...], contrast_reaches_frames: bool = True) -> None:
        """Freeze what none of the losses reaches, see `models.stoa.reach`: all that is trained has a gradient."""
        parameters = dict(self.named_parameters())
        trained = reached(parameters, self.sizes, losses, contrast_reaches_frames)
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in trained)

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the scale of similarities at or below 100; called after each optimizer step."""
        self.logit_scale.clamp_(max=MOST_SCALE)

    def _dropped(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.sizes.dropout, self.training)


def pool_frames(frames_BTE: Tensor, normalised: bool = True) -> Tensor:
    """The mean direction of a clip's frames, of length 1, (B, E).

    Not `normalised`, long features count for more: so the published multiple choice is evaluated.
    """
    frames = frames_BTE.float()
    return F.normalize((F.normalize(frames, dim=-1) if normalised else frames).mean(dim=1), dim=-1)
