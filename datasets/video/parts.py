"""Reading parts of one long video side by side, each by a decoder and a thread of its own.

A part is a run of wanted frames. Each frame is the same as without parts, since any part is read as a seek would read
it. FFmpeg's own threads would not do: they change what a damaged file gives, and a forked worker must not inherit them.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from datasets.video.frame_list import FrameList

LEAST_FRAMES = 256
"""A part of fewer wanted frames is not worth a thread."""
LEAST_STARTS = 4
"""A part of fewer key frames would decode much that belongs to its neighbour."""


def parts_to_read(frames: FrameList, wanted: np.ndarray, threads: int) -> list[np.ndarray]:
    """The sorted indices `wanted` as at most `threads` runs; as one where a video is short or has to be counted."""
    if frames.stamps is None or not len(wanted):
        return [wanted]
    starts = frames.packet_stamps[frames.starts]
    first, last = frames.stamps[wanted[0]], frames.stamps[wanted[-1]]
    num_starts = int(((starts >= first) & (starts <= last)).sum())

    most = min(threads, len(wanted) // LEAST_FRAMES, num_starts // LEAST_STARTS)
    return np.array_split(wanted, max(1, most))


def run_side_by_side(parts: Sequence[Iterator[None]]) -> None:
    """Run iterators to their ends, each in a thread; a single one in this thread.

    What one raises ends the others, too, before their next frame.
    """
    if len(parts) == 1:
        for _ in parts[0]:
            pass
        return

    stopped = threading.Event()

    def run(part: Iterator[None]) -> None:
        try:
            for _ in part:
                if stopped.is_set():
                    return
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(len(parts), thread_name_prefix="reading") as pool:
        running = [pool.submit(run, part) for part in parts]
        try:
            for future in running:
                future.result()
        finally:
            stopped.set()
