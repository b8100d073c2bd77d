"""Embeddings of other sizes: against golden numbers, and against bicubic and nearest written out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors import safe_open
from torch import Tensor

from configs.schema import TestaConfig, VideoConfig
from models.parts.momentum import MomentumTwin
from models.testa.video_encoder import VideoEncoder
from models.testa.weights.encoder import fit_encoder, resize_places
from tests.models.testa.weights.loading import load_into
from tests.models.testa.weights.test_load import stored
from tests.models.tiny import FRAMES, IMAGE, PATCH, VIDEO, WIDTH, encoder, randomise, vision_language

GOLDEN = Path(__file__).parents[3] / "parity" / "golden" / "encoder_divided_resized.safetensors"


def cubic(distance: float) -> float:
    """The kernel of bicubic interpolation with a = -0.75."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def bicubic(plane: list[list[float]], wanted: int) -> list[list[float]]:
    """A square picture resized about pixel centres, beyond whose edges the edge goes on."""
    side = len(plane)
    resized = [[0.0] * wanted for _ in range(wanted)]
    for row in range(wanted):
        for column in range(wanted):
            y, x = ((place + 0.5) * side / wanted - 0.5 for place in (row, column))
            for i in range(int(y // 1) - 1, int(y // 1) + 3):
                for j in range(int(x // 1) - 1, int(x // 1) + 3):
                    value = plane[min(max(i, 0), side - 1)][min(max(j, 0), side - 1)]
                    resized[row][column] += cubic(y - i) * cubic(x - j) * value
    return resized


@pytest.mark.parametrize("image_size", [8, 12, 32])
def test_position_embeddings_are_resized_bicubically(image_size: int) -> None:
    source, model = vision_language(), vision_language(video=replace(VIDEO, image_size=image_size), seed=1)
    report = load_into(model, stored(source), "here")
    own, given = model.visual_encoder.pos_embed, source.visual_encoder.pos_embed
    assert torch.equal(own[:, 0], given[:, 0])
    side, wanted = IMAGE // PATCH, image_size // PATCH
    for channel in (0, WIDTH - 1):
        expected = bicubic(given[0, 1:, channel].view(side, side).tolist(), wanted)
        torch.testing.assert_close(own[0, 1:, channel].view(wanted, wanted), torch.tensor(expected))
    assert report.notes == [f"visual_encoder: pos_embed: {side**2 + 1} -> {wanted**2 + 1} places, bicubic"]


@pytest.mark.parametrize("frames", [4, 12, 16])
def test_time_embeddings_go_to_the_nearest_frame_the_twins_to_its_own(frames: int) -> None:
    source, model = vision_language(), vision_language(video=replace(VIDEO, num_frames=frames), seed=1)
    kept, twin = MomentumTwin(source, 0.9), MomentumTwin(model, 0.9)
    randomise(kept)
    load_into(model, stored(source, kept), "here", twin=twin)
    nearest = torch.arange(frames) * FRAMES // frames
    for own, given in ((model.visual_encoder, source.visual_encoder), (twin.visual_encoder_m, kept.visual_encoder_m)):
        assert torch.equal(own.time_embed, given.time_embed[:, nearest])
        assert torch.equal(own.pos_embed, given.pos_embed)
    assert not torch.equal(twin.visual_encoder_m.time_embed, model.visual_encoder.time_embed)


def golden() -> tuple[dict[str, Tensor], dict]:
    with safe_open(GOLDEN, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["meta"])  # noqa: SIM118


@torch.no_grad()
def test_time_resized_on_load_gives_the_references_tokens_of_more_frames() -> None:
    """The golden case has fewer time embeddings than frames; here the model has as many as frames."""
    tensors, meta = golden()
    video = rearrange(tensors["video"], "B C T H W -> B T C H W")
    frames = video.shape[1]
    assert frames != meta["num_frames"]
    model = VideoEncoder(
        TestaConfig(**{name: meta[name] for name in ("depth", "width", "heads", "patch_size")}),
        VideoConfig(num_frames=frames, image_size=meta["image_size"]),
    ).eval()
    weights = {name.removeprefix("state_dict."): t for name, t in tensors.items() if name.startswith("state_dict.")}
    model.load_state_dict(fit_encoder(weights, model.state_dict()).weights)
    tokens = model(video).tokens
    patches = rearrange(tokens[:, 1:], "B (T L) D -> B (L T) D", T=frames)
    torch.testing.assert_close(torch.cat([tokens[:, :1], patches], dim=1), tensors["tokens"], atol=1e-4, rtol=1e-4)


def test_resizing_keeps_a_smooth_picture_in_its_place() -> None:
    rows = torch.linspace(0, 1, 8)
    picture = (rows[:, None] + 2 * rows).flatten()[None, :, None]
    embedding = torch.cat([torch.tensor([[[9.0]]]), picture], dim=1)
    larger = resize_places(embedding, 16 * 16)[0, 1:, 0].view(16, 16)
    assert (larger.diff(dim=0)[2:-2] > 0).all() and (larger.diff(dim=1)[2:-2] > 0).all()
    averaged = larger.view(8, 2, 8, 2).mean(dim=(1, 3))
    torch.testing.assert_close(averaged[1:-1, 1:-1], picture.view(8, 8)[1:-1, 1:-1], atol=0.02, rtol=0)


def test_a_grid_that_is_not_square_is_left_for_the_shapes_to_refuse() -> None:
    own = encoder().state_dict()
    found = fit_encoder({**own, "pos_embed": torch.zeros(1, 1 + 2 * 3, WIDTH)}, own)
    assert found.weights["pos_embed"].shape == (1, 7, WIDTH) and found.notes == []
