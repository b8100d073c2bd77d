"""What the tasks read: the records of each part of a run's data, and the samples that are made of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Literal

from configs.schema import RunConfig, SourceConfig
from datasets.annotations import manifest, public
from datasets.pairs import PairTable
from datasets.records import Annotations, QuestionRecord, Record, VideoTextRecord, split_missing
from datasets.sources import holds_its_videos
from datasets.text import clean_caption, clean_question
from datasets.video_text import VideoTextDataset

Part = Literal["train", "eval", "test"]
PARTS: tuple[Part, ...] = ("train", "eval", "test")
QUESTION_WORDS = 50


@dataclass(frozen=True)
class Split(Generic[Record]):
    """One part of the data: its annotations, divided by whether the video is there.

    Attributes:
        annotations: all records in the order of the files, with the honest name of the part.
        present, missing: those of the records whose video is there, and the others, in the same order.
    """

    annotations: Annotations[Record]
    present: list[Record]
    missing: list[Record]

    @property
    def num_annotated(self) -> int:
        """How many videos, or parts of videos, the annotations name.

        Of captions each record is one, whatever its file is called: two of DiDeMo's names may be found as one file.
        """
        questions = [record for record in self.annotations.records if isinstance(record, QuestionRecord)]
        if not questions:
            return len(self.annotations.records)
        return len({(record.video, record.start, record.end) for record in questions})

    @property
    def missing_videos(self) -> list[dict[str, str]]:
        """Each video, or part of one, that is not there, as `failed` of an evaluation lists it."""
        clips = [(record.video, record.start, record.end) for record in self.missing]
        if any(isinstance(record, QuestionRecord) for record in self.missing):
            clips = list(dict.fromkeys(clips))
        return [{"video": video, "reason": "no such file"} for video, _, _ in clips]


def read_split(config: RunConfig, part: Part) -> Split:
    """Read the records of a part of the data: questions for question answering, captions for all else.

    Where the configuration names no test set the evaluation set stands for it, and where it names none the training
    set. `ValueError` if no video is there.
    """
    annotations = read_annotations(config, part)
    present, missing = split_missing(annotations.records, video_folder(config))
    return Split(annotations, present, missing)


def read_annotations(config: RunConfig, part: Part) -> Annotations:
    """The same without a look at the videos: what the files say of a part of the data."""
    name, root, videos = name_of(config, part), Path(config.data.root), video_folder(config)
    if config.data.dataset != "manifest":
        return public.read(config.data.dataset, root, name, videos)
    read = manifest.read_questions if config.task == "vqa" else manifest.read
    return Annotations(read(root / name, videos), root.resolve().name, Path(name).stem, f"manifest {root / name}")


def name_of(config: RunConfig, part: Part) -> str:
    """The manifest or split that a part is read from."""
    settings = [setting_of(config, candidate) for candidate in PARTS[: PARTS.index(part) + 1]]
    named = [getattr(config.data, setting.removeprefix("data.")) for setting in settings]
    return next(name for name in reversed(named) if name is not None)


def video_folder(config: RunConfig) -> Path:
    """The folder that relative paths of videos are in."""
    return Path(config.data.videos) if config.data.videos else Path(config.data.root) / "videos"


def media_folder(config: RunConfig, source: SourceConfig) -> Path:
    """The folder that relative paths of a source are in; ValueError where it has none and one is named."""
    root = Path(config.data.root)
    if source.media and holds_its_videos(root / source.file):
        raise ValueError(f"data.sources: media of {source.file} has no effect, as shards hold their videos; remove it")
    return root / source.media if source.media else video_folder(config)


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
    if config.task == "vqa":
        return partial(clean_question, max_words=QUESTION_WORDS)
    return partial(clean_caption, max_words=config.data.max_words) if config.data.clean_captions else str


def setting_of(config: RunConfig, part: Part) -> str:
    """The key of the configuration that names a part."""
    if config.data.dataset != "manifest":
        return f"data.{part}_split"
    return {"train": "data.manifest", "eval": "data.eval_manifest", "test": "data.test_manifest"}[part]
