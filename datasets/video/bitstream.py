"""What the bytes of a packet say about its frames: parsed here because demuxers do not report it.

The layouts are those of ITU-T H.264 (7.3) and H.265 (7.3), RFC 6386 (VP8), the VP9 bitstream specification, and
ISO/IEC 14496-2 (MPEG-4 part 2).
"""

from collections.abc import Iterator
from typing import NamedTuple

H264_IDR, H264_SEI, H264_SPS, H264_PPS = 5, 6, 7, 8
RECOVERY_POINT = 6
HEVC_BLA, HEVC_RANDOM_ACCESS = range(16, 19), range(16, 22)
HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
MPEG4_PICTURE = b"\x00\x00\x01\xb6"
SHORTEST_MPEG4_PICTURE = 10
"""A shorter picture may say that nothing is coded, and then the decoder returns no frame for it."""
WHOLE_KEYS = {
    *("vp8", "vp9", "av1", "libdav1d", "mpeg4", "mpeg1video", "mpeg2video", "h263", "flv", "flv1", "theora"),
    *(
        "msmpeg4v2",
        "msmpeg4",
        "msmpeg4v3",
        "wmv1",
        "wmv2",
        "mjpeg",
        "prores",
        "dnxhd",
        "rawvideo",
        "huffyuv",
        "ffvhuff",
    ),
}
"""Codecs whose key frames need no earlier frame."""


def one_picture(codec: str, data: bytes) -> bool | None:
    """Whether the packet gives one frame (True) or none (False); None if the bytes do not tell."""
    if codec == "vp8":
        return bool(data[0] & 0x10)
    if codec == "vp9":
        # First byte: two marker bits, two profile bits, "show existing frame", the frame type, "show frame". Profile 3
        # has one bit more. A superframe ends with a marker byte, and contains one shown frame.
        shown = data[0] & 0x08 or data[0] & 0x02 if data[0] & 0x30 != 0x30 else data[0] & 0x04 or data[0] & 0x01
        return True if shown or data[-1] & 0xE0 == 0xC0 else False
    if codec == "mpeg4":
        # DivX packs a B-frame into the packet of the frame before: then there is more than one picture header.
        packed = data.count(MPEG4_PICTURE) != 1
        return None if packed or len(data) < SHORTEST_MPEG4_PICTURE else True
    return True


def starts_clean(codec: str, data: bytes, extradata: bytes | None) -> bool:
    """Whether decoding may begin with this key packet: all frames shown after it then come out as usual."""
    if codec == "h264":
        return _h264_starts_clean(data, extradata)
    if codec == "hevc":
        return any(_hevc_type(unit) in HEVC_RANDOM_ACCESS for unit in units(codec, data, extradata))
    return codec in WHOLE_KEYS


def breaks_link(codec: str, data: bytes, extradata: bytes | None) -> bool:
    """Whether leading pictures of this key packet refer to frames that were cut away: no decoder shows them."""
    return codec == "hevc" and any(_hevc_type(unit) in HEVC_BLA for unit in units(codec, data, extradata))


def may_code_fields(codec: str, data: bytes, extradata: bytes | None) -> bool:
    """Whether two packets may make one frame: H.264, unless all its parameter sets exclude fields."""
    if codec != "h264":
        return False
    try:
        parameters = [parse_h264_parameters(unit) for unit in h264_parameter_sets(data, extradata)]
    except IndexError:  # a parameter set is cut off
        return True
    return not all(found.frames_only for found in parameters) or not parameters


def h264_parameter_sets(data: bytes, extradata: bytes | None) -> list[bytes]:
    """The sequence parameter sets in the header of the container and in a packet."""
    # In the header they are in `avcC` form or between start codes.
    found = []
    if extradata and extradata[0] == 1 and len(extradata) > 8:
        found = [extradata[8 : 8 + int.from_bytes(extradata[6:8], "big")]]
    elif extradata:
        found = [unit for unit in _between_start_codes(extradata) if unit[0] & 31 == H264_SPS]
    return found + [unit for unit in units("h264", data, extradata) if unit[0] & 31 == H264_SPS]


