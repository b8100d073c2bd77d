"""Write frames as a video file."""

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def write_video(path: Path, frames: NDArray[np.uint8], fps: int) -> None:
    """Encodes RGB frames (frames, height, width, 3), of even height and width, as H.264 in mp4."""
    with av.open(str(path), "w") as container:
        # A constant quantiser: under x264's rate control a video in thirty has other bytes when it is encoded again.
        stream = container.add_stream("libx264", rate=fps, options={"qp": "20", "preset": "veryfast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the workers share the cores already
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
