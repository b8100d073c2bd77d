"""Fresh attention over time: the reference's start, whose queries and keys never learn, and ours, whose do."""

import pytest
import torch
from torch.testing import assert_close

from configs.load import load
from configs.schema import RetrievalConfig
from models.tvts.initialisation import start_from_projections
from models.tvts.video_tower import VideoTower
from tasks.build import build_model
from tests.integration.runs import ROOT
from tests.models.tvts.tiny import IMAGE, make_video


def fresh_tower(from_projections: bool) -> VideoTower:
    torch.manual_seed(0)
    tower = VideoTower(IMAGE, 6, raw_patches=False)
    if from_projections:
        start_from_projections(tower.blocks)
    return tower


@torch.no_grad()
def test_both_starts_add_nothing() -> None:
    video = make_video()
    reference, ours = (fresh_tower(from_projections)(video).tokens for from_projections in (False, True))
    assert torch.equal(reference, ours)


@pytest.mark.parametrize("from_projections", [False, True])
def test_queries_and_keys_learn_from_our_start_alone(from_projections: bool) -> None:
    tower, video = fresh_tower(from_projections), make_video()
    before = [block.timeattn.qkv.weight.detach().clone() for block in tower.blocks]
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        tower(video).embedding.sin().sum().backward()
        optimizer.step()

    for block, first in zip(tower.blocks, before, strict=True):
        query, key, value = (block.timeattn.qkv.weight - first).chunk(3)
        assert value.abs().max() > 1e-3
        if from_projections:
            assert query.abs().max() > 1e-3 and key.abs().max() > 1e-3
        else:
            assert not query.any() and not key.any()


def test_configurations_choose_the_start() -> None:
    towers = []
    for way in ("zero_qkv", "zero_proj"):
        settings = ["data.root=unused", f"model.time_init={way}", "seed=3"]
        config = load(RetrievalConfig, ROOT / "configs/debug/tvts_retrieval_stories.yaml", settings)
        torch.manual_seed(3)
        towers.append(build_model(config, None).video_model.state_dict())

    reference, ours = towers
    for name, tensor in reference.items():
        if "timeattn" not in name:
            assert torch.equal(tensor, ours[name]), name
    assert not reference["transformer.resblocks.1.timeattn.qkv.weight"].any()
    assert not ours["transformer.resblocks.1.timeattn.proj.weight"].any()
    deviation = ours["transformer.resblocks.1.timeattn.qkv.weight"].std()
    assert_close(deviation, torch.tensor(96**-0.5), atol=0.0, rtol=0.02)
