"""Features on one machine: video-hours an hour by one process and by several that share the work, beside the limits.

    python -m benchmarks.extraction --checkpoint outputs/stories/checkpoint_best
    python -m benchmarks.extraction --checkpoint C --processes 1 2 4 --copies 32 --rounds 5 --json

The videos are made: 20 seconds each, 320 x 240, H.264. A process has one reader and one thread, and its imports are
done before the clock starts; loading the model and merging the features count. All ways take turns. Beside them stand

bare decoding   the decoder's own calls for the same frames, one thread in each of as many processes
encoding        the encoder alone, with pixels in memory, one thread in each of as many processes
limit           what follows from these two: all work shared evenly by the cores, but no process faster than its reader
                or its encoder alone

Seconds of the processors are counted too, readers among them: they tell the overhead where other programs are running.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import torch

from benchmarks import videos
from benchmarks.settings import Settings
from benchmarks.table import machine, usable_cores
from datasets.samples import Clip
from inference.api import load_model
from inference.features.encode import encode
from inference.features.engines import Engine, run_on
from inference.features.extract import ExtractionRequest
from scripts.parts.arguments import at_least

BATCH_SIZE = 8


@dataclass(frozen=True)
class Request:
    """What is measured: `copies` of each made video, by each number of `processes`."""

    checkpoint: str
    processes: tuple[int, ...]
    copies: int
    rounds: int
    as_json: bool


@dataclass(frozen=True)
class Row:
    """One number of processes: medians of seconds for all videos, and video-hours in an hour.

    Names in `_cpu_s` are seconds of the processors, of all processes together.
    """

    processes: int
    local_s: float | None
    hosts_s: float
    decoding_s: float
    encoding_s: float
    limit_s: float
    hosts_cpu_s: float
    decoding_cpu_s: float
    encoding_cpu_s: float
    video_hours_an_hour: float
    decoding_over_hosts: float
    limit_over_hosts: float
    work_over_hosts_cpu: float


class Crew:
    """So many processes that do the same kind of work at the same time; a context manager that ends them."""

    def __init__(self, checkpoint: str, folder: Path, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for number in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, checkpoint, folder, number, size))
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.recv()  # imports are done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()

    def time(self, work: str, out: Path) -> tuple[float, float]:
        """How long it takes until the last of them is done, and the seconds of the processors."""
        shutil.rmtree(out, ignore_errors=True)
        started = time.perf_counter()
        for pipe in self.pipes:
            pipe.send((work, out))
        processor_seconds = sum(pipe.recv() for pipe in self.pipes)
        return time.perf_counter() - started, processor_seconds


def serve(pipe: Connection, checkpoint: str, folder: Path, number: int, size: int) -> None:
    """Do what comes through the pipe, until None comes."""
    multiprocessing.set_start_method("fork", force=True)  # of readers, as in a process of its own
    torch.set_num_threads(1)
    model = load_model(checkpoint, device="cpu")
    video = model.config.video
    own = [str(path) for path in sorted(folder.iterdir())][number::size]
    jobs = [videos.job(path, video.image_size, videos.chooser(video)) for path in own]
    shape = (BATCH_SIZE, video.num_frames, 3, video.image_size, video.image_size)
    clips = Clip.of_pixels(torch.randint(0, 256, shape, dtype=torch.uint8))

    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        (work, out), before = order, processor_seconds()
        if work == "decoding":
            for job in jobs:
                videos.raw_pyav(job)
        elif work == "encoding":
            for _ in range(len(own) // BATCH_SIZE):
                encode(model, ("embeddings",), clips, 1)
        else:
            request = ExtractionRequest(source=folder, checkpoint=checkpoint, out=out, batch_size=BATCH_SIZE, workers=1)
            run_on(Engine(work), request)
        pipe.send(processor_seconds() - before)


def processor_seconds() -> float:
    """What this process and its children that have ended have used of the processors."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(request: Request) -> list[Row]:
    """Time all ways in turns."""
    with tempfile.TemporaryDirectory(prefix="benchmark-extraction-") as name, ExitStack() as stack:
        root = Path(name)
        folder = make_videos(root, request.copies)
        crews = {size: stack.enter_context(Crew(request.checkpoint, folder, size)) for size in request.processes}

        times: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for turn in range(request.rounds + 1):
            for size, crew in crews.items():
                for work in ("hosts", "decoding", "encoding", *(("local",) if size == 1 else ())):
                    passed = crew.time(work, root / "out")
                    if turn:  # the first one warms up
                        times.setdefault((size, work), []).append(passed)

        medians = {}
        for (size, work), values in times.items():
            medians[size, work], medians[size, f"{work}_cpu"] = map(statistics.median, zip(*values, strict=True))
        hours = len(list(folder.iterdir())) * videos.FRAMES / videos.FPS / 3600
        return [row_of(size, medians, hours) for size in request.processes]


