"""Extraction on Ray Data: rows are clips by their paths, never pixels; an actor holds the model and reads them itself.

Features never go through Ray. Actors write them as parts into the feature folder, which all nodes have to share, with
the videos, the checkpoint and this repository.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from datasets.loaders import evaluation_loader
from datasets.progress import FileProgress
from engine.folder_lock import only_writer
from engine.hub import SCHEME
from inference.features.encode import dataset_of, rows_at_once
from inference.features.extract import (
    ExtractionRequest,
    arrays_of,
    counts_of,
    encode_batches,
    extraction_of,
    load,
    requested_clips,
)
from inference.features.folder import FeatureFolder
from inference.features.sources import Clip

ROOT = Path(__file__).resolve().parents[2]
REMEDY = "run `pip install ray pandas pyarrow`, or take --engine hosts, which needs nothing"
BATCHES_AT_ONCE, ROWS_AN_ACTOR, MOST_ROWS = 8, 4, 4096
"""Batches in a row of the table at most, rows for each actor at least, and rows of the table at most."""
MOST_ATTEMPTS = 10
"""Actors that may die over the same clips before these are given up."""
ATTEMPTS = ".attempts"
STORE_BYTES = 100 * 2**20
"""The object store of a Ray that this process starts: only paths and counts go through it."""
Row = dict[str, Any]


def run_on_ray(request: ExtractionRequest, address: str | None, actors: int | None) -> dict[str, Any]:
    """Extract the requested features with so many actors, by default one a GPU, and return the counts.

    `address` is that of a running cluster; without it a Ray of this machine starts and ends with the extraction.
    """
    if request.workers < 1:
        raise ValueError("--workers: 0 reads in the actor itself, which a bad file could end; give 1 or more")
    ray, begun = _import_ray(), time.monotonic()
    request = _absolute(request)
    clips = requested_clips(request)

    with _connected(ray, address, actors or 1):
        resources, num_actors = _resources(ray, actors)
        try:
            # The precision follows from the actors' device, which may not be this process's.
            if resources["num_gpus"]:
                extraction = ray.get(ray.remote(**resources, max_calls=1)(_extraction).remote(request))
            else:
                extraction = _extraction(request, torch.device("cpu"))
            folder = FeatureFolder(request.out, tuple(extraction["arrays"]), request.parquet)
            folder.check_nobody_shares()

            with only_writer(folder.out):
                folder.begin(extraction)
                done = set(folder.places())
                left = [clip for clip in clips if clip not in done]
                rows = _rows(left, request.batch_size, num_actors)
                encoder = {"request": request, "arrays": folder.arrays, "num_clips": len(clips)}
                reasons = _encode(ray, rows, encoder, num_actors, resources) if left else {}
                folder.finish(clips, reasons)
        except ray.exceptions.RayTaskError as error:
            raise ValueError(f"--engine ray: {error.cause}") from error
        except ray.exceptions.RayError as error:
            raise ValueError(f"--engine ray: {error}; the same command resumes") from error

    return counts_of(folder, request, clips, left, begun)


def _absolute(request: ExtractionRequest) -> ExtractionRequest:
    """The request with absolute paths, since actors may run in another folder."""
    is_local = not request.checkpoint.startswith(SCHEME)
    source, videos = request.source, request.videos
    return replace(
        request,
        source=source.absolute() if isinstance(source, Path) else source,
        videos=videos.absolute() if isinstance(videos, Path) else videos,
        checkpoint=str(Path(request.checkpoint).absolute()) if is_local else request.checkpoint,
        out=request.out.absolute(),
        config=None if request.config is None else request.config.absolute(),
    )


def _import_ray() -> ModuleType:
    try:
        import pandas  # noqa: F401  # Ray Data needs both, and names neither
        import pyarrow  # noqa: F401
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(f"--engine ray: {error.name} is not installed; {REMEDY}") from None
    return ray


@contextmanager
def _connected(ray: ModuleType, address: str | None, actors: int) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine: without dashboard, and it reports to nobody."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Workers have to find this repository, and its `datasets` before any library of that name.
    arguments: dict[str, Any] = {
        "runtime_env": {"env_vars": {"PYTHONPATH": str(ROOT)}},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if address is None:
        cpus = max(actors * torch.get_num_threads(), os.cpu_count() or 1) + 1
        arguments |= {"num_cpus": cpus, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong comes as an error, or in a reason
    else:
        arguments["address"] = address

    try:
        ray.init(**arguments)
    except (ConnectionError, OSError, RuntimeError) as error:
        raise ValueError(f"--engine ray: cannot connect to {address or 'a Ray of this machine'} ({error})") from error
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False  # there is one of ours
        yield
    finally:
        ray.shutdown()


def _resources(ray: ModuleType, actors: int | None) -> tuple[dict[str, float], int]:
    """What an actor reserves, and how many actors there are; ValueError if the cluster has not so much."""
    cluster = ray.cluster_resources()
    gpus = int(cluster.get("GPU", 0))
    each: dict[str, float] = {"num_cpus": 1, "num_gpus": 1}
    if not gpus:
        each = {"num_cpus": torch.get_num_threads(), "num_gpus": 0}
    number = actors or max(gpus, 1)
    for name, key in (("CPU", "num_cpus"), ("GPU", "num_gpus")):
        if number * each[key] > cluster.get(name, 0):
            raise ValueError(
                f"--actors: {number} need {number * each[key]:g} {name}s and the cluster has {cluster.get(name, 0):g}; "
                "give fewer, or fewer threads with OMP_NUM_THREADS"
            )
    return each, number


def _extraction(request: ExtractionRequest, device: torch.device | None = None) -> dict[str, Any]:
    """Where the features come from, as an actor's model says it."""
    model = load(request, device=device)
    return extraction_of(model, request, arrays_of(model, request.tokens))


