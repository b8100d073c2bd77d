"""Ways to read a long file: seconds, and frames decoded, of what is wanted sparsely, densely, and window by window.

    python -m benchmarks.long_reading --minutes 60 --key-every 250

*in one pass* decodes all frames up to the last wanted one. *by key frames* seeks to the key frame before each wanted
frame, unless the decoder is past it. *ours* also leaves out pictures that are not wanted and that no other refers to,
and empties the decoder where a seek follows. Windows are read one by one, or eight together as `extract_features` does.
All with one thread; *threads* is ours with PyTorch's. Each way is called `--rounds` times: the fastest is shown, and
the least time of the processor, which says more where other programs run.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import hour
from datasets import decode
from datasets.decode import Part
from datasets.sampling import uniform
from datasets.video.files import source_of
from datasets.video.frame_list import FrameList
from inference.features.windows import Windows

SIZE, OF_WINDOW, TOGETHER = 224, 32, 8
Change = Callable[[FrameList], FrameList]
WAYS: dict[str, Change] = {
    "in one pass": lambda frames: frames.counted("for comparison"),
    "by key frames": FrameList.with_all_decoded,
    "ours": lambda frames: frames,
}


def main(arguments: list[str] | None = None) -> None:
    """Print a line for each way to read each choice of frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60, help="of the made file (%(default)s)")
    parser.add_argument("--key-every", type=int, default=hour.KEY_EVERY, help="frames between keys (%(default)s)")
    parser.add_argument("--only", default="", metavar="WORDS", help="choices of frames whose names hold these words")
    parser.add_argument("--rounds", type=int, default=1, help="calls of each way (%(default)s)")
    options = parser.parse_args(arguments)
    threads = torch.get_num_threads()

    path = hour.made_file(60 * options.minutes, options.key_every)
    started = time.perf_counter()
    frames = decode.frame_list(source_of(str(path)))
    disposable = frames.disposable.mean()
    print(f"{len(frames)} frames listed in {time.perf_counter() - started:.2f} s, {disposable:.0%} referred to by none")

    for choice, reads in choices(60.0 * options.minutes).items():
        if options.only not in choice:
            continue
        for way, change in WAYS.items():
            if "window" not in choice or way == "ours":
                measure(path, f"{choice}, {way}", reads, change(frames), options.rounds, 1)
        measure(path, f"{choice}, threads", reads, frames, options.rounds, threads)


def choices(seconds: float) -> dict[str, list[list[Part]]]:
    """The parts that each call reads, by what is wanted."""
    found = {f"{number} frames": [[whole(number)]] for number in (32, 96, int(seconds / 4), int(seconds))}
    for stride in (60.0, 30.0):
        spans = list(Windows(60.0, stride).spans(0.0, seconds))
        windows = [Part(partial(uniform, OF_WINDOW, rng=np.random.default_rng(0)), *span) for span in spans]
        found[f"{len(windows)} windows each {stride:g} s, one by one"] = [[window] for window in windows]
        found[f"{len(windows)} windows each {stride:g} s, together"] = [
            windows[first : first + TOGETHER] for first in range(0, len(windows), TOGETHER)
        ]
    return found


def whole(num_frames: int) -> Part:
    """So many frames of the whole file."""
    return Part(partial(uniform, num_frames, rng=np.random.default_rng(0)))


def measure(
    path: Path, name: str, reads: Sequence[Sequence[Part]], frames: FrameList, rounds: int, threads: int
) -> None:
    """Print the seconds and the frames decoded."""
    decode.FRAME_LISTS.put(source_of(str(path)), frames)
    torch.set_num_threads(threads)
    decoded = [0]

    def beat(read: int, wanted: int) -> None:
        decoded[0] += 1

    wall, cpu = zip(*seconds_of(path, reads, beat, rounds), strict=True)
    print(f"{name:45} {min(wall):8.2f} s {min(cpu):8.2f} s CPU {decoded[0] // rounds:8} decoded", flush=True)


def seconds_of(
    path: Path, reads: Sequence[Sequence[Part]], beat: decode.Beat, rounds: int
) -> Iterator[tuple[float, float]]:
    """The seconds of each round, and those of the processor."""
    for _ in range(rounds):
        started = time.perf_counter(), time.process_time()
        for parts in reads:
            decode.read_parts(str(path), SIZE, parts, beat=beat)
        yield time.perf_counter() - started[0], time.process_time() - started[1]


if __name__ == "__main__":
    main()
