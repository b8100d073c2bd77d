"""Turn records into samples: frames, pixels and cleaned texts, as the configuration says."""

from collections.abc import Callable
from functools import partial

from configs.model import VideoConfig
from configs.schema import RunConfig
from datasets.framing import Framing
from datasets.objects.along import check_boxes, object_extras
from datasets.objects.store import ObjectStore
from datasets.pairs import PairTable
from datasets.records import ChoiceRecord, LabelRecord, QuestionRecord, VideoTextRecord
from datasets.remote.settings import use
from datasets.sampling import Windows
from datasets.text import CLEAN_UPS
from datasets.video_text import Extra, TextsOfSample, VideoTextDataset
from tasks.folders import root_folder, video_folder

QUESTION_WORDS = 50


def video_text(
    config: RunConfig,
    records: list[VideoTextRecord] | list[QuestionRecord],
    training: bool,
    texts: TextsOfSample = "one",
    windows: Windows | None = None,
) -> VideoTextDataset:
    """Records as samples with the configured frames and pixels, each with one or all texts of its video.

    With `windows` a sample's clip holds sliding windows (W, T, ...) instead of the configured frames.
    """
    video, data = config.video, config.data
    use(data.remote)
    table = PairTable.of(records)
    return VideoTextDataset(
        table,
        num_frames=video.num_frames,
        framing=framing_of(video, training),
        sampling=video.train_sampling if training else video.eval_sampling,
        seed=config.seed,
        clean=clean_up(config),
        training=training,
        texts=texts,
        extras=extras_of(config, table, str(video_folder(config))),
        cache_bytes=int(data.cache_gb * 2**30) if data.cache == "memory" and training else None,
        windows=windows,
    )


def extras_of(config: RunConfig, table: PairTable, folder: str) -> dict[str, Extra]:
    """What goes along with the clips of a table, whose videos are in `folder`: boxes, if `data.objects` names a file.

    ValueError if the file is of other frames than the configuration samples, or lacks one of these clips.
    """
    if config.data.objects is None:
        return {}
    store = ObjectStore(root_folder(config) / config.data.objects)
    check_frames(store, config)
    check_boxes(store, table, folder)
    return object_extras(store, folder)


def videos_alone(
    config: RunConfig,
    records: list[LabelRecord] | list[ChoiceRecord],
    training: bool,
    windows: Windows | None = None,
) -> VideoTextDataset:
    """Records without captions as samples, in their order: each clip has one text, which is empty."""
    rows = [VideoTextRecord(record.video, ("",), record.start, record.end) for record in records]
    return video_text(config, rows, training, windows=windows)


def check_frames(store: ObjectStore, config: RunConfig) -> None:
    """ValueError unless the boxes of a file are of the frames that the configuration samples, and as many on each."""
    video = config.video
    store.check(num_frames=video.num_frames, image_size=video.image_size, fit=video.fit, sampling=video.train_sampling)
    assert config.model.boxes_per_frame is not None
    store.check(objects_per_frame=config.model.boxes_per_frame)


def framing_of(video: VideoConfig, training: bool, image_size: int | None = None) -> Framing:
    """How frames become squares of the configured size, or of `image_size` pixels.

    With another `image_size`, `video.resize` scales in proportion.
    """
    size = image_size or video.image_size
    augment = "none"
    if training and video.augment:
        augment = "operations" if video.augment is True else video.augment
    return Framing(size, video.fit, video.interpolation, round(video.resize * size / video.image_size), augment)


def clean_up(config: RunConfig) -> Callable[[str], str]:
    """The cleaning rule for every caption or question, applied before tokenization."""
    clean, max_words = CLEAN_UPS[_clean_up_name(config)], max_words_of(config)
    return clean if max_words is None else partial(clean, max_words=max_words)


def max_words_of(config: RunConfig) -> int | None:
    """The most words that the clean-up keeps; None if it keeps all."""
    return {"caption": config.data.max_words, "question": QUESTION_WORDS}.get(_clean_up_name(config))


def _clean_up_name(config: RunConfig) -> str:
    if config.data.clean_up is not None:
        return config.data.clean_up
    if config.reads_questions:
        return "question"
    return "caption" if config.data.clean_captions else "none"
