"""Records as samples: read, sample, clean up, augment; a file that cannot be read is remembered and replaced."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from configs.sizes import format_bytes
from datasets import decode, sampling, transforms
from datasets.pairs import PairTable
from datasets.reading import Line

Sample = dict[str, Any]
Failure = dict[str, Any]

MAX_TRIES = 100
"""So many items in place of one that cannot be read; a data set of which none of these can be read is lost."""


class VideoTextDataset(Dataset):
    """Clips and texts.

    In training an item is a pair of a video and one of its texts, asked for as `dataset[epoch, row]`, and everything
    random in it follows from (seed, epoch, row) alone. An epoch that shows a row several times asks for it as
    `dataset[epoch, row, draw]`, and `draw` takes the place of the row in what is random. In evaluation an item is a
    video with its first text, `dataset[index]`; `captions` and `caption_video` then hold all texts.

    A sample is `{"video": uint8 (T, 3, H, W) of any strides, "text": str, "index": position of the video, "row":
    position of the text, "name": path of the video, "failed": [...]}`, with `{"video": path, "reason": one line,
    "excluded": bool}` for each one that could not be read. Such a video is replaced in training, by a row that follows
    from (seed, epoch, draw) too and is then the sample's `row`; in evaluation its `video` is None. Each process opens
    such a file once, or once an item where sampling is random; what is excluded is not opened.

    Args:
        clean: what is done to every text; it is given to worker processes, so no nested function.
        sampling: one of `sampling.SAMPLERS`.
        augment: read videos at `resize` pixels, crop and transform them as in pre-training; for training only.
        cache_bytes: keep the clips, before augmentation, in memory that all workers share, except for images that are
            augmented; ValueError if they need more.
    """

    def __init__(
        self,
        table: PairTable,
        *,
        num_frames: int,
        image_size: int,
        sampling: str,
        seed: int,
        clean: Callable[[str], str] = str,
        training: bool,
        augment: bool = False,
        resize: int = 256,
        cache_bytes: int | None = None,
    ) -> None:
        assert len(table), "no records"
        assert training or not augment, "evaluation is not augmented"
        self.table = table
        self.clean = clean
        self.num_frames = num_frames
        self.image_size = image_size
        self.sampling = sampling
        self.seed = seed
        self.training = training
        self.augment = augment
        self.read_size = resize if augment else image_size
        self._reasons: dict[int, str] = {}
        self._excluded: dict[str, str] = {}
        self._line: Line | None = None
        self._cache = None if cache_bytes is None else self._new_cache(table.num_videos, cache_bytes)
        # Of the texts of each video the first; training has no use for it.
        self._first_row = None if training else np.unique(table.text_video, return_index=True)[1]

    def __len__(self) -> int:
        return len(self.table) if self.training else self.table.num_videos

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
            assert self.training, "evaluation takes an index, not (epoch, row)"
            epoch, row, *draw = item
            return self._training_sample(epoch, row, *draw or (row,))
        assert self._first_row is not None, "training takes (epoch, row)"
        row, failed, clip = int(self._first_row[item]), [], None
        try:
            clip = self._clip(item, epoch=0, draw=item)
        except decode.DecodeError as error:
            failed.append(self._failure(error))
        return self._sample(clip, row, failed)

    def frame_times(self, video: int) -> np.ndarray:
        """When each frame of a video's clip in evaluation is shown, (T,) in seconds from the video's first frame.

        Zeros for an image. `decode.DecodeError` if the file does not say.
        """
        assert not self.training, "training takes other frames each epoch"
        if decode.is_still(self.table.file(video)):
            return np.zeros(self.num_frames)
        choose = partial(self._choose, 0, video)
        return decode.read_times(self.table.file(video), choose, *self.table.span(video))

    def watch(self, line: Line) -> None:
        """Have on this line of a worker's which file is read."""
        self._line = line

    def exclude(self, reasons: Mapping[str, str]) -> bool:
        """Open these paths no more, each for a reason; whether any of them is new."""
        new = {path: reason for path, reason in reasons.items() if path not in self._excluded}
        self._excluded |= new
        return bool(new)

    def _sample(self, clip: Tensor | None, row: int, failed: list[Failure]) -> Sample:
        index = int(self.table.text_video[row])
        return {
            "video": clip,
            "text": self.clean(self.table.texts[row]),
            "index": index,
            "row": row,
            "name": self.table.path(index),
            "failed": failed,
        }

    def _failure(self, error: decode.DecodeError) -> Failure:
        return {"video": error.path, "reason": error.reason, "excluded": error.path in self._excluded}

    def _training_sample(self, epoch: int, row: int, draw: int) -> Sample:
        failed: dict[int, Failure] = {}
        for candidate, candidate_draw in self._candidates(epoch, row, draw):
            video = int(self.table.text_video[candidate])
            if video in failed:
                continue
            try:
                clip = self._clip(video, epoch, candidate_draw)
            except decode.DecodeError as error:
                failed[video] = self._failure(error)
                continue
            return self._sample(clip, candidate, list(failed.values()))
        first = next(iter(failed.values()))
        raise ValueError(
            f"{len(failed)} videos drawn one after the other cannot be read, the first is {first['video']} "
            f"({first['reason']}); check the files of the manifest"
        )

    def _candidates(self, epoch: int, row: int, draw: int) -> Iterator[tuple[int, int]]:
        """The row itself, then distinct rows that may replace it; with each what its own randomness follows from."""
        yield row, draw
        rng = sampling.generator("replacement", self.seed, epoch, draw)
        others = rng.choice(len(self), min(len(self), MAX_TRIES), replace=False).tolist()
        yield from zip(others, others, strict=True)

    def _clip(self, video: int, epoch: int, draw: int) -> Tensor:
        """The clip as the model gets it. DecodeError, from memory the second time, if the file cannot be read."""
        path = self.table.path(video)
        known = self._excluded.get(path) or self._reasons.get(video)
        if known is not None:
            raise decode.DecodeError(path, known)
        rng = sampling.generator("augmentation", self.seed, epoch, draw)
        try:
            with self._reading(path):
                if self.augment and decode.is_still(self.table.file(video)):
                    image = transforms.augment_image(decode.read_image(self.table.file(video)), self.image_size, rng)
                    return image.expand(self.num_frames, -1, -1, -1)
                clip = self._read(video, epoch, draw)
                return transforms.augment_clip(clip, self.image_size, rng) if self.augment else clip
        except decode.DecodeError as error:
            # Other frames of it may be readable: with random ones, what a process has seen must not decide.
            if self.sampling not in sampling.RANDOM_SAMPLERS:
                self._reasons[video] = error.reason
            raise
        except Exception as error:
            error.add_note(f"while reading {path}")
            raise

    def _reading(self, path: str) -> AbstractContextManager[None]:
        return nullcontext() if self._line is None else self._line.reading(path)

    def _read(self, video: int, epoch: int, draw: int) -> Tensor:
        """The clip before augmentation, from the cache if it is there."""
        if self._cache is not None and self._cache.filled[video]:
            return self._cache.clips[video]
        if decode.is_still(self.table.file(video)):
            image = transforms.resize_image(decode.read_image(self.table.file(video)), self.read_size)
            clip = image.expand(self.num_frames, -1, -1, -1)
        else:
            choose = partial(self._choose, epoch, draw)
            clip = decode.read_video(self.table.file(video), self.read_size, choose, *self.table.span(video))
        if self._cache is not None:
            self._cache.put(video, clip)
        return clip

    def _choose(self, epoch: int, draw: int, length: int) -> np.ndarray:
        # A new generator each time: the second decoder has to get what the first one got.
        rng = sampling.generator("frames", self.seed, epoch, draw)
        return sampling.SAMPLERS[self.sampling](self.num_frames, length, rng)

    def _new_cache(self, num_videos: int, cache_bytes: int) -> "ClipCache":
        if self.sampling in sampling.RANDOM_SAMPLERS:
            raise ValueError(
                f"data.cache: memory has no effect with {self.sampling} sampling, which takes other frames each epoch; "
                "set data.cache=none"
            )
        shape = (num_videos, self.num_frames, 3, self.read_size, self.read_size)
        needed = int(np.prod(shape, dtype=np.int64))
        if needed > cache_bytes:
            raise ValueError(
                f"data.cache_gb: {num_videos} clips of {self.num_frames} frames of {self.read_size} pixels need "
                f"{format_bytes(needed)}, more than {format_bytes(cache_bytes)}; raise it to "
                f"{needed / 2**30:.3g} or set data.cache=none"
            )
        return ClipCache(shape)


