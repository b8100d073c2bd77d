"""Estimate a training run before it starts: steps, network traffic, loading, hours and checkpoints.

    python -m scripts.estimate_scale --config configs/testa/pretrain/testa_f8.yaml --processes 32 --pairs 5000000 \
        --step-seconds 1.5 --clip-seconds 0.05
    python -m scripts.estimate_scale --config configs/testa/retrieval/didemo_f32.yaml --processes 8 --pairs 8395 \
        --measured outputs/didemo_f32 --videos data/didemo/videos

The seconds of a step are measured by a short run: `--step-seconds`, or `--measured` and the run's folder. Without one,
`--teraflops` assumes the speed of a GPU. All sizes come from the configured model, which is built without memory.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from configs.load import load_any
from configs.schema import CONFIG_CLASSES, TaskConfig
from configs.sizes import format_bytes
from datasets.decode import DecodeError, read_video
from datasets.sampling import chooser
from scripts.estimate_scale.sizes import Sizes, sizes_of
from scripts.estimate_scale.traffic import Message, messages
from scripts.parts.arguments import at_least, positive
from tasks.data import framing_of

VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
MEASURED_CLIPS = 32


@dataclass(frozen=True)
class Estimate:
    """A run on paper; times in seconds unless their name says hours, sizes in bytes.

    Attributes:
        sent: by one process in one step, by what it is.
        network_seconds: of sending that at the given speed, if nothing of it were hidden behind the computing.
        clips_per_second: what the loaders of one machine have to read.
        cores: that one machine needs for that; None where the seconds of a clip are not known.
        checkpoint_bytes: of `checkpoint_last`, weights and optimizer.
        disk_bytes: of all checkpoints a run keeps.
        write_seconds: of one `checkpoint_last`.
    """

    steps_per_epoch: int
    steps: int
    sent: dict[str, int]
    network_seconds: float
    step_seconds: float
    hours: float
    gpu_hours: float
    clips_per_second: float
    cores: float | None
    checkpoint_bytes: int
    disk_bytes: int
    write_seconds: float


@dataclass(frozen=True, kw_only=True)
class Plant:
    """What the run is done with, as measured or assumed.

    Attributes:
        processes: one a GPU, over all machines.
        pairs: what an epoch shows.
        step_seconds: of one optimizer step. teraflops: the speed they were computed from, if none was measured.
        clip_seconds: to read one clip by one core; None if unknown.
    """

    processes: int
    processes_per_machine: int
    pairs: int
    step_seconds: float
    teraflops: float | None
    clip_seconds: float | None
    gigabits: float
    disk_megabytes: float


def estimate(config: TaskConfig, sizes: Sizes, traffic: list[Message], plant: Plant) -> Estimate:
    """Everything that follows from the model's sizes and the plant's speeds."""
    train, processes, step_seconds = config.train, plant.processes, plant.step_seconds
    steps_per_epoch = plant.pairs // train.batch_size
    if not steps_per_epoch:
        raise ValueError(f"--pairs: {plant.pairs} do not fill one batch of {train.batch_size}; lower train.batch_size")

    steps = steps_per_epoch * train.max_epochs
    hours = steps * step_seconds / 3600
    sent = {message.what: message.sent(processes) for message in traffic}

    per_machine = min(plant.processes_per_machine, processes)
    clips = train.batch_size / processes * per_machine / step_seconds
    last = sizes.weight_bytes + sizes.optimizer_bytes
    best = sizes.weight_bytes if config.is_evaluated else 0

    return Estimate(
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        sent=sent,
        network_seconds=sum(sent.values()) * 8 / (plant.gigabits * 1e9),
        step_seconds=step_seconds,
        hours=hours,
        gpu_hours=hours * processes,
        clips_per_second=clips,
        cores=None if plant.clip_seconds is None else clips * plant.clip_seconds,
        checkpoint_bytes=last,
        disk_bytes=train.keep_checkpoints * last + best,
        write_seconds=last / (plant.disk_megabytes * 1e6),
    )


def assumptions(config: TaskConfig, sizes: Sizes, plant: Plant) -> list[str]:
    """What the numbers rest on, in lines."""
    train = config.train
    lines = [
        f"{plant.pairs} pairs an epoch in steps of {train.batch_size}; a process has {sizes.rows} rows in each of "
        f"{train.accumulate} forward passes, of {config.video.num_frames} frames and {sizes.text_tokens} tokens",
        f"{sizes.parameters / 1e6:.1f} M trained parameters, {sizes.flops / 1e12:.2f} TFLOP a step and process",
        "rings: an all-reduce sends 2 (N - 1) / N of its bytes, an all-gather N - 1 times its part; a ring leaves each "
        f"machine once, so a machine sends as much as one process; {plant.gigabits:g} Gbit/s",
        f"a disk that takes {plant.disk_megabytes:g} MB/s",
        "evaluations, the start and the last batch that is not full are left out",
    ]
    if plant.teraflops is not None:
        lines.append(f"no step was measured: a GPU is taken to do {plant.teraflops:g} TFLOP/s, and to wait for nothing")
    return lines


def measured_step_seconds(folder: Path) -> float:
    """The median over a run's reports, without the first, which has the start in it; ValueError if there is none."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"--measured: {folder} holds no metrics.jsonl; name the folder of a run that was trained")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    seconds = [line["seconds_per_step"] for line in lines if line["kind"] == "train"]
    if len(seconds) < 2:
        raise ValueError(
            f"--measured: {path} has fewer than two reports of training; train further, or lower train.log_every"
        )
    return statistics.median(seconds[1:])


