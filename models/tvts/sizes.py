"""Sizes of TVTSv2, and its three published models."""

from dataclasses import dataclass

from models.parts.clip.sizes import PUBLISHED, ImageTowerSizes, TextTowerSizes


@dataclass(frozen=True)
class TvtsSizes:
    """Attributes.

    num_frames: places of the temporal embedding.
    raw_patches: whether patch tokens leave the tower without the last norm, and sorting sees no class token (H/14).
    mask_ratio: the share of patches hidden in pre-training, the same places in every frame.
    sort_heads: heads of the sorting head, which is as wide as the embeddings.
    trained_text_blocks: how many of the last blocks of the text tower are trained; those before keep CLIP's weights.
    num_transcripts: how many transcripts of one clip are sorted.
    motion: whether patches also see the difference to the next frame (ours).
    """

    image: ImageTowerSizes
    text: TextTowerSizes
    num_frames: int = 12
    raw_patches: bool = False
    mask_ratio: float = 0.0
    sort_heads: int = 8
    trained_text_blocks: int = 3
    num_transcripts: int = 4
    motion: bool = False

    def __post_init__(self) -> None:
        if self.image.embed_dim != self.text.embed_dim:
            raise ValueError(
                f"the towers' embeddings have {self.image.embed_dim} and {self.text.embed_dim} dimensions, not as many"
            )
        if self.image.embed_dim % self.sort_heads:
            raise ValueError(f"embeddings of {self.image.embed_dim} cannot be split into {self.sort_heads} heads")
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"mask_ratio: {self.mask_ratio} is not a share in [0, 1)")
        if not 0 <= self.trained_text_blocks <= self.text.depth:
            raise ValueError(f"{self.trained_text_blocks} of {self.text.depth} text blocks cannot be trained")


TVTS_PUBLISHED = {
    "TVTSv2 B/32": TvtsSizes(*PUBLISHED["ViT-B/32"]),
    "TVTSv2 B/16": TvtsSizes(*PUBLISHED["ViT-B/16"], mask_ratio=0.5),
    "TVTSv2 H/14": TvtsSizes(
        *PUBLISHED["ViT-H/14"], raw_patches=True, mask_ratio=0.7, sort_heads=16, trained_text_blocks=6
    ),
}
"""The three models that were published, as they were pre-trained."""


def kept_patches(num_patches: int, mask_ratio: float) -> int:
    """How many patches of a frame are kept; rounded down, as the reference does."""
    return max(1, int(num_patches * (1 - mask_ratio)))
