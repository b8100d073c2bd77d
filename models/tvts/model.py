"""TVTSv2: a video and a text tower in one space, and a head that sorts transcripts, which only pre-training has.

Zeng et al., 2023. Shapes: B clips, T frames, L patches a frame, K transcripts a clip, S tokens, E shared width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.parts.clip.text_tower import TextTower, TextTowerFeatures
from models.tvts.aggregation import ClipSchedules
from models.tvts.sizes import TvtsSizes, kept_patches
from models.tvts.sort_head import SortHead
from models.tvts.video_tower import EncodedClip, VideoTower


class Sorted(NamedTuple):
    """What pre-training reads of a batch: embeddings (B, E) of clips and texts, and logits (B, K, K) of the order.

    `order_logits` is None where a clip has a single text.
    """

    video: Tensor
    text: Tensor
    order_logits: Tensor | None


class Tvts(nn.Module):
    """The whole model.

    Args:
        sorting: whether it has the sorting head; published files are without it.
    """

    def __init__(self, sizes: TvtsSizes, schedules: ClipSchedules | None = None, sorting: bool = False) -> None:
        super().__init__()
        self.sizes = sizes
        self.video_model = VideoTower(sizes.image, sizes.num_frames, sizes.raw_patches, schedules)
        self.text_model = TextTower(sizes.text)
        self.text_model.freeze_first_blocks(sizes.text.depth - sizes.trained_text_blocks)
        self.pred_model: SortHead | None = None
        if sorting:
            width = sizes.image.embed_dim
            self.pred_model = SortHead(width, sizes.sort_heads, num_classes=sizes.num_transcripts)

    def encode_video(self, video_BTCHW: Tensor, keep_BL: Tensor | None = None) -> EncodedClip:
        """Encode clips; `keep_BL` names the patches that stay in every frame."""
        return self.video_model(video_BTCHW, keep_BL)

    def encode_text(self, ids_PS: Tensor) -> TextTowerFeatures:
        """Encode texts of CLIP's token ids."""
        return self.text_model(ids_PS)

    def sort(self, video_BTCHW: Tensor, ids_BKS: Tensor, keep_BL: Tensor | None = None) -> Sorted:
        """Encode clips and their K transcripts in order of time; a clip's text embedding is the mean of its texts'.

        Sorting trains the video tower and the head alone: the head reads transcripts without gradient.
        """
        encoded = self.encode_video(video_BTCHW, keep_BL)
        batch, num_texts, _ = ids_BKS.shape
        transcripts = self.encode_text(ids_BKS.flatten(0, 1)).embedding.unflatten(0, (batch, num_texts))

        logits = None
        if num_texts > 1:
            assert self.pred_model is not None, "this model was built without its sorting head"
            logits = self.pred_model(self.video_model.sequence(encoded), transcripts.detach())
        return Sorted(encoded.embedding, transcripts.mean(dim=1), logits)


def draw_kept(sizes: TvtsSizes, num_patches: int, generator: torch.Generator | None = None) -> Tensor:
    """Places of the patches that a clip keeps in pre-training, drawn without replacement, in ascending order."""
    kept = kept_patches(num_patches, sizes.mask_ratio)
    return torch.randperm(num_patches, generator=generator)[:kept].sort().values
