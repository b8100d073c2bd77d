"""What the toy's encoder costs."""

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from models.parts.cost import Cost
from tests.toy.config import ToyConfig, token_schedule


def count(model: ToyConfig, video: VideoConfig, aggregation: AggregationConfig) -> Cost:
    model.check(video, aggregation)
    tokens = video.num_frames * (video.image_size // model.patch_size) ** 2
    macs = matching = 0
    for leaving in token_schedule(model, video, aggregation):
        macs += tokens * model.width**2
        matching += (tokens + 1) // 2 * (tokens // 2) * model.width if leaving else 0
        tokens -= leaving
    return Cost((macs + matching) / 1e9, macs / 1e9, None, None, tokens)
