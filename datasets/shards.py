"""Tar shards in webdataset's layout, with an index in `wids` format: videos are read in place, nothing is unpacked.

Shards may be elsewhere. Samples are drawn in any order, so only the bytes of a sample are fetched, and an index is made
from the headers and texts alone; no shard comes as a whole.

Neighbouring members with the same key (the name up to the first dot after the last slash) are one sample: a video or an
image, and its captions, either under `caption` in a `.json` or as the text of a `.txt`.
"""

import json
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tqdm import tqdm

from datasets.annotations import strict_json
from datasets.annotations.layout import VIDEO_SUFFIXES
from datasets.annotations.manifest import check_times
from datasets.annotations.source_rows import Place, SourceRow, captions_with_words
from datasets.index import shard_states
from datasets.records import IMAGE_SUFFIXES
from datasets.remote.addresses import Folder, check_address, is_address, join, shown
from datasets.remote.seeking import open_seekable

logger = logging.getLogger(__name__)

INDEX = "index.json"
KIND = "wids-shard-index-v1"
VERSION = 1
BLOCK = 512
"""Bytes; headers and members of a tar file begin at multiples of it."""
HEAD = 1 << 16
LONGEST_TEXT = 1 << 20
"""Bytes, far more than captions need; a longer `.json` or `.txt` is something else."""
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
MEDIA_SUFFIXES = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)


@dataclass(frozen=True)
class Shard:
    """A tar file: its name in the index, its path or address, and how many samples and bytes the index gives it."""

    name: str
    path: str
    num_samples: int
    size: int | None


@dataclass
class _Sample:
    """The members of one key that have been read so far."""

    key: str
    media: tarfile.TarInfo | None = None
    fields: dict[str, Any] | None = None
    text: str | None = None


def is_index(path: Path) -> bool:
    """Whether a `.json` file is an index of shards: an object with a `shardlist`, not a list of pairs."""
    with path.open("rb") as file:
        head = file.read(HEAD).lstrip()
    return head.startswith(b"{") and b'"shardlist"' in head


def read_index(path: Path, folder: Folder | None = None) -> list[Shard]:
    """The shards of an index, in order; relative names are in `folder`, by default beside the index.

    ValueError if it is no `wids` index, or names a shard of this machine that is not there.
    """
    try:
        index = strict_json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not JSON ({error}); delete it, and scripts.index_pairs FOLDER writes it again"
        ) from None
    if index.get("wids_version") != VERSION or index.get("__kind__", KIND) != KIND:
        raise ValueError(
            f"{path}: __kind__ {index.get('__kind__')!r}, wids_version {index.get('wids_version')!r}; "
            f"an index of shards has {KIND!r} and {VERSION}"
        )
    if index.get("datasets"):
        raise ValueError(f"{path}: names other indices under 'datasets'; write each as an entry of data.sources")

    entries = index.get("shardlist")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{path}: no shards; shardlist is a list of {{"url": ..., "nsamples": ...}}')

    folder = folder or path.parent
    shards = [_shard(entry, f"{path}: shardlist[{number}]", folder) for number, entry in enumerate(entries)]
    if len({shard.name for shard in shards}) != len(shards):
        raise ValueError(f"{path}: names a shard twice; give the source a weight instead")
    return shards


def write_index(path: Path, shards: Sequence[Shard]) -> None:
    """Write an index as `wids` and `read_index` read it; an existing file is replaced in one step."""
    entries = [{"url": shard.name, "nsamples": shard.num_samples, "filesize": shard.size} for shard in shards]
    index = {"__kind__": KIND, "wids_version": VERSION, "shardlist": entries}
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(index, indent=2) + "\n")
    new.replace(path)


def find_shards(folder: Path) -> list[Shard]:
    """All `.tar` files of a folder, sorted, with their numbers of samples; ValueError if there is none."""
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise ValueError(f"{folder}: no .tar file in it; name the folder that holds the shards")
    counted = tqdm(paths, desc="counting samples", unit="shard", disable=None)
    return [Shard(path.name, str(path), sum(1 for _ in _samples(str(path))), path.stat().st_size) for path in counted]


def rows(path: Path, file: BinaryIO, folder: Folder | None = None) -> Iterator[SourceRow]:
    """The samples of all shards of an index, in order; samples without a caption or a video get no captions.

    ValueError, naming shard and member, if a shard is damaged, compressed or does not match the index, or if a member
    is not a regular file or its path leaves the shard.
    """
    for shard in tqdm(read_index(path, folder), desc=f"indexing {path.name}", unit="shard", disable=None):
        (state,), name = shard_states(path, [shard.path]), shown(shard.path)
        if shard.size not in (None, state[0]):
            raise ValueError(
                f"{shown(shard.path)}: {state[0]} bytes where {path} says {shard.size}; get the shard again"
            )

        found, without = 0, []
        for sample in _samples(shard.path):
            found += 1
            if sample.media is None:
                without.append(sample.key)
                yield SourceRow(sample.key, ())
            else:
                yield _row(shard, sample, sample.media, state)

        if found != shard.num_samples:
            raise ValueError(
                f"{name}: {found} samples where {path} says {shard.num_samples}; get the shard again, or delete "
                "the index, which scripts.index_pairs FOLDER writes again"
            )

        if without:
            logger.warning(
                "%s: %d samples without a video or an image are left out, the first is %s",
                *(name, len(without), without[0]),
            )


