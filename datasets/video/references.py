"""Which pictures of an H.264 stream no other picture refers to, from the first bytes of its packets.

Without them, a decoder gives all other pictures as before, to the bit, as long as nothing is missing: where a stream
was cut within a group of pictures, FFmpeg makes up what is missing from pictures that happen to be there. Slices say
whether others refer to them (`nal_ref_idc`), and number the pictures that are referred to (`frame_num`), which shows
gaps.
"""

import av
import numpy as np
from numpy.typing import NDArray

from datasets.video.bitstream import H264_IDR, H264_PPS, H264_SPS, h264_parameter_sets, parse_h264_parameters

H264_SLICES = (1, H264_IDR)
"""Of pictures that are not cut into data partitions."""
PARAMETER_SETS = (H264_SPS, H264_PPS)
HEADER_BYTES = 16
"""More than a slice header has before `frame_num` ends."""


class References:
    """Is given all packets of a stream in order of decoding, and then tells which are `disposable`."""

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        # Units that lie between start codes, as in MPEG-TS, would have to be searched for.
        self._known = codec == "h264" and extradata is not None and len(extradata) > 8 and extradata[0] == 1
        self._extradata = extradata
        self._length_bytes = (extradata[4] & 3) + 1 if self._known and extradata else 0
        self._frame_num_bits: int | None = None
        self._reference = -1  # number of the last picture that others refer to; -1 if there is none yet
        self._disposable: list[bool] = []
        self._irregular: list[bool] = []

    def add(self, packet: av.Packet) -> None:
        """Add a packet that is not empty."""
        is_disposable, is_regular = False, False
        if self._known:
            if packet.is_keyframe:
                self._read_parameters(bytes(packet))
            if self._frame_num_bits is not None:
                is_disposable, is_regular = self._picture(memoryview(packet), packet.is_keyframe, self._frame_num_bits)
        self._disposable.append(is_disposable and not packet.is_keyframe)
        self._irregular.append(not is_regular)

    def disposable(self, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which packets hold a picture that no other refers to, (P,).

        None of them does in a group of pictures, from one start to the next, in which something is irregular.
        """
        irregular = np.array(self._irregular, bool)
        group = np.searchsorted(starts, np.arange(len(irregular)), side="right")
        has_irregular = np.bincount(group, irregular, minlength=len(starts) + 1) > 0
        return np.array(self._disposable, bool) & ~has_irregular[group]

    def _read_parameters(self, data: bytes) -> None:
        """Note how long numbers are; a stream in which that changes is left alone."""
        try:
            parameters = [parse_h264_parameters(unit) for unit in h264_parameter_sets(data, self._extradata)]
        except IndexError:
            parameters = []
        lengths = {found.frame_num_bits for found in parameters}
        if self._frame_num_bits is not None:
            lengths.add(self._frame_num_bits)
        is_plain = all(found.frames_only and not found.separate_planes for found in parameters)
        self._known = len(lengths) == 1 and is_plain
        self._frame_num_bits = lengths.pop() if self._known else None

    def _picture(self, data: memoryview, is_key: bool, frame_num_bits: int) -> tuple[bool, bool]:
        """Whether the picture of a packet is disposable, and whether no picture is missing before it."""
        position = self._first_slice(data, is_key)
        if position is None:
            return False, False
        is_reference, is_idr = bool(data[position] & 0x60), data[position] & 31 == H264_IDR
        number = _frame_num(bytes(data[position + 1 : position + 1 + HEADER_BYTES]), frame_num_bits)

        # A picture that others refer to, and all that follow it up to the next one, have the number after the last such
        # picture's (7.4.3), but for an IDR picture, which has 0.
        expected = 0 if is_idr else (self._reference + 1) % (1 << frame_num_bits)
        is_regular = number == expected
        if is_reference:
            self._reference = number
        return not is_reference, is_regular

    def _first_slice(self, data: memoryview, is_key: bool) -> int | None:
        """Where the first slice begins, which speaks for the whole picture; None if there is none.

        Parameter sets of other packets than key ones serve later pictures, too.
        """
        position = 0
        while position + self._length_bytes < len(data):
            length = int.from_bytes(data[position : position + self._length_bytes], "big")
            position += self._length_bytes
            kind = data[position] & 31
            if kind in H264_SLICES:
                return position
            if kind in PARAMETER_SETS and not is_key:
                return None
            position += length
        return None


def _frame_num(header: bytes, bits: int) -> int:
    """`frame_num` of a slice header (7.3.3), which follows three exponential-Golomb numbers; -1 if it is cut off."""
    header = header.replace(b"\x00\x00\x03", b"\x00\x00")  # bytes that keep the payload from looking like a start code
    value, left = int.from_bytes(header, "big"), 8 * len(header)
    for _ in range(3):
        zeros = left - (value & ((1 << left) - 1)).bit_length()
        left -= 2 * zeros + 1
        if left < bits:
            return -1
    return value >> (left - bits) & ((1 << bits) - 1)
