"""Models and clips of a size for tests: their weights are random but large, so that every part has an effect."""

import torch
from torch import Tensor, nn

from configs.schema import AggregationConfig, TestaConfig, TextConfig, VideoConfig
from models.testa.model import VisionLanguageModel
from models.testa.video_encoder import VideoEncoder

WIDTH, HEADS, PATCH, FRAMES, IMAGE, DEPTH = 32, 2, 4, 8, 16, 2
NUM_PATCHES = (IMAGE // PATCH) ** 2
VOCABULARY, ENC, DEC, SEP = 40, 39, 38, 3
VIDEO = VideoConfig(num_frames=FRAMES, image_size=IMAGE)
TEXT = TextConfig(vocab_size=VOCABULARY, depth=2, width=32, heads=2, intermediate=48, max_positions=16, dropout=0.0)

# Every reducer with the attention it goes with, merging on all of its axes, and the variants of geometry.
PAIRS: dict[str, tuple[str, AggregationConfig]] = {
    "divided-none": ("divided", AggregationConfig()),
    "divided-geometry": ("divided", AggregationConfig(reducer="geometry", frames_per_block=2, patches_per_block=3)),
    "divided-geometry-mean-sorted-proportional": (
        "divided",
        AggregationConfig(
            reducer="geometry",
            frames_per_block=2,
            patches_per_block=3,
            frame_match="mean",
            order="sorted",
            proportional_attention=True,
        ),
    ),
    "divided-geometry-weighted": (
        "divided",
        AggregationConfig(reducer="geometry", frames_per_block=2, patches_per_block=3, merge_weight="saliency"),
    ),
    "divided-importance": ("divided", AggregationConfig(reducer="importance", frames_per_block=2, patches_per_block=3)),
    "divided-prune": ("divided", AggregationConfig(reducer="prune", frames_per_block=2, patches_per_block=3)),
    "joint-none": ("joint", AggregationConfig()),
    "joint-tome": ("joint", AggregationConfig(reducer="tome", tokens_per_block=20)),
    "divided-saliency": ("divided", AggregationConfig(reducer="saliency", patches_per_block=3)),
    "joint-saliency": ("joint", AggregationConfig(reducer="saliency", tokens_per_block=20)),
    "space-none": ("space", AggregationConfig()),
}


def randomise(module: nn.Module, std: float = 0.2) -> None:
    """Give every weight an effect: those that start at zero too, and norms that are not the identity."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 0:
            is_scale = "norm" in name.lower() and name.endswith("weight")
            nn.init.normal_(parameter, mean=float(is_scale), std=std)


def encoder(
    attention: str = "divided",
    aggregation: AggregationConfig | None = None,
    depth: int = DEPTH,
    video: VideoConfig = VIDEO,
    checkpointing: str = "none",
    temporal_scaling: bool = False,
    seed: int = 0,
) -> VideoEncoder:
    """A video encoder whose weights depend on `seed` and its sizes alone."""
    model = TestaConfig(
        attention=attention, depth=depth, width=WIDTH, heads=HEADS, patch_size=PATCH, temporal_scaling=temporal_scaling
    )
    built = VideoEncoder(model, video, aggregation, checkpointing)
    torch.manual_seed(seed)
    randomise(built)
    return built.eval()


def clips(batch: int, frames: int = FRAMES, height: int = IMAGE, width: int = IMAGE, seed: int = 0) -> Tensor:
    """Random normalised clips (B, T, 3, H, W)."""
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


def vision_language(
    decoder: str = "none",
    decoder_context: str = "video",
    aggregation: AggregationConfig | None = None,
    video: VideoConfig = VIDEO,
    label_smoothing: float = 0.1,
    seed: int = 0,
    text_encoder: bool = True,
    heads: bool = True,
    text: TextConfig = TEXT,
    width: int = WIDTH,
    attention: str = "divided",
    temporal_scaling: bool = False,
) -> VisionLanguageModel:
    """A model of that size, whole unless parts are left out."""
    model = VisionLanguageModel(
        TestaConfig(
            attention=attention,
            depth=DEPTH,
            width=width,
            heads=HEADS,
            patch_size=PATCH,
            embed_dim=16,
            text=text,
            temporal_scaling=temporal_scaling,
        ),
        video,
        aggregation or AggregationConfig(),
        enc_token_id=ENC,
        dec_token_id=DEC,
        sep_token_id=SEP,
        text_encoder=text_encoder,
        heads=heads,
        decoder=decoder,
        decoder_context=decoder_context,
        label_smoothing=label_smoothing,
    )
    torch.manual_seed(seed)
    randomise(model)
    return model.eval()


def texts(lengths: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, S) of random texts: [CLS] = 2, words, [SEP] = 3, padding 0."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(5, DEC, (len(lengths), longest), generator=generator)
    length = torch.tensor(lengths)[:, None]
    position = torch.arange(longest)
    ids = ids.masked_fill(position == length - 1, SEP).masked_fill(position >= length, 0)
    ids[:, 0] = 2
    return ids, (position < length).long()
