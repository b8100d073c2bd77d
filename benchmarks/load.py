"""Loading: seconds a clip from files to batches on the device, against bare decoding in as many processes.

Also how opening a manifest grows with its rows.
"""

import itertools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import videos
from benchmarks.measure import Case, Child, Variant
from benchmarks.settings import Settings, sections
from configs.schema import VideoConfig
from datasets import sources
from datasets.framing import Framing
from datasets.loaders import TrainLoader
from datasets.pairs import PairTable
from datasets.records import VideoTextRecord
from datasets.video_text import VideoTextDataset
from engine.host_memory import keep_freed_memory

WORKERS = (1, 2)
BATCH_SIZE = 4
CLIPS = 48
"""Of one epoch; an epoch begins with nothing prefetched, and ends when the slower worker does."""
CAPTION = "two people carry a ladder across the yard and lean it against the wall of a red barn"


def cases(settings: Settings) -> list[Case]:
    """With one worker and with two; with pre-training's augmentation too, which the limit does without.

    Augmentation crops, so there is no such case where `video.resize` is less than the image.
    """
    video = sections(settings)[1]
    paths = list(itertools.islice(itertools.cycle(videos.paths(videos.folder(settings))), CLIPS))
    found = []
    for workers in WORKERS:
        arguments = {"paths": paths, "workers": workers}
        found.append(
            Case(
                f"load, {workers} worker{'s' if workers > 1 else ''}",
                ours=Variant(f"{__name__}:ours", {**arguments, "augment": False}),
                naive=Variant(f"{__name__}:naive", arguments),
                limit=Variant(f"{__name__}:limit", {**arguments, "augment": False}),
            )
        )

    if video.resize >= video.image_size:
        augmented = {"paths": paths, "workers": WORKERS[-1], "augment": True}
        variants = {way: Variant(f"{__name__}:{way}", augmented) for way in ("ours", "limit")}
        found.append(Case(f"load, {WORKERS[-1]} workers, augmented", **variants))

    return found


def ours(settings: Settings, paths: list[str], workers: int, augment: bool) -> Callable[[], float]:
    """Seconds a clip of an epoch through `TrainLoader`."""
    keep_freed_memory()
    loader, epochs = our_loader(settings, paths, workers, augment), itertools.count()
    return lambda: _seconds_a_clip(_whole(loader.epoch(next(epochs))), settings.device)


def our_loader(settings: Settings, paths: list[str], workers: int, augment: bool) -> TrainLoader:
    """Whole videos, each with a caption, and the frames that evaluation takes."""
    video = sections(settings)[1]
    data = VideoTextDataset(
        PairTable.of([VideoTextRecord(path, (CAPTION,)) for path in paths]),
        num_frames=video.num_frames,
        framing=Framing(video.image_size, resize=video.resize, augment="operations" if augment else "none"),
        sampling=video.eval_sampling,
        seed=0,
        training=True,
    )
    return TrainLoader(data, batch_size=BATCH_SIZE, accumulate=1, seed=0, rank=0, world_size=1, workers=workers)


def _whole(batches: Iterable[dict[str, Any]]) -> Iterable[Tensor]:
    for batch in batches:
        if batch["failed"]:
            raise ValueError(f"--data: {batch['failed'][0]} cannot be read; take it out of the manifest")
        yield batch["clip"].pixels


class NaiveClips(Dataset):
    """The reference's data set: every item decoded and normalised to floats by a worker."""

    def __init__(self, paths: list[str], video: VideoConfig) -> None:
        self.paths, self.video, self.choose = paths, video, videos.chooser(video)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, str, int]:
        return videos.naive_clip(self.paths[index], self.video, self.choose), CAPTION, index


def naive(settings: Settings, paths: list[str], workers: int) -> Callable[[], float]:
    """Seconds a clip through the reference's loader, which starts its workers again in each epoch."""
    loader = naive_loader(settings, paths, workers)
    return lambda: _seconds_a_clip((clips for clips, _, _ in loader), settings.device)