def measured_clip_seconds(folder: Path, config: TaskConfig) -> float:
    """The mean over some videos of a folder, read here as training reads them, by one core; ValueError without any."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEOS)
    if not paths:
        raise ValueError(f"--videos: {folder} holds no video ({', '.join(VIDEOS)})")

    video, rng = config.video, np.random.default_rng(0)
    chosen = [paths[place] for place in np.linspace(0, len(paths) - 1, min(len(paths), MEASURED_CLIPS)).astype(int)]
    framing = framing_of(video, training=True)
    choose = chooser(video.train_sampling, video.num_frames, lambda: rng)
    square = None if framing.interpolation == "ffmpeg" else lambda frame: framing.square(frame, rng)
    started = time.perf_counter()
    for path in tqdm(chosen, desc="reading", unit="clip", disable=None):
        try:
            read_video(str(path), framing.read_size, choose, square=square)
        except DecodeError as error:
            raise ValueError(f"--videos: {path}: {error}") from error

    return (time.perf_counter() - started) / len(chosen)


def render(found: Estimate, plant: Plant) -> str:
    """The estimate for people."""
    total = sum(found.sent.values())
    cores = "" if found.cores is None else f", {found.cores:.1f} cores at {plant.clip_seconds:.3g} s a clip"

    lines = [f"steps          {found.steps_per_epoch} an epoch, {found.steps} in all"]
    lines += [
        f"network        {format_bytes(count):>9} a step and process: {what}" for what, count in found.sent.items()
    ]
    lines += [f"               {format_bytes(total):>9} in all, {found.network_seconds:.3g} s if nothing hides it"]
    lines += [
        f"loader         {found.clips_per_second:.1f} clips/s a machine{cores}",
        f"time           {found.step_seconds:.3g} s a step: {found.hours:.1f} hours, {found.gpu_hours:.0f} GPU hours",
        f"checkpoint     {format_bytes(found.checkpoint_bytes)}, {found.write_seconds:.1f} s to write; "
        f"{format_bytes(found.disk_bytes)} on disk in all",
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="a configuration, of any task")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over it: train.accumulate=2")
    parser.add_argument("--processes", type=at_least(1), required=True, help="one a GPU, over all machines")
    parser.add_argument("--processes-per-machine", type=at_least(1), default=8, help="(default: 8)")
    parser.add_argument("--pairs", type=at_least(1), required=True, help="that an epoch shows")
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument("--step-seconds", type=positive, help="of one optimizer step, measured")
    step.add_argument("--measured", type=Path, metavar="RUN_FOLDER", help="takes them from its metrics.jsonl")
    step.add_argument("--teraflops", type=positive, help="TFLOP/s that a GPU is taken to do, where none was measured")
    clip = parser.add_mutually_exclusive_group()
    clip.add_argument("--clip-seconds", type=positive, help="to read one clip by one core (benchmarks decode)")
    clip.add_argument("--videos", type=Path, metavar="FOLDER", help="measures that here, on videos of this folder")
    parser.add_argument("--gigabits", type=positive, default=100.0, help="of the network a second (default: 100)")
    parser.add_argument("--disk-megabytes", type=positive, default=500.0, help="a second, written (default: 500)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")

    return parser


def main() -> None:
    """Parse the command line, estimate, print."""
    parser = _parser()
    arguments = parser.parse_intermixed_args()
    try:
        config = load_any(CONFIG_CLASSES, arguments.config, arguments.overrides)
        refuse_unlike_batches(config)
        sizes = sizes_of(config, arguments.processes)

        clip_seconds = arguments.clip_seconds
        if arguments.videos is not None:
            clip_seconds = measured_clip_seconds(arguments.videos, config)

        step_seconds = arguments.step_seconds
        if arguments.measured is not None:
            step_seconds = measured_step_seconds(arguments.measured)
        elif arguments.teraflops is not None:
            step_seconds = sizes.flops / (arguments.teraflops * 1e12)

        plant = Plant(
            processes=arguments.processes,
            processes_per_machine=arguments.processes_per_machine,
            pairs=arguments.pairs,
            step_seconds=step_seconds,
            teraflops=arguments.teraflops,
            clip_seconds=clip_seconds,
            gigabits=arguments.gigabits,
            disk_megabytes=arguments.disk_megabytes,
        )
        found = estimate(config, sizes, messages(config, sizes, plant.processes), plant)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")

    lines = assumptions(config, sizes, plant)
    if arguments.json:
        shown: dict[str, Any] = {"estimate": asdict(found), "sizes": asdict(sizes), "assumptions": lines}
        print(json.dumps(shown, indent=1))
    else:
        print(render(found, plant))
        print("", *(f"- {line}" for line in lines), sep="\n")


def refuse_unlike_batches(config: TaskConfig) -> None:
    """`ValueError` where batches of different sources have sizes of their own: one estimate is not for all of them."""
    for position, source in enumerate(config.data.sources):
        for name in ("num_frames", "image_size", "batch_size"):
            if getattr(source, name) is not None:
                raise ValueError(
                    f"data.sources[{position}].{name}: an estimate is of batches that are alike; estimate each source "
                    "alone, with its sizes in the video and train sections"
                )


if __name__ == "__main__":
    main()