class ClipCache:
    """Clips in memory that forked and spawned workers share.

    Two workers may fill a place at once, with the same bytes, and a place counts only after it is filled: so no lock.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        try:
            self.clips = torch.zeros(shape, dtype=torch.uint8).share_memory_()
        except RuntimeError as error:
            raise ValueError(
                f"data.cache: no shared memory for the clips ({error}); make /dev/shm larger or set data.cache=none"
            ) from None
        self.filled = torch.zeros(shape[0], dtype=torch.bool).share_memory_()

    def put(self, position: int, clip: Tensor) -> None:
        """Keep a clip at its position."""
        self.clips[position] = clip
        self.filled[position] = True


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """One batch: `video` uint8 (B, T, 3, H, W), `text`, `index` and `row` int64 (B,), `names` of the videos, `failed`.

    Samples without a clip are left out; of none `video` is None. Clips lie as they were read, repeated or cropped: this
    copies them for the first and only time, row by row, in a worker into the memory that it shares with the trainer.
    """
    whole = [sample for sample in samples if sample["video"] is not None]
    return {
        "video": default_collate([sample["video"] for sample in whole]) if whole else None,
        "text": [sample["text"] for sample in whole],
        "index": torch.tensor([sample["index"] for sample in whole], dtype=torch.int64),
        "row": torch.tensor([sample["row"] for sample in whole], dtype=torch.int64),
        "names": [sample["name"] for sample in whole],
        "failed": [failure for sample in samples for failure in sample["failed"]],
    }