def split_key(name: str) -> tuple[str, str]:
    """Key and suffix: the parts before and after the first dot of the file name; folders stay in the key."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return f"{folder}{slash}{stem}", suffix


def _shard(entry: Any, place: str, folder: Folder) -> Shard:
    url = entry.get("url") if isinstance(entry, dict) else None
    count = entry.get("nsamples") if isinstance(entry, dict) else None
    if not isinstance(url, str) or not url or isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError(f'{place} is {entry!r}; write {{"url": FILE, "nsamples": a number}}')
    if url.startswith("pipe:"):
        raise ValueError(f"{place}: {url!r} is a command and no file; download the shards and name their files")
    try:
        check_address(url)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    path, size = join(str(folder), url), entry.get("filesize")
    if not (is_address(path) or os.path.isfile(path)):
        raise ValueError(f"{place}: {path}: no such file; get the shard again")
    return Shard(url, path, count, size if isinstance(size, int) else None)


def _samples(path: str) -> Iterator[_Sample]:
    """Group the members of a tar file into samples; the bytes of videos are not read."""
    current: _Sample | None = None
    for tar, member in _members(path):
        key, suffix = split_key(member.name)
        if current is None or key != current.key:
            if current is not None:
                yield current
            current = _Sample(key)

        try:
            _add(current, member, suffix, tar)
        except tarfile.TarError as error:
            raise ValueError(f"{shown(path)}: damaged in {member.name} ({error}); get the shard again") from None
        except ValueError as error:
            raise ValueError(f"{shown(path)}/{member.name}: {error}") from None

    if current is not None:
        yield current


def _members(shard: str) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The files in a tar file in order; ValueError if it is damaged or a member is not a file inside it."""
    path = shown(shard)
    with open_seekable(shard) as file:
        _refuse_compressed(path, file.read(8))
        end, last = 0, "its beginning"
        try:
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    _check_member(path, member)
                    end, last = member.offset_data + -(-member.size // BLOCK) * BLOCK, member.name
                    # Names such as `__meta__` describe the shard, not a sample: webdataset skips them too.
                    meta = any(part.startswith("__") and part.endswith("__") for part in member.name.split("/"))
                    if member.isfile() and not meta:
                        yield tar, member
                    tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all in memory
        except (tarfile.TarError, OSError, EOFError) as error:
            raise ValueError(f"{path}: damaged after {last} ({error}); get the shard again") from None

        # tarfile stops at a header it cannot read as if the file ended there, and does not notice a missing end. So
        # check both: the end marker has to be there, and only zeros may follow the last member.
        file.seek(end)
        if len(file.read(BLOCK)) < BLOCK:
            raise ValueError(f"{path}: cut off after {last}; get the shard again")
        file.seek(end)
        while piece := file.read(HEAD):
            if piece.strip(b"\0"):
                raise ValueError(f"{path}: damaged after {last}, what follows is no header; get the shard again")


def _refuse_compressed(path: str, head: bytes) -> None:
    for magic, name in COMPRESSIONS.items():
        if head.startswith(magic):
            raise ValueError(
                f"{path}: compressed with {name}, so its members cannot be read by their place; unpack it to a plain "
                ".tar (videos are compressed as they are)"
            )


def _check_member(path: str, member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name:
        raise ValueError(f"{path}: member {member.name!r} climbs out of the shard; do not trust who made it")
    if member.issparse() or not (member.isreg() or member.isdir()):
        raise ValueError(f"{path}: member {member.name!r} is a link or a device, not a file; write the file itself")
    if member.size < 0:
        raise ValueError(f"{path}: member {member.name!r} has the size {member.size}; get the shard again")


def _add(sample: _Sample, member: tarfile.TarInfo, suffix: str, tar: tarfile.TarFile) -> None:
    """Add a member to its sample. ValueError, without the name of the member, if it does not belong there."""
    if member.name.lower().endswith(MEDIA_SUFFIXES):
        if sample.media is not None:
            raise ValueError(f"a second video or image of its sample, beside {sample.media.name}; leave one")
        sample.media = member
    elif suffix in ("json", "txt"):
        if member.size > LONGEST_TEXT:
            raise ValueError(f"{member.size} bytes are no captions; leave it out of the shard")

        file = tar.extractfile(member)
        assert file is not None, "a regular file"
        content = file.read()
        if (sample.text if suffix == "txt" else sample.fields) is not None:
            raise ValueError("stands twice in its sample; write the shard again")

        if suffix == "txt":
            sample.text = _decoded(content)
            return
        try:
            fields = strict_json.loads(content)
        except strict_json.RepeatedKeyError as error:
            raise ValueError(f"{error}; write the shard again") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON ({error}); write the shard again") from None
        if not isinstance(fields, dict):
            raise ValueError(f'found {type(fields).__name__}, not an object; write {{"caption": ...}}')
        sample.fields = fields


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason}); write the shard again") from None


def _row(shard: Shard, sample: _Sample, media: tarfile.TarInfo, state: tuple[int, int]) -> SourceRow:
    fields = sample.fields or {}
    caption = sample.text if fields.get("caption") is None else fields["caption"]
    texts = [caption] if isinstance(caption, str) else [] if caption is None else caption
    row: dict[str, Any] = {"video": media.name, "start": fields.get("start"), "end": fields.get("end")}
    try:
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"caption is {caption!r}; write a text or a list of texts")
        check_times(row)
        captions = captions_with_words(texts)
    except ValueError as error:
        suffix = "txt" if caption is sample.text else "json"
        raise ValueError(f"{shown(shard.path)}/{sample.key}.{suffix}: {error}") from None

    place = Place(shard.name, media.offset_data, media.size, state)
    return SourceRow(media.name, captions, row["start"], row["end"], place)