def row_of(size: int, medians: dict[tuple[int, str], float], hours: float) -> Row:
    """The medians of one number of processes, and the limit."""
    decoding, encoding, hosts = (medians[size, work] for work in ("decoding", "encoding", "hosts"))
    hosts_cpu, decoding_cpu, encoding_cpu = (medians[size, f"{work}_cpu"] for work in ("hosts", "decoding", "encoding"))

    # Decoding and encoding alone have used one core a process, as far as there are so many.
    used = min(size, usable_cores())
    limit = max(decoding, encoding, (decoding + encoding) * used / usable_cores())
    return Row(
        processes=size,
        local_s=medians.get((size, "local")),
        hosts_s=hosts,
        decoding_s=decoding,
        encoding_s=encoding,
        limit_s=limit,
        hosts_cpu_s=hosts_cpu,
        decoding_cpu_s=decoding_cpu,
        encoding_cpu_s=encoding_cpu,
        video_hours_an_hour=hours / hosts * 3600,
        decoding_over_hosts=decoding / hosts,
        limit_over_hosts=limit / hosts,
        work_over_hosts_cpu=(decoding_cpu + encoding_cpu) / hosts_cpu,
    )


def make_videos(root: Path, copies: int) -> Path:
    """A folder with so many copies of each made H.264 video."""
    videos.make(root)
    folder = root / "copies"
    folder.mkdir()
    for number in range(copies):
        for path in (root / "videos").glob("*.mp4"):
            (folder / f"{number:04d}_{path.name}").hardlink_to(path)
    return folder


def parse_arguments(arguments: list[str] | None = None) -> Request:
    """Read the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder or hf:// address")
    parser.add_argument(
        "--processes", type=at_least(1), nargs="+", default=[1, 2], help="how many share the work (default: 1 2)"
    )
    parser.add_argument("--copies", type=at_least(4), default=16, help="of each of four videos (%(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="how often each way is timed (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects, times in seconds")
    options = parser.parse_args(arguments)
    return Request(options.checkpoint, tuple(options.processes), options.copies, options.rounds, options.json)


def main() -> None:
    """Measure and print."""
    request = parse_arguments()
    rows = measure(request)
    if request.as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print(machine(Settings(None, (), "cpu", 1, request.rounds)))
    for row in rows:
        print(f"\n{in_words(row)}")


def in_words(row: Row) -> str:
    """A row for people to read."""
    lines = [
        f"{row.processes} processes: {row.hosts_s:.2f} s, {row.video_hours_an_hour:,.0f} video-hours an hour",
        f"bare decoding {row.decoding_s:.2f} s, {row.decoding_over_hosts:.2f} of it; encoding {row.encoding_s:.2f} s",
        f"limit {row.limit_s:.2f} s, {row.limit_over_hosts:.2f} of it",
        f"seconds of the processors: {row.hosts_cpu_s:.2f}; decoding {row.decoding_cpu_s:.2f} and encoding "
        f"{row.encoding_cpu_s:.2f} are {row.work_over_hosts_cpu:.2f} of them",
    ]
    if row.local_s is not None:
        lines.append(f"with --engine local {row.local_s:.2f} s")
    return "\n    ".join(lines)


if __name__ == "__main__":
    main()
