"""The samples that are made of records: frames, pixels and cleaned texts as the configuration says."""

from collections.abc import Callable
from functools import partial

from configs.schema import RunConfig
from datasets.pairs import PairTable
from datasets.records import QuestionRecord, VideoTextRecord
from datasets.text import CLEAN_UPS
from datasets.video_text import VideoTextDataset

QUESTION_WORDS = 50


def video_text(
    config: RunConfig, records: list[VideoTextRecord] | list[QuestionRecord], training: bool
) -> VideoTextDataset:
    """Records as samples of the configured frames and pixels."""
    video, data = config.video, config.data
    return VideoTextDataset(
        PairTable.of(records),
        num_frames=video.num_frames,
        image_size=video.image_size,
        sampling=video.train_sampling if training else video.eval_sampling,
        seed=config.seed,
        clean=clean_up(config),
        training=training,
        augment=training and video.augment,
        resize=video.resize,
        cache_bytes=int(data.cache_gb * 2**30) if data.cache == "memory" and training else None,
    )


def clean_up(config: RunConfig) -> Callable[[str], str]:
    """What is done to every caption, or question, before it is tokenized."""
    clean, max_words = CLEAN_UPS[_clean_up_name(config)], max_words_of(config)
    return clean if max_words is None else partial(clean, max_words=max_words)


def max_words_of(config: RunConfig) -> int | None:
    """How many words the clean-up leaves at most; None where it leaves all."""
    return {"caption": config.data.max_words, "question": QUESTION_WORDS}.get(_clean_up_name(config))


def _clean_up_name(config: RunConfig) -> str:
    if config.data.clean_up is not None:
        return config.data.clean_up
    if config.reads_questions:
        return "question"
    return "caption" if config.data.clean_captions else "none"
