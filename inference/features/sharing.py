"""Share an extraction among any number of processes on any number of hosts, which only have its folder in common.

job/plan.json       a name of this job, and which clips belong to each claim: positions in the list
job/clips.jsonl     all clips that are asked for, in the order of the rows
job/claims/ ...     who does what: `engine/claims.py`

Whoever comes first makes the plan, and all others follow it. The one that finds all clips done merges the features and
removes the job, at which the others end. Each of these steps is claimed, so a process that dies leaves nothing undone.
"""

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.progress import FileProgress
from datasets.samples import collate
from datasets.watching import BatchLists, WatchedLoader
from engine.checkpoint_folder import read_json, write_lines
from engine.claims import Claim, Claims, publish
from inference.api import TrainedModel
from inference.features.encode import dataset_of, encode, rows_at_once
from inference.features.extract import (
    ExtractionRequest,
    arrays_of,
    counts_of,
    extraction_of,
    load,
    requested_clips,
)
from inference.features.folder import JOB, FeatureFolder, PartWriter, read_clips
from inference.features.sources import Clip, with_addresses

PLAN, MERGE = "plan", "merge"
MOST_CLAIMS = 4096
"""Of one job: each is some small files in one folder."""
MOST_ATTEMPTS = 10
"""Processes that may die over the same clips before these are given up."""
MOST_JOINS = 5
POLL_SECONDS = 1.0


class _JobOver(Exception):
    """The job was merged and removed by another process."""


@dataclass(frozen=True)
class _Plan:
    """What all processes of a job agree on; `parts` are positions in `clips`, and `left` counts them."""

    name: str
    clips: list[Clip]
    parts: dict[str, list[int]]

    @property
    def left(self) -> list[Clip]:
        return [self.clips[position] for positions in self.parts.values() for position in positions]


def run_shared(request: ExtractionRequest, stale_after: float) -> dict[str, Any]:
    """Do a share of the extraction, wait for its end, and return the counts of all processes.

    Args:
        stale_after: seconds after which a process without a sign of life is dead; the same for all processes.
    """
    if request.workers < 1:
        raise ValueError("--workers: 0 reads in the process itself, which a bad file could end; give 1 or more")
    begun = time.monotonic()
    model = load(request)
    folder = FeatureFolder(request.out, arrays_of(model, request.tokens), request.parquet)
    folder.check_ours()
    extraction = extraction_of(model, request, folder.arrays)

    for _ in range(MOST_JOINS):
        claims = Claims(request.out / JOB, stale_after)
        with claims.alive():
            try:
                plan = _agreed_plan(claims, folder, request, extraction)
            except FileNotFoundError:
                continue  # the job ended while this process joined it

            share = _Share(claims, plan, folder, request, model)
            try:
                share.encode()
                share.merge()
            except (_JobOver, FileNotFoundError):
                # Another process has merged in the meantime; it may have taken this one for dead.
                if _is_going_on(claims.folder, plan):
                    raise
        return counts_of(folder, request, plan.clips, plan.left, begun)

    raise ValueError(f"{request.out}: others began and ended while this process joined them; give the command again")


def _agreed_plan(
    claims: Claims, folder: FeatureFolder, request: ExtractionRequest, extraction: dict[str, Any]
) -> _Plan:
    """The job's plan, made by this process if no other one does."""
    while PLAN not in claims.done():
        if claims.take([PLAN]) is None:
            time.sleep(POLL_SECONDS)
            continue
        try:
            clips = requested_clips(request)
            folder.begin(extraction)
            _make_plan(claims, folder, clips, request.batch_size)
        except ValueError:
            # The others would meet the same error. Let them find it out by themselves.
            _remove(claims.folder)
            raise

    folder.check(extraction)
    noted = read_json(claims.folder / "plan.json")
    clips = with_addresses(read_clips(claims.folder / "clips.jsonl"), request.source, request.videos)
    return _Plan(noted["name"], clips, noted["parts"])


