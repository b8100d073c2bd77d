"""The class token alone: the last block leaves out what only patches need, and the embedding and gradients stay."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from datasets.samples import Clip
from models.parts.chunks import BYTES_PER_NUMBER, GIB, WIDTHS_PER_TOKEN
from models.protocols import EmbedsAlone
from models.tvts.video_tower import VideoTower
from tasks.clips import embed_clip
from tests.models.runs import clips_of_runs
from tests.models.tvts.tiny import IMAGE, make_model, make_tower, make_video

BOTH_AXES = {"frames_per_block": 1, "patches_per_block": 3}
AGGREGATIONS: dict[str, dict] = {
    "none": {},
    "geometry": {"reducer": "geometry", **BOTH_AXES, "proportional_attention": True},
    "importance": {"reducer": "importance", **BOTH_AXES},
    "prune": {"reducer": "prune", **BOTH_AXES},
    "saliency": {"reducer": "saliency", "patches_per_block": 3},
}
RUN_LENGTH: dict[str, dict] = {
    "threshold": {"reducer": "run_length", "weigh_lengths": True},
    "share": {"reducer": "run_length", "keep": 0.5},
}
PROJECTED = ("queries", "keys", "values")
FIVE_FRAMES = 5 * 16 * WIDTHS_PER_TOKEN * BYTES_PER_NUMBER * IMAGE.width / GIB


def both(tower: VideoTower, video: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The embedding beside all tokens, and alone."""
    alone = tower(video, keep, embedding_only=True)
    assert alone.tokens.shape == (len(video), 1, IMAGE.width) and alone.mask is alone.origins is None
    return tower(video, keep).embedding, alone.embedding


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("memory", [None, FIVE_FRAMES])
@pytest.mark.parametrize("name", AGGREGATIONS)
def test_the_embedding_stays(name: str, memory: float | None, folded: bool) -> None:
    tower = make_tower(**AGGREGATIONS[name])
    tower.working_memory = memory or tower.working_memory
    if folded:
        tower.fold_for_inference()
    assert (tower._chunks(make_video(), None) is None) == (memory is None)
    expected, found = both(tower, make_video())
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_embedding_stays_under_autocast(dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype=dtype):
        expected, found = both(make_tower(), make_video())
    assert found.dtype == dtype
    assert (found - expected).float().norm() < 0.01 * expected.float().norm()


@torch.no_grad()
def test_the_embedding_stays_in_one_graph() -> None:
    tower = make_tower(**AGGREGATIONS["geometry"])
    expected = both(tower, make_video())
    tower.compile(fullgraph=True, dynamic=False, backend="eager")
    assert_close(both(tower, make_video()), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("way", RUN_LENGTH)
def test_the_embedding_of_patches_that_change_stays(way: str, folded: bool) -> None:
    tower = make_tower(**RUN_LENGTH[way])
    expected, found = both(tower.fold_for_inference() if folded else tower, clips_of_runs())
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_embedding_of_patches_that_are_shown_stays() -> None:
    keep = torch.tensor([[0, 3, 5, 9], [1, 2, 14, 15]])
    expected, found = both(make_tower(), make_video(), keep)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("memory", [None, FIVE_FRAMES])
@pytest.mark.parametrize("name", ["none", "geometry"])
def test_gradients_stay(name: str, memory: float | None, recompute: bool) -> None:
    tower = make_tower(**AGGREGATIONS[name]).train()
    tower.working_memory, tower.recompute = memory or tower.working_memory, recompute
    video = make_video().requires_grad_()
    inputs = [video, *tower.parameters()]
    expected, found = (torch.autograd.grad(embedding.sin().sum(), inputs) for embedding in both(tower, video))
    for own, other in zip(found, expected, strict=True):
        assert_close(own, other, atol=1e-5 * float(other.abs().max()) + 1e-7, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("memory", [None, FIVE_FRAMES])
def test_the_last_block_computes_no_patch(memory: float | None) -> None:
    tower = make_tower().fold_for_inference()
    tower.working_memory = memory or tower.working_memory
    rows: dict[str, int] = {}

    def count(name: str, module: nn.Module) -> None:
        rows[name] = 0

        def add(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
            rows[name] += inputs[0].numel() // IMAGE.width

        module.register_forward_hook(add)

    for name, block in (("first", tower.blocks[0]), ("last", tower.blocks[-1])):
        count(f"{name} MLP", block.mlp)
        for part, layer in zip(PROJECTED, block.attn.qkv, strict=True):
            count(f"{name} {part}", layer)
        count(f"{name} projection", block.attn.proj)
    tower(make_video(batch=1), embedding_only=True)
    assert all(rows[f"first {part}"] > 90 for part in ("MLP", "projection", *PROJECTED))
    assert rows["last MLP"] == 1 and rows["last projection"] == 1
    # The class token's own key and value are projected where chunks are put together.
    assert all(rows[f"last {part}"] == (0 if memory is None else 1) for part in PROJECTED)


@torch.no_grad()
def test_clips_are_embedded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, video = make_model().eval(), make_video()
    assert isinstance(model, EmbedsAlone)
    expected = model.encode_video(video).embedding
    monkeypatch.delattr(type(model), "encode_video")
    assert_close(embed_clip(model, Clip.of_pixels(video)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("asked", [{"return_origins": True}, {"steps": []}])
def test_what_is_of_all_tokens_is_refused(asked: dict) -> None:
    with pytest.raises(AssertionError, match="all tokens"):
        make_tower()(make_video(), embedding_only=True, **asked)
