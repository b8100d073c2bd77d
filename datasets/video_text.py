"""Records as samples: read, sample, clean up, augment; a file that cannot be read is remembered and replaced."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from datasets import decode, sampling, transforms
from datasets.clip_cache import ClipCache, check_cacheable
from datasets.clip_reader import ClipReader, Frames, NewGenerator
from datasets.framing import Framing
from datasets.pairs import PairTable
from datasets.reading import Watched, told_of
from datasets.samples import Clip, Failure, Sample

MAX_TRIES = 100
"""How many replacements to try for an item that cannot be read before giving up on the data set."""
Extra = Callable[[PairTable, int, Tensor], Tensor]
"""What goes along with a clip: from the table, the video's position in it, and the times of the frames (T,)."""
TextsOfSample = Literal["one", "all"]


class VideoTextDataset(Dataset):
    """Clips and texts.

    In training an item is a pair of a video and one of its texts, or a video with all of its texts. It is asked for as
    `dataset[epoch, item]`, and everything random in it follows from (seed, epoch, item) alone. An epoch that shows an
    item several times asks for it as `dataset[epoch, item, draw]`, and `draw` takes the place of the item in what is
    random. In evaluation an item is a video, `dataset[index]`, with its first text or all of them; `captions` and
    `caption_video` then hold all texts.

    In training a video that cannot be read is replaced by an item that follows from (seed, epoch, draw) too; in
    evaluation the sample has no clip. Each process opens such a file once, or once an item where sampling is random;
    what is excluded is not opened.

    Args:
        clean: what is done to every text; it is given to worker processes, so no nested function.
        sampling: one of `sampling.SAMPLERS` or `sampling.TIMED_SAMPLERS`.
        framing: how frames become squares; what it draws is for training only.
        texts: whether a sample has one text or all texts of its video.
        extras: what else goes along with a clip, by name; given to worker processes too.
        cache_bytes: keep the clips, before augmentation, in memory that all workers share, except for images that are
            augmented; ValueError if they need more.
        windows: the sliding windows that an evaluated clip consists of, in place of `sampling`; without extras.
    """

    def __init__(
        self,
        table: PairTable,
        *,
        num_frames: int,
        framing: Framing,
        sampling: str,
        seed: int,
        clean: Callable[[str], str] = str,
        training: bool,
        texts: TextsOfSample = "one",
        extras: Mapping[str, Extra] | None = None,
        cache_bytes: int | None = None,
        windows: sampling.Windows | None = None,
    ) -> None:
        assert len(table), "no records"
        assert training or framing.augment == "none", "evaluation is not augmented"
        assert windows is None or (not training and not extras), (
            "windows are evaluated, and nothing goes along with them"
        )
        self.table = table
        self.windows = windows
        self.clean = clean
        self.num_frames = num_frames
        self.framing = framing
        self.sampling = sampling
        self.seed = seed
        self.training = training
        self.extras = dict(extras or {})
        self._texts = texts
        self._reasons: dict[int, str] = {}
        self._excluded: dict[str, str] = {}
        self._line: Watched | None = None
        self._reader = ClipReader(framing, num_frames)
        self._read_ahead: dict[int, Frames] = {}
        self._cache = None if cache_bytes is None else self._new_cache(cache_bytes)

        # The rows of each video, one after the other; training on pairs has no use for them.
        self._rows: np.ndarray | None = None
        if texts == "all" or not training:
            self._rows = np.argsort(table.text_video, kind="stable")
            self._first_row = np.searchsorted(table.text_video[self._rows], np.arange(table.num_videos + 1))

    def __len__(self) -> int:
        pairs = self.training and self._texts == "one"
        return len(self.table) if pairs else self.table.num_videos

    @property
    def training_texts(self) -> Iterator[str]:
        """Every text, cleaned, one at a time."""
        return (self.clean(text) for text in self.table.texts)

    @property
    def captions(self) -> list[str]:
        """Every text, cleaned, in the order of the table: row by row."""
        return [self.clean(text) for text in self.table.texts]

    @property
    def caption_video(self) -> list[int]:
        """The position of the video that each of `captions` belongs to."""
        return self.table.text_video.tolist()

    def __getitem__(self, item: int | tuple[int, ...]) -> Sample:
        if isinstance(item, tuple):
            assert self.training, "evaluation takes an index, not (epoch, item)"
            epoch, number, *draw = item
            return self._training_sample(epoch, number, draw[0] if draw else number)

        assert not self.training, "training takes (epoch, item)"
        return self._evaluation_sample(item)

    def __getitems__(self, items: Sequence[Any]) -> list[Sample]:
        """The samples of a batch, as loaders ask for them.

        In evaluation, neighbours that are parts of the same file are read in one pass.
        """
        if self.training:
            return [self[item] for item in items]

        samples = []
        for path, parts in groupby(items, self.table.path):
            videos = list(parts)
            self._read_together(path, videos)
            samples += [self[video] for video in videos]
            self._read_ahead.clear()
        return samples

    def _read_together(self, path: str, videos: Sequence[int]) -> None:
        """Read several parts of a file ahead; if that fails, each is read by itself, which names what is wrong."""
        file = self.table.file(videos[0])
        videos = [video for video in dict.fromkeys(videos) if video not in self._reasons]
        if self._cache is not None or len(videos) < 2 or path in self._excluded or decode.is_still(file):
            return

        try:
            with told_of(self._line, path):
                parts = [self._part(video, epoch=0, draw=video) for video in videos]
                found = self._reader.parts(file, parts, self._rng_of_pixels(0, videos[0]), self._beat)
        except decode.DecodeError:
            return
        self._read_ahead = dict(zip(videos, found, strict=True))

    def _evaluation_sample(self, video: int) -> Sample:
        """A video with its first text or all of them; without a clip if the file cannot be read."""
        clip, failed = None, []
        try:
            clip = self._clip(video, epoch=0, draw=video)
        except decode.DecodeError as error:
            failed.append(self._failure(error))

        rows = self._rows_of(video)
        if self._texts == "one":
            rows = rows[:1]
        return self._sample(clip, video, rows, failed, epoch=0, draw=video)

    def frame_times(self, video: int) -> np.ndarray:
        """When each frame of a video's clip in evaluation is shown, (T,) in seconds from the video's first frame.

        Zeros for an image. `decode.DecodeError` if the file does not say.
        """
        assert not self.training, "training takes other frames each epoch"
        if decode.is_still(self.table.file(video)):
            return np.zeros(self.num_frames)
        start, end = self._span(video, epoch=0, draw=video)
        return decode.read_times(self.table.file(video), self._chooser(video, 0, video), start, end)

    def watch(self, line: Watched) -> None:
        """Tell `line` which file is being read, so that the parent process can name it if this worker hangs."""
        self._line = line

    def exclude(self, reasons: Mapping[str, str]) -> bool:
        """Open these paths no more, each for a reason; whether any of them is new."""
        new = {path: reason for path, reason in reasons.items() if path not in self._excluded}
        self._excluded |= new
        return bool(new)

    def _sample(
        self,
        clip: Clip | None,
        video: int,
        rows: list[int],
        failed: list[Failure],
        *,
        epoch: int,
        draw: int,
    ) -> Sample:
        """The sample of a video with the texts of some rows."""
        texts = self._texts_of(video, rows, epoch, draw)
        if len(rows) == 1:  # a row may become several texts
            rows = rows * len(texts)
        return Sample(clip, texts, rows, video, self.table.path(video), failed)

    def _texts_of(self, video: int, rows: list[int], epoch: int, draw: int) -> list[str]:
        """The texts of a sample, cleaned."""
        return [self.clean(self.table.texts[row]) for row in rows]

    def _span(self, video: int, epoch: int, draw: int) -> tuple[float | None, float | None]:
        """Start and end, in seconds, of the part of a video that a sample shows. DecodeError if there is none."""
        return self.table.span(video)

    @property
    def _part_is_random(self) -> bool:
        """Whether each epoch shows other frames of a video."""
        return self.sampling in sampling.RANDOM_SAMPLERS

    def _failure(self, error: decode.DecodeError) -> Failure:
        return {
            "video": error.path,
            "reason": error.reason,
            "excluded": error.path in self._excluded,
        }

    def _training_sample(self, epoch: int, item: int, draw: int) -> Sample:
        """The sample of an item, or of the first one that may replace it and whose video can be read."""
        failed: dict[int, Failure] = {}
        for candidate, candidate_draw in self._candidates(epoch, item, draw):
            # An item is a video with all of its texts, or one row of the table: a text and its video.
            video = candidate if self._texts == "all" else int(self.table.text_video[candidate])
            if video in failed:
                continue

            try:
                clip = self._clip(video, epoch, candidate_draw)
            except decode.DecodeError as error:
                failed[video] = self._failure(error)
                continue

            rows = self._rows_of(video) if self._texts == "all" else [candidate]
            return self._sample(clip, video, rows, list(failed.values()), epoch=epoch, draw=candidate_draw)

        first = next(iter(failed.values()))
        raise ValueError(
            f"{len(failed)} videos drawn one after the other cannot be read, the first is {first['video']} "
            f"({first['reason']}); check the files of the manifest"
        )

    def _rows_of(self, video: int) -> list[int]:
        """The rows of a video's texts, in the order of the table."""
        assert self._rows is not None
        return self._rows[self._first_row[video] : self._first_row[video + 1]].tolist()

    def _candidates(self, epoch: int, item: int, draw: int) -> Iterator[tuple[int, int]]:
        """The item itself, then distinct ones that may replace it; each with what its own randomness follows from."""
        yield item, draw
        rng = sampling.generator("replacement", self.seed, epoch, draw)
        others = rng.choice(len(self), min(len(self), MAX_TRIES), replace=False).tolist()
        yield from zip(others, others, strict=True)

    def _clip(self, video: int, epoch: int, draw: int) -> Clip:
        """The clip as the model gets it; `DecodeError` if the file cannot be read.

        A file that is excluded, or could not be read before, is not opened again.
        """
        path = self.table.path(video)
        known_reason = self._excluded.get(path) or self._reasons.get(video)
        if known_reason is not None:
            raise decode.DecodeError(path, known_reason)

        try:
            with told_of(self._line, path):
                pixels, times = self._pixels(video, epoch, draw)
        except decode.DecodeError as error:
            # Other frames of the file may be readable. Where frames are random, the result must not depend on which
            # of them this process has tried. And a server that is down today may be up tomorrow.
            if not (self._part_is_random or error.passing):
                self._reasons[video] = error.reason
            raise
        except Exception as error:
            error.add_note(f"while reading {path}")
            raise

        if self.windows is not None:
            # Frames come in order of time: all windows' first frames, then their second ones.
            pixels = pixels.unflatten(0, (self.num_frames, -1)).transpose(0, 1)
            times = times.unflatten(0, (self.num_frames, -1)).transpose(0, 1)

        extras = {name: extra(self.table, video, times) for name, extra in self.extras.items()}
        return Clip(pixels, times, extras)

    def _pixels(self, video: int, epoch: int, draw: int) -> tuple[Tensor, Tensor]:
        """Pixels (T, 3, size, size) and times (T,) of a clip, augmented in training."""
        if self.framing.augment != "operations":
            return self._read(video, epoch, draw)

        rng = sampling.generator("augmentation", self.seed, epoch, draw)
        if decode.is_still(self.table.file(video)):
            image = decode.read_image(self.table.file(video))
            return self._reader.still(transforms.augment_image(image, self.framing.size, rng))
        pixels, times = self._read(video, epoch, draw)
        return transforms.augment_clip(pixels, self.framing.size, rng), times

    def _read(self, video: int, epoch: int, draw: int) -> tuple[Tensor, Tensor]:
        """The clip before operations, from the cache if it is there."""
        if self._cache is None:
            return self._decode(video, epoch, draw)
        cached = self._cache.get(video)
        if cached is not None:
            return cached

        pixels, times = self._decode(video, epoch, draw)
        self._cache.put(video, pixels, times)
        return pixels, times

    def _decode(self, video: int, epoch: int, draw: int) -> tuple[Tensor, Tensor]:
        """The clip before operations, from its file."""
        if video in self._read_ahead:
            return self._read_ahead.pop(video)
        file, new_rng = self.table.file(video), self._rng_of_pixels(epoch, draw)
        if decode.is_still(file):
            return self._reader.image(file, new_rng)
        return self._reader.parts(file, [self._part(video, epoch, draw)], new_rng, self._beat)[0]

    def _part(self, video: int, epoch: int, draw: int) -> decode.Part:
        """Which frames of a video are read. DecodeError if the sample shows no part of it."""
        return decode.Part(self._chooser(video, epoch, draw), *self._span(video, epoch, draw))

    def _rng_of_pixels(self, epoch: int, draw: int) -> NewGenerator:
        """What all pixels of a clip are drawn by."""
        return partial(sampling.generator, "augmentation", self.seed, epoch, draw)

    @property
    def _beat(self) -> decode.Beat | None:
        return None if self._line is None else self._line.beat

    def _chooser(self, video: int, epoch: int, draw: int) -> decode.ChooseFrames:
        """What chooses the frames of a video, given its length."""
        if self.windows is not None:
            return partial(self.windows.frames, self.num_frames)
        new_rng = partial(sampling.generator, "frames", self.seed, epoch, draw)
        return sampling.chooser(self.sampling, self.num_frames, new_rng)

    def _new_cache(self, cache_bytes: int) -> ClipCache:
        check_cacheable(self.sampling, self._part_is_random, self.framing)
        return ClipCache(self.table.num_videos, self.num_frames, self.framing.read_size, cache_bytes)
