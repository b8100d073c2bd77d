"""The sections that say where videos and texts are, and which of them a run trains, chooses and reports on."""

from dataclasses import dataclass
from typing import Literal

Dataset = Literal[
    "manifest",
    "queryd",
    "didemo",
    "activitynet_captions",
    "condensed_movies",
    "msrvtt",
    "activitynet_qa",
    "msrvtt_qa",
]
CleanUp = Literal["none", "caption", "question", "no_punctuation"]
QUESTION_DATASETS = ("activitynet_qa", "msrvtt_qa")
"""Those that hold questions and answers; the others hold captions."""
MANIFESTS = ("manifest", "eval_manifest", "test_manifest")
SPLITS = ("train_split", "eval_split", "test_split")
LISTS = ("train_list", "eval_list", "test_list")
"""Files that restrict the split of the same part."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One set of pre-training pairs: `file` (relative ones in `data.root`) names them, `media` is their folder.

    The suffix of `file` says its format: `.jsonl` is a manifest, `.csv` WebVid's table, `.tsv` captions and images, and
    `.json` a list of paths and captions, or an index of tar shards. An epoch shows each row `weight` times.
    `num_frames`, `image_size` and `batch_size` are the video section's and the train section's unless given, and
    `losses` those of the objective; giving any takes `data.mixing: batch`.
    """

    file: str
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
    """Where the pairs are: manifests of one's own, a public dataset's own files, or several sources to pre-train on.

    `dataset: manifest` reads JSONL files, relative ones in `root`; any other name reads that dataset's files below
    `root` and takes splits instead. A file below `root` with a video's name a line (`train_list`, `eval_list`,
    `test_list`) restricts a split to these videos, and results name it. Training is on `manifest` or `train_split`;
    evaluation in between, which chooses the best weights, on `eval_manifest` or `eval_split`; the result that counts is
    of `test_manifest` or `test_split`. Without the last it is that of the evaluation set, and without that, of the
    training set, and says so.
    A relative `video` is looked for in `videos` (by default `<root>/videos`). `clean_up` names what is done to texts:
    `caption` and `question` are TESTA's rules, by default those of the task; `no_punctuation` is UMT's; `none` leaves
    them as they are written, as does `clean_captions: false`. `caption` keeps `max_words` words. Texts are cut to
    `max_tokens` word pieces ([CLS] and [SEP] counted).
    `cache: memory` keeps decoded clips of small sets, up to `cache_gb`.
    With `sources`, `mixing: sample` shuffles all rows into the same batches, and `mixing: batch` makes batches, each an
    optimizer step, of one source. `order: shuffled` then draws whose batch is next, each source in proportion to its
    batches; `order: turns` takes one of each source again and again, in the order of the list. The source with the file
    `epoch_source`, by default the first, then ends the epoch; the others begin again whenever they are at their end.
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
    videos: str | None = None
    clean_captions: bool = True
    clean_up: CleanUp | None = None
    max_words: int = 64
    max_tokens: int | None = None
    cache: Literal["none", "memory"] = "none"
    cache_gb: float = 2.0

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
        if self.cache == "none" and self.cache_gb != 2.0:
            raise ValueError("data.cache_gb: has no effect unless data.cache is memory")
        self._refuse_what_is_not_read()

    @property
    def test_is_apart(self) -> bool:
        """Whether the result that counts is of other videos than those the best weights are chosen on."""
        return (self.test_manifest if self.dataset == "manifest" else self.test_split) is not None

    def _refuse_what_is_not_read(self) -> None:
        unread: tuple[str, ...] = (*SPLITS, *LISTS)
        why = "data.dataset manifest, whose files data.manifest, eval_manifest and test_manifest name"
        if self.sources:
            unread, why = (*MANIFESTS, *SPLITS, *LISTS), "data.sources, which name their own files"
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
        if self.sources and self.dataset != "manifest":
            raise ValueError("data.dataset: has no effect with data.sources; remove one of them")
        if self.mixing == "batch" and not self.sources:
            raise ValueError("data.mixing: has no effect without data.sources")
        self._check_turns()
        for position, source in enumerate(self.sources if self.mixing == "sample" else ()):
            for name in ("num_frames", "image_size", "batch_size", "losses"):
                if getattr(source, name) is not None:
                    raise ValueError(
                        f"data.sources[{position}].{name}: takes data.mixing batch; samples of one batch are alike"
                    )

    def _check_turns(self) -> None:
        """Refuse an order of sources that cannot be, or settings without effect on it."""
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
        """Which of the sources ends an epoch where they take turns."""
        return 0 if self.epoch_source is None else [source.file for source in self.sources].index(self.epoch_source)
