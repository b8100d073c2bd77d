"""The data sections: where videos and texts are, and which of them train, choose and test a model."""

from dataclasses import dataclass, field
from typing import Literal

from configs.remote import RemoteConfig

Dataset = Literal[
    "manifest",
    "queryd",
    "didemo",
    "activitynet_captions",
    "condensed_movies",
    "msrvtt",
    "activitynet_qa",
    "msrvtt_qa",
    "labelled",
    "hmdb51",
    "ucf101",
    "kinetics400",
    "ssv2",
    "ssv2_mc",
    "msvd",
    "msvd_qa",
    "lsmdc",
    "ssv2_label",
    "ssv2_template",
    "msrvtt_mc",
]
CleanUp = Literal["none", "caption", "question", "no_punctuation"]
QUESTION_DATASETS = ("activitynet_qa", "msrvtt_qa", "msvd_qa")
"""Datasets of questions and answers; the others hold captions."""
CHOICE_DATASETS = ("msrvtt_mc",)
"""Datasets of videos with options of their own, and captions to train on."""
MANIFESTS = ("manifest", "eval_manifest", "test_manifest")
SPLITS = ("train_split", "eval_split", "test_split")
LISTS = ("train_list", "eval_list", "test_list")
"""Video lists; each restricts the split of the same part."""


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """How videos with timed words become four consecutive clips, each with what is spoken in it.

    `cut: drawn` takes clips of 3 to 5 seconds, a second apart, at a random place, and draws again up to `tries` times
    while nothing is spoken in one of them. `whole` cuts the whole video into four. `frames: each_clip` takes equally
    many frames of each clip; `span`, the reference's, takes them from the first clip's start to the last one's end.
    """

    cut: Literal["drawn", "whole"] = "drawn"
    tries: int = 5
    frames: Literal["each_clip", "span"] = "each_clip"

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"data.speech.tries: {self.tries} draws nothing; 1 draws once")
        if self.cut == "whole" and self.tries != type(self).tries:
            raise ValueError("data.speech.tries: has no effect with data.speech.cut whole")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One set of pre-training data: `file` (relative ones in `data.root`) names it, its videos are in `media`.

    The suffix of `file` says its format: `.jsonl` is a manifest, `.csv` WebVid's table, `.tsv` captions and images, and
    `.json` a list of paths and captions, or an index of tar shards. An epoch shows each row `weight` times.
    `num_frames` and `image_size` default to the video section, `batch_size` to the train section, `losses` to the
    objective; setting any of them needs `data.mixing: batch`.

    `kind: speech` is videos with timed words, which `data.speech` cuts into clips: a `.jsonl` manifest with `words`, a
    `.csv` list of YT-Temporal, or a folder of videos with subtitles beside them.
    """

    file: str
    kind: Literal["pairs", "speech"] = "pairs"
    media: str | None = None
    weight: float = 1.0
    num_frames: int | None = None
    image_size: int | None = None
    batch_size: int | None = None
    losses: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.losses == ():
            raise ValueError(f"losses: none trains on {self.file}; remove the source")
        if self.weight <= 0:
            raise ValueError(f"weight: {self.weight} shows nothing of {self.file}; remove the source")
        for name in ("num_frames", "image_size", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} is less than 1")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the data are: your own manifests, a public dataset's own files, or several sources for pre-training.

    `dataset: manifest` reads JSONL files, relative ones in `root`. Any other name reads that dataset's files below
    `root` and takes splits instead. `train_list`, `eval_list` and `test_list` are files below `root` with one video
    name a line; each restricts its split to these videos, and results name it.

    `manifest` or `train_split` is trained on. `eval_manifest` or `eval_split` is evaluated during training and chooses
    the best weights. `test_manifest` or `test_split` gives the final result; without it the evaluation set does, and
    without that the training set, which the log then says.

    A relative `video` is in `videos` (by default `<root>/videos`). `root`, `videos` and a `video` may be addresses of
    s3, gs, http, https or hf, which `remote` says how to fetch. Of each video, or part of one, only the
    `first_seconds` are seen; published results on DiDeMo are of the first 30.

    `clean_up` chooses how texts are cleaned: `caption` and `question` are TESTA's rules, and the task's rule is the
    default; `no_punctuation` is UMT's; `none` leaves texts unchanged, as does `clean_captions: false`. `caption` keeps
    `max_words` words. Texts are cut to `max_tokens` word pieces, including [CLS] and [SEP]. `cache: memory` keeps
    decoded clips of small sets, up to `cache_gb` of each source.

    `objects` is a file of `scripts.prepare_objects` with boxes that go along with each clip; frames are then sampled
    and cut as it says. `tags` is a file of `scripts.tag_captions` with the nouns and verbs of texts, which are then not
    cleaned. Relative ones are in `root`.

    With `sources`, `mixing: sample` shuffles all rows into the same batches; with `mixing: batch` each optimizer step
    takes its batch from one source. `order: shuffled` then draws the next source in proportion to its batches, and
    `order: turns` takes one batch from each source in turn, in the order of the list. There the source with the file
    `epoch_source`, by default the first, ends the epoch; the others start over whenever they run out.

    With a source of speech, `eval_manifest` and `test_manifest` name speech too (a file or a folder), whose transcripts
    an evaluation sorts; its videos are in the `media` of the first such source.

    `dataset: labelled` is a folder `root` of your own for recognition: its `labels.csv`, or one folder a class; the
    split `all` takes every row. `first_label` says whether the numbers of a list begin at 0 or 1, if it leaves that
    open.
    """

    root: str
    dataset: Dataset = "manifest"
    manifest: str = "captions.jsonl"
    eval_manifest: str | None = None
    test_manifest: str | None = None
    train_split: str = "train"
    eval_split: str | None = None
    test_split: str | None = None
    train_list: str | None = None
    eval_list: str | None = None
    test_list: str | None = None
    sources: tuple[SourceConfig, ...] = ()
    mixing: Literal["sample", "batch"] = "sample"
    order: Literal["shuffled", "turns"] = "shuffled"
    epoch_source: str | None = None
    speech: SpeechConfig = field(default_factory=SpeechConfig)
    first_label: int | None = None
    videos: str | None = None
    first_seconds: float | None = None
    clean_captions: bool = True
    clean_up: CleanUp | None = None
    max_words: int = 64
    max_tokens: int | None = None
    cache: Literal["none", "memory"] = "none"
    cache_gb: float = 2.0
    objects: str | None = None
    tags: str | None = None
    remote: RemoteConfig = field(default_factory=RemoteConfig)

    def __post_init__(self) -> None:
        if self.max_words < 1:
            raise ValueError(f"data.max_words: {self.max_words} leaves no word of a caption")
        if self.max_tokens is not None and self.max_tokens < 3:
            raise ValueError(f"data.max_tokens: {self.max_tokens} leaves no word between [CLS] and [SEP]")
        if not self.clean_captions and self.max_words != 64:
            raise ValueError("data.max_words: has no effect with data.clean_captions false; cut with data.max_tokens")
        if self.clean_up is not None and not self.clean_captions:
            raise ValueError("data.clean_captions: has no effect with data.clean_up; remove one of them")
        if self.clean_up not in (None, "caption") and self.max_words != 64:
            raise ValueError(
                f"data.max_words: has no effect with data.clean_up {self.clean_up}; cut with data.max_tokens"
            )

        if self.first_label not in (None, 0, 1):
            raise ValueError(f"data.first_label: {self.first_label} is neither 0 nor 1")
        if self.first_seconds is not None and self.first_seconds <= 0:
            raise ValueError(f"data.first_seconds: {self.first_seconds} seconds leave no frame")
        if self.first_seconds is not None and self.sources:
            raise ValueError("data.first_seconds: has no effect on data.sources, whose rows say start and end")
        if self.cache == "none" and self.cache_gb != 2.0:
            raise ValueError("data.cache_gb: has no effect unless data.cache is memory")

        if self.tags is not None and self.clean_captions and self.clean_up != "none":
            raise ValueError("data.tags: are of texts as they are written; set data.clean_up=none")
        self._refuse_what_is_not_read()

    @property
    def test_is_apart(self) -> bool:
        """Whether the final result comes from a set of its own, not from the set that chose the best weights."""
        return (self.test_manifest if self.dataset == "manifest" else self.test_split) is not None

    @property
    def reads_speech(self) -> bool:
        """Whether a source holds videos with timed words."""
        return any(source.kind == "speech" for source in self.sources)

    def _refuse_what_is_not_read(self) -> None:
        unread: tuple[str, ...] = (*SPLITS, *LISTS)
        why = "data.dataset manifest, whose files data.manifest, eval_manifest and test_manifest name"
        if self.sources:
            unread, why = (*MANIFESTS, *SPLITS, *LISTS), "data.sources, which name their own files"
            if self.reads_speech:  # speech is evaluated by the sorting of its transcripts
                unread = ("manifest", *SPLITS, *LISTS)
        elif self.dataset != "manifest":
            unread, why = (
                MANIFESTS,
                f"data.dataset {self.dataset}, which is read by train_split, eval_split, test_split",
            )

        for name in unread:
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"data.{name}: has no effect with {why}")

        for part in ("eval", "test"):
            if getattr(self, f"{part}_list") is not None and getattr(self, f"{part}_split") is None:
                raise ValueError(f"data.{part}_list: has no effect without data.{part}_split, which it restricts")

        if self.reads_speech and self.objects is not None:
            raise ValueError(
                "data.objects: boxes do not go along with speech, whose clips are cut anew; remove one of them"
            )
        if self.speech != SpeechConfig() and not self.reads_speech:
            raise ValueError("data.speech: has no effect without a source of data.sources whose kind is speech")
        if self.sources and self.dataset != "manifest":
            raise ValueError("data.dataset: has no effect with data.sources; remove one of them")
        if self.mixing == "batch" and not self.sources:
            raise ValueError("data.mixing: has no effect without data.sources")
        self._check_turns()

        # Samples of one batch must have one shape and one set of losses.
        for position, source in enumerate(self.sources if self.mixing == "sample" else ()):
            for name in ("num_frames", "image_size", "batch_size", "losses"):
                if getattr(source, name) is not None:
                    raise ValueError(
                        f"data.sources[{position}].{name}: takes data.mixing batch; samples of one batch are alike"
                    )

    def _check_turns(self) -> None:
        """Refuse an impossible order of sources, and settings that have no effect on it."""
        if self.order == "shuffled":
            if self.epoch_source is not None:
                raise ValueError("data.epoch_source: has no effect unless data.order is turns")
            return

        if self.mixing != "batch":
            raise ValueError("data.order: turns takes data.mixing batch, whose batches are of one source")
        files = [source.file for source in self.sources]
        if self.epoch_source is not None and self.epoch_source not in files:
            raise ValueError(f"data.epoch_source: {self.epoch_source} is none of the sources {', '.join(files)}")
        for position, source in enumerate(self.sources):
            if position != self.epoch_source_position and source.weight != 1:
                raise ValueError(
                    f"data.sources[{position}].weight: has no effect with data.order turns, as "
                    f"{files[self.epoch_source_position]} ends the epoch; remove it"
                )

    @property
    def epoch_source_position(self) -> int:
        """The position of the source that ends an epoch when sources take turns."""
        return 0 if self.epoch_source is None else [source.file for source in self.sources].index(self.epoch_source)