def units(codec: str, data: bytes, extradata: bytes | None) -> Iterator[bytes]:
    """The NAL units of an H.264 or HEVC packet, each preceded by its length, as in mp4, or by a start code."""
    if not extradata or extradata[0] != 1:
        yield from _between_start_codes(data)
        return

    length_bytes = (extradata[4 if codec == "h264" else 21] & 3) + 1
    position = 0
    while position + length_bytes < len(data):
        length = int.from_bytes(data[position : position + length_bytes], "big")
        position += length_bytes
        if not length:
            continue
        yield data[position : position + length]
        position += length


def _between_start_codes(data: bytes) -> Iterator[bytes]:
    for unit in data.split(b"\x00\x00\x01")[1:]:
        if unit:
            yield unit


def _hevc_type(unit: bytes) -> int:
    return unit[0] >> 1 & 63


def _h264_starts_clean(data: bytes, extradata: bytes | None) -> bool:
    """Whether there is an IDR picture or an immediate recovery point; intra refresh needs several frames to recover."""
    for unit in units("h264", data, extradata):
        kind = unit[0] & 31
        if kind == H264_IDR:
            return True
        if kind == H264_SEI and _recovers_at_once(_without_emulation(unit[1:])):
            return True
    return False


def _recovers_at_once(messages: bytes) -> bool:
    """Whether the SEI messages contain a recovery point with a count of zero frames."""
    position = 0
    while position + 2 < len(messages):
        kind, position = _sei_number(messages, position)
        size, position = _sei_number(messages, position)
        if kind == RECOVERY_POINT and position < len(messages):
            return bool(messages[position] & 0x80)  # the exponential-Golomb code of zero is one set bit
        position += size
    return False


def _sei_number(messages: bytes, position: int) -> tuple[int, int]:
    """A type or size, and the position after it: bytes of 255 are added up until a smaller one ends the number."""
    total = 0
    while position < len(messages) and messages[position] == 255:
        total, position = total + 255, position + 1
    return total + (messages[position] if position < len(messages) else 0), position + 1


def _without_emulation(unit: bytes) -> bytes:
    """Remove the bytes that keep the payload from looking like a start code."""
    return unit.replace(b"\x00\x00\x03", b"\x00\x00")


class H264Parameters(NamedTuple):
    """What a sequence parameter set says.

    Attributes:
        frames_only: `frame_mbs_only_flag`: there are no fields.
        frame_num_bits: how many bits of a slice header `frame_num` has.
        separate_planes: whether each colour is coded by itself.
    """

    frames_only: bool
    frame_num_bits: int
    separate_planes: bool


def parse_h264_parameters(parameter_set: bytes) -> H264Parameters:
    """Read a sequence parameter set (7.3.2.1.1); IndexError if it is cut off.

    Fields have variable lengths, so all of them up to the last one wanted have to be read.
    """
    bits = _Bits(_without_emulation(parameter_set[1:]))
    profile = bits.read(8)
    bits.read(16)  # constraint flags and level
    bits.golomb()  # seq_parameter_set_id

    # High profiles: chroma format, bit depths, and perhaps scaling matrices.
    separate_planes = False
    if profile in HIGH_PROFILES:
        chroma = bits.golomb()
        if chroma == 3:
            separate_planes = bool(bits.read(1))
        bits.golomb(), bits.golomb(), bits.read(1)
        if bits.read(1):
            for number in range(8 if chroma != 3 else 12):
                if bits.read(1):
                    bits.skip_scaling_list(16 if number < 6 else 64)

    # How pictures are numbered, and how the order of display is coded.
    frame_num_bits = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.read(1)
        bits.golomb(), bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()

    # Number of reference frames, gaps in frame numbers, width and height; then the flag.
    bits.golomb(), bits.read(1), bits.golomb(), bits.golomb()
    return H264Parameters(bool(bits.read(1)), frame_num_bits, separate_planes)


class _Bits:
    """Reads the bits of a parameter set in order; IndexError after the last."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            byte = self._data[self._position >> 3]
            value = value << 1 | byte >> (7 - self._position % 8) & 1
            self._position += 1
        return value

    def golomb(self) -> int:
        """Read an unsigned exponential-Golomb number: n zeros, then n + 1 bits that hold the number plus one."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def skip_scaling_list(self, size: int) -> None:
        """Skip `size` scales: signed differences, until a scale of zero says that the rest repeats."""
        last = following = 8
        for _ in range(size):
            if following:
                code = self.golomb()
                delta = (code + 1) // 2 if code % 2 else -(code // 2)
                following = (last + delta) % 256
            last = following or last
