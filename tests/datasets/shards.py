"""Tar shards made by hand, for tests that need one which is not as `make_shards` makes them."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from datasets.records import ShardMember


def write_tar(path: Path, *members: tuple[str | tarfile.TarInfo, bytes | str | dict[str, Any]]) -> Path:
    """Write members of (name, content) in their order; a dict becomes JSON. Returns the path."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            data = json.dumps(content) if isinstance(content, dict) else content
            encoded = data.encode() if isinstance(data, str) else data
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(encoded)
            tar.addfile(member, io.BytesIO(encoded))
    return path


def write_index(folder: Path, **num_samples: int) -> Path:
    """Write `index.json` for shards of these names and numbers of samples."""
    shards = [{"url": f"{name}.tar", "nsamples": count} for name, count in num_samples.items()]
    path = folder / "index.json"
    path.write_text(json.dumps({"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards}))
    return path


def members_of(path: Path) -> dict[str, ShardMember]:
    """The files of a tar file by their names."""
    status = path.stat()
    with tarfile.open(path) as tar:
        return {
            member.name: ShardMember(
                str(path), member.name, member.offset_data, member.size, (status.st_size, status.st_mtime_ns)
            )
            for member in tar
        }
