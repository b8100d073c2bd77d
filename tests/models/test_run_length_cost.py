"""What run-length tokens cost: as much as a video of as many patches, and each video by its own content."""

import pytest

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.base import ModelConfig
from configs.models.testa import TestaConfig
from configs.models.tvts import TvtsConfig
from configs.models.umt import UMTConfig
from models.systems import count
from tests.models.runs import BY_THRESHOLD

VIDEO = VideoConfig(num_frames=8)
MODELS: dict[str, ModelConfig] = {
    "testa joint": TestaConfig(attention="joint", depth=2),
    "testa divided": TestaConfig(depth=2),
    "umt": UMTConfig(pooling="all", depth=2),
    "tvts": TvtsConfig(depth=2),
}


def by_share(keep: float) -> AggregationConfig:
    return AggregationConfig(reducer="run_length", keep=keep)


@pytest.mark.parametrize("name", ["testa joint", "umt"])
def test_half_of_eight_frames_costs_what_four_frames_do(name: str) -> None:
    """Besides the embeddings of the other four."""
    model, patches = MODELS[name], (224 // 16) ** 2
    embedding = 4 * patches * 768 * 768 / 1e9
    expected = count(model, VideoConfig(num_frames=4), AggregationConfig()).gmacs + embedding
    found = count(model, VIDEO, by_share(0.5))
    assert found.gmacs == pytest.approx(expected, abs=0.002)
    assert found.tokens == 4 * patches + (name == "testa joint")


@pytest.mark.parametrize("name", ["testa joint", "umt"])
def test_merging_inside_costs_what_it_does_in_a_video_of_as_many_patches(name: str) -> None:
    model, patches = MODELS[name], (224 // 16) ** 2
    embedding = 4 * patches * 768 * 768 / 1e9
    inside = AggregationConfig(reducer="run_length", keep=0.5, inside="tome", tokens_per_block=(300, 100))
    alone = AggregationConfig(reducer="tome", tokens_per_block=(300, 100))
    expected = count(model, VideoConfig(num_frames=4), alone)
    found = count(model, VIDEO, inside)
    assert found.gmacs == pytest.approx(expected.gmacs + embedding, abs=0.002)
    assert found.tokens == expected.tokens == 4 * patches - 400 + (name == "testa joint")


@pytest.mark.parametrize("name", MODELS)
def test_videos_cost_what_their_content_says(name: str) -> None:
    model = MODELS[name]
    costs = [count(model, VIDEO, by_share(share)).gmacs for share in (0.25, 0.5, 1.0)]
    assert costs == sorted(costs)
    assert costs[0] < 0.35 * costs[2]
    assert costs[2] == pytest.approx(count(model, VIDEO, AggregationConfig()).gmacs, rel=0.01)
    with pytest.raises(ValueError, match="aggregation.keep to the share"):
        count(model, VIDEO, BY_THRESHOLD)


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_a_share_below_one_frame_is_refused(model: ModelConfig) -> None:
    with pytest.raises(ValueError, match=r"aggregation.keep: 0.1 of 8 frames .* at least 0.125"):
        model.check(VIDEO, by_share(0.1))


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_random_patches_need_a_share(model: ModelConfig) -> None:
    with pytest.raises(ValueError, match="kept_by: random says which share stays; set aggregation.keep"):
        model.check(VIDEO, AggregationConfig(reducer="run_length", kept_by="random"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.2, "keep": 0.5}, "either the threshold or keep"),
        ({"threshold": -0.1}, "threshold: -0.1 is negative"),
        ({"proportional_attention": True}, "proportional_attention: .*set weigh_lengths"),
        ({"weighted_pooling": True}, "weighted_pooling: .*set weigh_lengths"),
        ({"frames_per_block": 1}, "frames_per_block: 1 has no effect with reducer 'run_length'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AggregationConfig(reducer="run_length", **settings)