def _make_plan(claims: Claims, folder: FeatureFolder, clips: list[Clip], batch_size: int) -> None:
    done = set(folder.places())
    left = [position for position, clip in enumerate(clips) if clip not in done]

    # Whole batches, and so many that the claims of a long list are not too many.
    batches = -(-len(left) // batch_size)
    size = batch_size * max(1, -(-batches // MOST_CLAIMS))
    parts = {f"{first:010d}": left[first : first + size] for first in range(0, len(left), size)}

    temporary = claims.folder / f".{uuid.uuid4().hex}"
    write_lines((clip.row for clip in clips), temporary)
    temporary.replace(claims.folder / "clips.jsonl")
    publish(claims.folder / "plan.json", json.dumps({"name": uuid.uuid4().hex, "parts": parts}))
    claims.finish(PLAN)


class _Share:
    """What one process does of a job."""

    def __init__(
        self, claims: Claims, plan: _Plan, folder: FeatureFolder, request: ExtractionRequest, model: TrainedModel
    ) -> None:
        self.claims, self.plan, self.folder, self.request, self.model = claims, plan, folder, request, model
        self.reasons: dict[str, str] = {}

    def encode(self) -> None:
        """Encode claim after claim until those of all processes are done."""
        data = dataset_of(self.model, self.plan.clips) if self.plan.parts else None
        progress = FileProgress(len(self.plan.parts), "claims of all hosts")
        while True:
            lists = _ClaimedBatches(self.claims, self.plan, self.folder, self.request.batch_size)
            if data is not None and lists.claim():
                loader = WatchedLoader(
                    data,
                    lists,
                    collate,
                    workers=self.request.workers,
                    sample_timeout=self.request.sample_timeout,
                    timeout_per_frame=True,
                    tell=progress.reading,
                )
                self._encode_batches(loader, lists, progress)

            # What is left now is claimed by others: wait for the end of their work, or of them.
            self._show(progress)
            if progress.done == progress.total:
                break
            self._sleep()
        progress.close()

    def _encode_batches(self, loader: WatchedLoader, lists: "_ClaimedBatches", progress: FileProgress) -> None:
        rows = rows_at_once(self.model, self.request.batch_size, len(self.plan.clips))
        writer = PartWriter(self.folder)
        for delivered, batch in enumerate(loader, start=1):
            self.reasons |= {failure["video"]: failure["reason"] for failure in batch["failed"]}
            if batch["clip"] is not None:
                progress.encoding(batch["names"])
                clips = [self.plan.clips[position] for position in batch["index"].tolist()]
                if writer.add(clips, encode(self.model, self.folder.arrays, batch["clip"], rows)):
                    self._finish(lists.ended_by(delivered))
                    self._show(progress)

        writer.write()
        self._finish(lists.ended_by(len(lists.lists)))

    def _finish(self, tasks: list[str]) -> None:
        """Note that what was claimed is written, with the files that could not be read."""
        for task in tasks:
            videos = {self.plan.clips[position].video for position in self.plan.parts[task]}
            self.claims.finish(task, {video: self.reasons[video] for video in sorted(videos & self.reasons.keys())})

    def _show(self, progress: FileProgress) -> None:
        progress.advance(len(self.plan.parts.keys() & self.claims.done()) - progress.done)

    def _sleep(self) -> None:
        time.sleep(min(POLL_SECONDS, self.claims.stale_after / 10))

    def merge(self) -> None:
        """Merge the features and remove the job, or wait until another process has done it."""
        claim = None
        while claim is None:
            claim = self.claims.take([MERGE])
            if not _is_going_on(self.claims.folder, self.plan):
                raise _JobOver
            if claim is None:
                self._sleep()

        if claim.attempt:
            self.folder.restore()  # the process before may have died while it replaced the features
        reasons: dict[str, str] = {}
        for task in self.plan.parts:
            reasons |= self.claims.result(task)
        self._wait_for_parts(reasons)
        self.folder.finish(self.plan.clips, reasons, lambda: self._check_is_ours(claim))
        _remove(self.claims.folder)

    def _wait_for_parts(self, reasons: dict[str, str]) -> None:
        """Wait until each clip has features or a reason: this host may see late what others have written (NFS)."""
        deadline = time.monotonic() + 2 * self.claims.stale_after
        while True:
            places = self.folder.places()
            missing = [clip for clip in self.plan.clips if clip not in places and clip.video not in reasons]
            if not missing:
                return
            if time.monotonic() > deadline:
                _remove(self.claims.folder)
                raise ValueError(
                    f"{self.folder.out}: the features of {missing[0].video} were written, and are gone; give the same "
                    "command again"
                )
            time.sleep(POLL_SECONDS)

    def _check_is_ours(self, claim: Claim) -> None:
        if not self.claims.is_ours(claim):
            raise _JobOver


class _ClaimedBatches(BatchLists):
    """Batches of the clips that this process claims, which it does when the readers ask for more.

    Attributes:
        lists: the batches claimed so far, positions in the plan's clips.
    """

    def __init__(self, claims: Claims, plan: _Plan, folder: FeatureFolder, batch_size: int) -> None:
        self.claims, self.plan, self.folder, self.batch_size = claims, plan, folder, batch_size
        self.lists: list[list[int]] = []
        self._ends: list[tuple[int, str]] = []

    def after(self, batches: int) -> Iterator[list[int]]:
        """The lists from this batch on, and those of new claims when they are used up."""
        while batches < len(self.lists) or self.claim():
            yield self.lists[batches]
            batches += 1

    def claim(self) -> bool:
        """Claim clips that are still to be encoded; False if others have claimed all that are left."""
        while (claim := self.claims.take(list(self.plan.parts))) is not None:
            positions = self.plan.parts[claim.task]
            if claim.attempt >= MOST_ATTEMPTS:
                reason = f"{claim.attempt} processes ended while they encoded it and its neighbours"
                self.claims.finish(claim.task, {self.plan.clips[position].video: reason for position in positions})
                continue

            # A process that died may have written some of them, or all.
            if claim.attempt:
                places = self.folder.places()
                positions = [position for position in positions if self.plan.clips[position] not in places]
                if not positions:
                    self.claims.finish(claim.task, {})
                    continue

            starts = range(0, len(positions), self.batch_size)
            self.lists += [positions[first : first + self.batch_size] for first in starts]
            self._ends.append((len(self.lists), claim.task))
            return True
        return False

    def ended_by(self, batches: int) -> list[str]:
        """The claims whose batches are all among the first so many; each is returned once."""
        ended = [task for end, task in self._ends if end <= batches]
        self._ends = [(end, task) for end, task in self._ends if end > batches]
        return ended


def _is_going_on(job: Path, plan: _Plan) -> bool:
    """Whether the job is still there; another one may have begun in its place."""
    try:
        return read_json(job / "plan.json")["name"] == plan.name
    except FileNotFoundError:
        return False


def _remove(job: Path) -> None:
    """Remove a job, for all processes at once."""
    gone = job.with_name(f"{JOB}.{uuid.uuid4().hex}")
    try:
        job.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)
