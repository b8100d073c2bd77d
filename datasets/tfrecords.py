"""TFRecord files without TensorFlow: a record at an offset, and the byte strings of a feature in it.

A record is a length (8 bytes), its checksum, the content and the content's checksum. The content is a
`tf.train.Example` in protocol buffers. The length's checksum is checked, which tells a wrong offset; the content's is
not.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

CRC32C = 0x82F63B78
"""The polynomial of Castagnoli's checksum, its lowest bit first."""
MASK = 0xA282EAD8
LENGTH_BYTES, CHECKSUM_BYTES = 8, 4
TEXT_WIRE = 2
"""Protocol buffers' wire type of strings, bytes and messages."""


def read_record(path: Path, offset: int) -> bytes:
    """The content of the record at `offset`. ValueError, naming file and offset, if none begins there."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return _read(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: byte {offset}: {error}") from None


def offsets(path: Path) -> Iterator[int]:
    """Where each record of a file begins."""
    size, offset = path.stat().st_size, 0
    with open(path, "rb") as file:
        while offset < size:
            file.seek(offset)
            yield offset
            offset += LENGTH_BYTES + 2 * CHECKSUM_BYTES + _read_length(file)


def byte_strings(example: bytes, feature: str) -> list[bytes]:
    """The values of a feature of a `tf.train.Example`; ValueError if it has no byte strings of this name."""
    names: list[str] = []
    for features in _messages(example, 1):
        for entry in _messages(features, 1):
            name = b"".join(_messages(entry, 1)).decode("utf-8", errors="replace")
            names.append(name)
            if name == feature:
                value = b"".join(_messages(entry, 2))
                return [string for strings in _messages(value, 1) for string in _messages(strings, 1)]
    raise ValueError(f"the record has no feature {feature!r}, only {', '.join(map(repr, names)) or 'none'}")


def checksum(content: bytes) -> int:
    """TFRecord's masked CRC-32C."""
    remainder = 0xFFFFFFFF
    for byte in content:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (CRC32C if remainder & 1 else 0)
    remainder ^= 0xFFFFFFFF
    return ((remainder >> 15 | remainder << 17) + MASK) & 0xFFFFFFFF


def _read(file: BinaryIO) -> bytes:
    length = _read_length(file)
    content = file.read(length)
    if len(content) < length:
        raise ValueError(f"the file ends {length - len(content)} bytes before the record does; copy it again")
    return content


def _read_length(file: BinaryIO) -> int:
    header = file.read(LENGTH_BYTES + CHECKSUM_BYTES)
    if len(header) < LENGTH_BYTES + CHECKSUM_BYTES:
        raise ValueError("the file ends here")
    length, stored = struct.unpack("<QI", header)
    if checksum(header[:LENGTH_BYTES]) != stored:
        raise ValueError("no record begins here; the index is of another file, or the file is damaged")
    return length


def _messages(message: bytes, wanted: int) -> Iterator[bytes]:
    """The strings, bytes or messages of field number `wanted`; other fields are skipped."""
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        field, wire = tag >> 3, tag & 7

        if wire == TEXT_WIRE:
            length, place = _number(message, place)
            if place + length > len(message):
                raise ValueError("the record is no tf.train.Example: a field is longer than what holds it")
            if field == wanted:
                yield message[place : place + length]
            place += length
        elif wire == 0:
            _, place = _number(message, place)
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        else:
            raise ValueError(f"the record is no tf.train.Example: a field has wire type {wire}")


def _number(message: bytes, place: int) -> tuple[int, int]:
    """A variable-length number, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("the record is no tf.train.Example: it ends within a number")
        byte = message[place]
        value |= (byte & 127) << shift
        place += 1
        if byte < 128:
            return value, place
    raise ValueError("the record is no tf.train.Example: a number does not end")
