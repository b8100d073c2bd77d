"""Decoded frames as small RGB pictures: upright, in standard dynamic range."""

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorTrc, VideoReformatter

from datasets.video.files import warn_once

HDR: dict[int, str] = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
"""Transfer functions of high dynamic range; without tone mapping, such pictures look flat and pale."""
TONE_MAPPING = "out_transfer=bt709:out_primaries=bt709:out_color_matrix=bt709:intent=perceptual"


class Shrinker:
    """Resizes frames to `width` x `height`. Use one for all frames of a video: each new one computes tables."""

    def __init__(self, path: str, width: int, height: int) -> None:
        self._path, self._width, self._height = path, width, height
        self._reformatter = VideoReformatter()
        self._graph: Graph | None = None
        self._graph_input: tuple[int, int, str] | None = None

    def shrink(self, frame: VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8, resized bilinearly, then rotated upright, which may swap height and width.

        HDR is tone-mapped if this FFmpeg can do it; a warning is logged either way.
        """
        hdr = HDR.get(frame.color_trc)
        small = None if hdr is None else self._tone_mapped(frame, hdr)
        if small is None:
            small = self._reformatter.reformat(
                frame, self._width, self._height, "rgb24", interpolation="BILINEAR", threads=1
            )
        return np.rot90(small.to_ndarray(), frame.rotation // 90)

    def _tone_mapped(self, frame: VideoFrame, hdr: str) -> VideoFrame | None:
        """The small frame, tone-mapped; None if this FFmpeg cannot do that."""
        try:
            graph = self._graph_for(frame)
            graph.push(frame)
            small = graph.pull()
        except (av.FFmpegError, ValueError) as error:
            warn_once(
                hdr, f"{self._path}: is HDR ({hdr}), which this FFmpeg does not tone-map ({error}): it looks pale"
            )
            return None
        warn_once(hdr, f"{self._path}: is HDR ({hdr}) and is tone-mapped to SDR")
        assert isinstance(small, VideoFrame)
        return small

    def _graph_for(self, frame: VideoFrame) -> Graph:
        # A filter graph is made for one size and format; make another when these change.
        shape = (frame.width, frame.height, frame.format.name)
        if self._graph is None or shape != self._graph_input:
            graph = Graph()
            graph.threads = 1

            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
            scale = graph.add("scale", f"w={self._width}:h={self._height}:flags=bilinear:{TONE_MAPPING}")
            to_rgb, sink = graph.add("format", "rgb24"), graph.add("buffersink")

            source.link_to(scale)
            scale.link_to(to_rgb)
            to_rgb.link_to(sink)
            graph.configure()
            self._graph, self._graph_input = graph, shape
        return self._graph