def _rows(left: list[Clip], batch_size: int, actors: int) -> list[Row]:
    """The clips as rows of a table, whole batches in each."""
    batches = -(-len(left) // batch_size)
    at_once = min(BATCHES_AT_ONCE, -(-batches // (actors * ROWS_AN_ACTOR)))
    size = batch_size * max(1, at_once, -(-batches // MOST_ROWS))
    parts = {first: left[first : first + size] for first in range(0, len(left), size)}
    return [
        {
            "number": first,
            "count": len(part),
            "clips": json.dumps([asdict(clip) for clip in part]),
        }
        for first, part in parts.items()
    ]


def _encode(
    ray: ModuleType, rows: list[Row], encoder: dict[str, Any], actors: int, resources: dict[str, float]
) -> dict[str, str]:
    """Encode the clips of all rows; returns why files could not be read, by path."""
    out = encoder["request"].out
    (out / ATTEMPTS).mkdir(exist_ok=True)
    for left_over in (out / ATTEMPTS).iterdir():
        left_over.unlink()

    # Ray restarts an actor that dies, and gives its row to another.
    table = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Encoder,
        fn_constructor_kwargs={**encoder, "threads": torch.get_num_threads(), "on_gpu": resources["num_gpus"] > 0},
        compute=ray.data.ActorPoolStrategy(size=actors),
        **resources,
    )
    reasons: dict[str, str] = {}
    progress = FileProgress(sum(row["count"] for row in rows), "videos or windows")
    for row in table.iter_rows():
        reasons |= json.loads(row["reasons"])
        progress.advance(row["count"])
    progress.close()

    for left_over in (out / ATTEMPTS).iterdir():
        left_over.unlink()
    (out / ATTEMPTS).rmdir()
    return reasons


class _Encoder:
    """An actor: a model that encodes row after row."""

    def __init__(
        self, request: ExtractionRequest, arrays: tuple[str, ...], num_clips: int, threads: int, on_gpu: bool
    ) -> None:
        torch.set_num_threads(threads)
        self.request = request
        self.model = load(request, device=None if on_gpu else torch.device("cpu"))
        self.folder = FeatureFolder(request.out, arrays)
        self.rows = rows_at_once(self.model, request.batch_size, num_clips)

    def __call__(self, row: Row) -> Row:
        clips = [Clip(**fields) for fields in json.loads(row["clips"])]
        done, attempt = {"count": row["count"]}, self._attempt(row["number"])
        if attempt >= MOST_ATTEMPTS:
            reason = f"{attempt} actors ended while they encoded it and its neighbours"
            return {**done, "reasons": json.dumps({clip.video: reason for clip in clips})}

        # An actor that died may have written some of them.
        if attempt:
            places = self.folder.places()
            clips = [clip for clip in clips if clip not in places]
        return {**done, "reasons": json.dumps(self._encode(clips) if clips else {})}

    def _attempt(self, number: int) -> int:
        """How many actors have begun this row before."""
        for attempt in range(MOST_ATTEMPTS):
            try:
                (self.folder.out / ATTEMPTS / f"{number}.{attempt}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return attempt
        return MOST_ATTEMPTS

    def _encode(self, clips: list[Clip]) -> dict[str, str]:
        progress = FileProgress(len(clips), "videos or windows", shown=False)
        loader = evaluation_loader(
            dataset_of(self.model, clips),
            batch_size=self.request.batch_size,
            rank=0,
            world_size=1,
            workers=self.request.workers,
            sample_timeout=self.request.sample_timeout,
            timeout_per_frame=True,
        )
        return encode_batches(self.model, self.folder, clips, loader, self.rows, progress)
