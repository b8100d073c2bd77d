"""Small videos made with PyAV, for tests that need a file."""

from pathlib import Path

import av
import numpy as np
import torch


def write_video(
    path: Path, frames: np.ndarray, fps: int = 10, codec: str = "libx264", options: dict[str, str] | None = None
) -> Path:
    """Write uint8 frames (T, H, W, 3), sides even, and return the path; `options` are the codec's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def grey_steps(num_frames: int, size: int = 32, step: int = 10) -> np.ndarray:
    """Frames (T, size, size, 3) of one grey each, 20, 20 + step, ...: the pixels tell which frame it is."""
    greys = 20 + step * np.arange(num_frames, dtype=np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (num_frames, size, size, 3)).copy()


def frame_numbers(clip: torch.Tensor, step: int = 10) -> list[int]:
    """Which frames of `grey_steps` a clip (T, 3, H, W) holds."""
    return ((clip.float().mean((1, 2, 3)) - 20) / step).round().int().tolist()