def naive_loader(settings: Settings, paths: list[str], workers: int) -> DataLoader:
    """`DataLoader` as the reference calls it."""
    return DataLoader(
        NaiveClips(paths, sections(settings)[1]),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=workers,
        pin_memory=settings.device == "cuda",
        drop_last=True,
    )


def _seconds_a_clip(batches: Iterable[Tensor], device: str) -> float:
    """Time an epoch from its beginning until the last batch is on the device."""
    started, clips = time.perf_counter(), 0
    for batch in batches:
        clips += len(batch.to(device, non_blocking=True))
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / clips


def limit(settings: Settings, paths: list[str], workers: int, augment: bool) -> Callable[[], float]:
    """Seconds a clip of decord's bare calls in as many processes, each taking the next file when it is free."""
    video = sections(settings)[1]
    choose, size = videos.chooser(video), video.resize if augment else video.image_size
    jobs = {path: videos.job(path, size, choose) for path in dict.fromkeys(paths)}
    decoders = RawDecoders(workers)
    return lambda: decoders.seconds([jobs[path] for path in paths]) / len(paths)


class RawDecoders:
    """Processes that decode and throw away. Spawned, so that no other holds their pipes: they end when this one does.

    Pickling their work costs microseconds, and no pixels come back.
    """

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        for _ in range(workers):
            here, there = context.Pipe()
            context.Process(target=_decode_until_closed, args=(there,), daemon=True).start()
            there.close()
            self._pipes.append(here)

    def seconds(self, jobs: Sequence[videos.Job]) -> float:
        """Decode all and wait for the last; RuntimeError where a file cannot be read."""
        started, waiting = time.perf_counter(), iter(jobs)
        busy: set[Connection] = set()
        for pipe, job in zip(self._pipes, waiting, strict=False):
            pipe.send(job)
            busy.add(pipe)

        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                failed = ready.recv()
                if failed is not None:
                    raise RuntimeError(failed)
                following = next(waiting, None)
                if following is None:
                    busy.remove(ready)
                else:
                    ready.send(following)

        return time.perf_counter() - started


def _decode_until_closed(pipe: Connection) -> None:
    keep_freed_memory()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            videos.raw_decord(job)
        except RuntimeError as error:  # decord's are among them
            pipe.send(f"{job.path}: {error}")
        else:
            pipe.send(None)


def manifest_growth(settings: Settings, counts: Sequence[int]) -> list[dict[str, Any]]:
    """For each count of rows {rows, seconds, peak_bytes, seconds_again}: a manifest is opened, then opened again.

    The first opening builds its index, the second finds it. The rows are made for it and go when it is measured; five
    million, with their index, take 1.5 GB of the temporary folder. Each count is measured once, in its own process.
    """
    found = []
    for rows in counts:
        with tempfile.TemporaryDirectory(prefix="benchmark-manifest-") as folder:
            path = Path(folder) / "captions.jsonl"
            write_manifest(path, rows)
            variant = Variant(f"{__name__}:open_manifest", {"path": str(path), "rows": rows})
            with Child(variant, settings) as child:
                first, again = child.call(), child.call()

        found.append(
            {
                "rows": rows,
                "seconds": first.seconds,
                "peak_bytes": first.peak_bytes,
                "seconds_again": again.seconds,
            }
        )

    return found


def write_manifest(path: Path, rows: int) -> None:
    """So many videos with a caption each, no two of either the same."""
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            file.write(json.dumps({"video": f"{row % 1000:03}/{row:09}.mp4", "caption": f"{CAPTION} {row}"}) + "\n")


def open_manifest(settings: Settings, path: str, rows: int) -> Callable[[], None]:
    """What a training does first with a manifest of pairs."""

    def work() -> None:
        table = sources.open_source(Path(path), Path(path).parent)
        assert len(table) == table.num_videos == rows

    return work
