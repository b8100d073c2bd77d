"""The two sizes of model that the checks are done with; no more is imported than the configuration's classes."""

from dataclasses import dataclass

from configs.schema import TestaConfig, TextConfig, VideoConfig


@dataclass(frozen=True)
class Size:
    """How large the models and inputs of all checks are.

    Attributes:
        whole: the model that memory is measured with.
        leaving: how many tokens leave per block along each axis, where one merges.
        longest: of the sequences that attention is tried with, each from 1 on.
        overrides: of the configuration that is timed.
    """

    model: TestaConfig
    whole: TestaConfig
    video: VideoConfig
    leaving: dict[str, int]
    batch: int
    words: int
    longest: int
    overrides: tuple[str, ...]


TINY = TestaConfig(
    depth=2,
    width=32,
    heads=2,
    patch_size=8,
    init="scratch",
    embed_dim=16,
    text=TextConfig(vocab_size=200, depth=2, width=32, heads=2, intermediate=48, max_positions=16, dropout=0.0),
)
SIZES: dict[str, Size] = {
    # The widths of the base model, for the kernels it takes; two blocks, so that what merging chooses is not a matter
    # of the last bit.
    "full": Size(
        model=TestaConfig(depth=2, init="scratch", text=TextConfig(depth=2, dropout=0.0)),
        whole=TestaConfig(),
        video=VideoConfig(num_frames=8),
        leaving={"frames_per_block": 1, "patches_per_block": 12, "tokens_per_block": 80},
        batch=2,
        words=24,
        longest=260,
        overrides=(),
    ),
    "tiny": Size(
        model=TINY,
        whole=TINY,
        video=VideoConfig(num_frames=6, image_size=32),
        leaving={"frames_per_block": 1, "patches_per_block": 3, "tokens_per_block": 10},
        batch=3,
        words=9,
        longest=20,
        overrides=(
            *("model.depth=2", "model.width=64", "model.heads=2", "model.patch_size=8", "video.image_size=32"),
            *("model.text.depth=2", "model.text.width=64", "model.text.heads=2", "model.text.intermediate=96"),
            *("model.text.vocab_size=200", "aggregation.patches_per_block=3"),
        ),
    ),
}
