"""TVTSv2: a video and a text tower in one space, and a head that sorts transcripts, which only pre-training has.

Zeng et al., 2023. Shapes: B clips, P texts, T frames, L patches, K transcripts a clip, S tokens, N video tokens, D
width, E width of the shared space.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.model import WORKING_MEMORY, TimeTable
from models.parts.aggregation import AggregationStep
from models.parts.clip.text_tower import TextTower
from models.tvts.aggregation import ClipSchedules
from models.tvts.blocks import EncodedClip
from models.tvts.sizes import TvtsSizes, kept_patches
from models.tvts.sort_head import SortHead
from models.tvts.video_tower import IMAGENET_MEAN, IMAGENET_STD, VideoTower


class VideoFeatures(NamedTuple):
    """Tokens (B, N, D) and unit-length embeddings (B, E), float32, of clips."""

    tokens: Tensor
    embedding: Tensor
    mask: Tensor | None = None
    """(B, N) bool, False for padding, which is zero in `tokens`; None if there is none."""


class TextFeatures(NamedTuple):
    """States (P, S, D) and unit-length embeddings (P, E), float32, of texts."""

    states: Tensor
    embedding: Tensor


class Sorted(NamedTuple):
    """What pre-training reads of a batch: embeddings (B, E) of clips and texts, and logits (B, K, K) of the order.

    `order_logits` is None where a clip has a single text, or the model no sorting head.
    """

    video: Tensor
    text: Tensor
    order_logits: Tensor | None


class Tvts(nn.Module):
    """The whole model.

    Args:
        sorting: whether it has the sorting head; published files are without it.
        temperature: of contrast; fixed, as TVTSv2's is.
        pixel_mean, pixel_std: of uint8 clips, on a scale from 0 to 1.
        working_memory: GiB that the steps of a block may hold of one clip; longer clips are encoded in chunks.
        time_table: how the temporal embedding is stretched to longer clips.
    """

    def __init__(
        self,
        sizes: TvtsSizes,
        schedules: ClipSchedules | None = None,
        sorting: bool = False,
        temperature: float = 0.05,
        pixel_mean: tuple[float, float, float] = IMAGENET_MEAN,
        pixel_std: tuple[float, float, float] = IMAGENET_STD,
        working_memory: float = WORKING_MEMORY,
        time_table: TimeTable = "nearest",
    ) -> None:
        super().__init__()
        self.sizes, self.is_tied = sizes, False
        self.video_model = VideoTower(
            sizes.image,
            sizes.num_frames,
            sizes.raw_patches,
            schedules,
            pixel_mean,
            pixel_std,
            working_memory,
            sizes.motion,
            time_table,
        )

        self.text_model = TextTower(sizes.text)
        self.pred_model: SortHead | None = None
        if sorting:
            width = sizes.image.embed_dim
            self.pred_model = SortHead(width, sizes.sort_heads, num_classes=sizes.num_transcripts)

        self.temp: Tensor
        self.register_buffer("temp", torch.tensor(temperature), persistent=False)
        self._freeze_first_texts()

    def encode_video(self, video_BTCHW: Tensor, keep_BL: Tensor | None = None) -> VideoFeatures:
        """Encode clips: uint8 pixels, or floats that are normalised already; `keep_BL` names patches that stay."""
        encoded = self._encoded(self.video_model, video_BTCHW, keep_BL)
        return VideoFeatures(encoded.tokens, self.embed_mean(encoded.embedding.float()), encoded.mask)

    def embed_video(self, video_BTCHW: Tensor) -> Tensor:
        """The embeddings of `encode_video` alone, to 1e-5 in float32, in less time."""
        return self.embed_mean(self.encode_windows(video_BTCHW))

    def encode_windows(self, video_BTCHW: Tensor) -> Tensor:
        """Embeddings (B, E), float32, before they are brought to unit length: the reference averages these."""
        tower = self.video_model
        return tower(video_BTCHW, kept=tower.kept_patches(video_BTCHW), embedding_only=True).embedding.float()

    def embed_mean(self, mean_VE: Tensor) -> Tensor:
        """Unit-length embeddings (V, E) of the means over sliding windows."""
        return F.normalize(mean_VE, dim=-1)

    def encode_text(self, ids_PS: Tensor, mask_PS: Tensor | None = None) -> TextFeatures:
        """Encode texts of CLIP's token ids; which are padding the end token says, so no mask is needed."""
        encoded = self.text_model(ids_PS)
        return TextFeatures(encoded.states, F.normalize(encoded.embedding.float(), dim=-1))

    def sort(self, video_BTCHW: Tensor, ids_BKS: Tensor, keep_BL: Tensor | None = None) -> Sorted:
        """Encode clips and their K transcripts in order of time; a clip's text embedding is the mean of its texts'.

        Sorting trains the video tower and the head alone: the head reads transcripts without gradient. Without the head
        there are no logits.
        """
        encoded = self._encoded(self.video_model, video_BTCHW, keep_BL)
        batch, num_texts, _ = ids_BKS.shape
        transcripts = self.text_model(ids_BKS.flatten(0, 1)).embedding.unflatten(0, (batch, num_texts))

        logits = None
        if num_texts > 1 and self.pred_model is not None:
            logits = self.pred_model(self.video_model.sequence(encoded), transcripts.detach())
        return Sorted(encoded.embedding, transcripts.mean(dim=1), logits)

    def video_tokens(self, video_BTCHW: Tensor) -> Tensor:
        """The tokens (B, N, D) of clips alone, class token first."""
        return self._encoded(self.video_model, video_BTCHW).tokens

    def trace_video(self, video_BTCHW: Tensor, steps: list[list[AggregationStep]] | None = None) -> EncodedClip:
        """Tokens, sizes and origins of clips; `steps`, an empty list, gets what each block merges or drops."""
        kept = self.video_model.kept_patches(video_BTCHW)
        return self.video_model(video_BTCHW, return_origins=True, steps=steps, kept=kept)

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Unit vectors (..., E), float32, of patch tokens (..., D) in the shared space, for looking at regions."""
        return F.normalize(self.video_model.project(tokens).float(), dim=-1)

    @property
    def sorting_head(self) -> SortHead | None:
        """The head that sorts transcripts, None in a model that is done with pre-training."""
        return self.pred_model

    def draw_kept(self, num_patches: int, noise_BP: Tensor) -> Tensor | None:
        """Places (B, kept) of the patches that each clip keeps, in ascending order: those of least `noise_BP` (B, P).

        None where no patch is hidden.
        """
        kept = kept_patches(num_patches, self.sizes.mask_ratio)
        return None if kept == num_patches else noise_BP.argsort(dim=1, stable=True)[:, :kept].sort(dim=1).values

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch."""
        return self.sizes.image.patch_size

    @property
    def num_blocks(self) -> int:
        """Blocks of the video tower."""
        return self.sizes.image.depth

    @property
    def embed_dim(self) -> int:
        """Width of the space that videos and texts share."""
        return self.sizes.image.embed_dim

    @property
    def similarity_scale(self) -> float:
        """What similarities are multiplied by in training: 1 / temperature."""
        return 1 / float(self.temp)

    def compile_towers(self) -> None:
        """Compile the video tower; a graph for each size."""
        self.video_model.compile(fullgraph=True, dynamic=False)

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Evaluate in `dtype` from now on, with outputs equal to 1e-5; the model no longer trains."""
        self.video_model.fold_for_inference(dtype)

    def clamp_temperature(self) -> None:
        """The temperature is fixed."""

    @property
    def twinned(self) -> tuple[str, ...]:
        """The names of the parts that make embeddings."""
        return ("video_model", "text_model")

    def embed_with(
        self, parts: Mapping[str, nn.Module], video_BTCHW: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Unit-length embeddings (B, E) of videos and texts by other modules in the place of the `twinned` parts."""
        video = self._encoded(cast(VideoTower, parts["video_model"]), video_BTCHW).embedding
        text = parts["text_model"](ids).embedding
        return F.normalize(video.float(), dim=-1), F.normalize(text.float(), dim=-1)

    def freeze_unused(self, losses: tuple[str, ...]) -> None:
        """Freeze what none of contrast (`contrastive` or `vtc`), `sorting` and `classes` reaches.

        The first blocks of the text tower keep CLIP's weights whatever the losses.
        """
        self.requires_grad_(True)
        if not {"contrastive", "vtc"} & set(losses):
            self.text_model.requires_grad_(False)
            # Raw patches pass by the last norm, which then serves the class token alone; sorting does not read that.
            self.video_model.ln_post.requires_grad_("classes" in losses or not self.sizes.raw_patches)
        if "sorting" not in losses and self.pred_model is not None:
            self.pred_model.requires_grad_(False)
        self._freeze_first_texts()

    @staticmethod
    def _encoded(tower: VideoTower, video_BTCHW: Tensor, keep_BL: Tensor | None = None) -> EncodedClip:
        # What stays is decided outside the tower, which may be compiled.
        return tower(video_BTCHW, keep_BL, kept=tower.kept_patches(video_BTCHW))

    def _freeze_first_texts(self) -> None:
        self.text_model.freeze_first_blocks(self.sizes.text.depth - self.sizes.trained_text_blocks)
