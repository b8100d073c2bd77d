"""Shards and folders at addresses: only the bytes of samples are fetched, and give what shards on a disk give."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch

from datasets.annotations.layout import VideoFolder
from datasets.decode import DecodeError, read_video
from datasets.records import ShardMember
from datasets.remote import fetch
from datasets.remote.addresses import RemoteFolder
from datasets.remote.folders import annotation_folder, names_below
from datasets.sources import are_there, open_source
from tests.datasets.shards import write_index, write_tar
from tests.datasets.test_shards import four
from tests.unreliable_server import UnreliableServer, serving
from tests.videos import grey_steps, write_video

PADDING = 200_000
"""Bytes beside each video, which reading it does not need."""


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a shard of three videos, which knows nothing of addresses."""
    monkeypatch.setenv("VIDEO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("VIDEO_TRIES", "2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.01)
    folder = tmp_path / "shards"
    videos = [write_video(tmp_path / f"{number}.mp4", grey_steps(8 + number)).read_bytes() for number in range(3)]
    members: list[tuple[str, bytes | dict[str, str]]] = []
    for number, video in enumerate(videos):
        members += [(f"{number}.mp4", video), (f"{number}.json", {"caption": f"video {number}"})]
        members.append((f"{number}.bin", bytes(PADDING)))
    folder.mkdir()
    write_tar(folder / "a.tar", *members)
    write_index(folder, a=3)
    return folder


@pytest.fixture
def server(shards: Path) -> Iterator[UnreliableServer]:
    with serving({f"s/{path.name}": path.read_bytes() for path in shards.iterdir()}) as serving_them:
        yield serving_them


def assert_same(there: str | ShardMember, here: str | ShardMember) -> None:
    assert torch.equal(read_video(there, 32, four), read_video(here, 32, four))


def test_shards_on_a_server_are_read_by_ranges(shards: Path, server: UnreliableServer, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "index.json").write_bytes(server.files["s/index.json"])
    server.faults["s/a.tar"] = ["", "503", "cut"]
    there = open_source(tmp_path / "copy" / "index.json", RemoteFolder(f"{server.address}/s"))
    here = open_source(shards / "index.json", shards)
    assert list(there.texts) == list(here.texts)
    assert there.path(1) == f"{server.address}/s/a.tar/1.mp4"
    for video in (2, 0, 1):
        assert_same(there.file(video), here.file(video))
    kept = [path.stat().st_size for path in (tmp_path / "cache" / "files").rglob("*.*") if path.is_file()]
    assert all(size < PADDING for size in kept)
    assert are_there(there, range(3)) == [True] * 3

    # Another shard in its place is not read by the old places.
    server.files["s/a.tar"] = server.files["s/a.tar"][::-1]
    with pytest.raises(DecodeError, match=r"a.tar/1.mp4: it has changed since it was indexed"):
        read_video(there.file(1), 32, four)


def test_an_index_may_name_addresses(shards: Path) -> None:
    stored = fsspec.filesystem("memory")
    stored.pipe("/bucket/a.tar", (shards / "a.tar").read_bytes())
    index = json.loads((shards / "index.json").read_text())
    index["shardlist"][0]["url"] = "memory://bucket/a.tar"
    (shards / "other.json").write_text(json.dumps(index))
    there, here = open_source(shards / "other.json", shards), open_source(shards / "index.json", shards)
    assert_same(there.file(2), here.file(2))
    stored.rm("/bucket", recursive=True)
    with pytest.raises(DecodeError, match=r"memory://bucket/a.tar/1.mp4: there is no such file"):
        read_video(there.file(1), 32, four)
    with pytest.raises(ValueError, match="memory://bucket/a.tar cannot be read: there is no such file"):
        open_source(shards / "other.json", shards)


def test_folders_of_a_server_and_of_a_store(shards: Path) -> None:
    files = {"d/train.json": b"[]", "d/annotations/val.json": b"{}", "d/videos/x/a b.mp4": b"1", "d/videos/c.mkv": b"2"}
    stored = fsspec.filesystem("memory")
    stored.pipe({f"/{name}": content for name, content in files.items()})
    with serving(files) as server:
        for address in (f"{server.address}/d", "memory://d"):
            folder = RemoteFolder(address)
            assert names_below(folder / "videos") == ["c.mkv", "x/a b.mp4"]
            found = VideoFolder(folder / "videos")
            name = "a%20b.mp4" if address.startswith("http") else "a b.mp4"
            assert found.path("a b") == f"{address}/videos/x/{name}"
            assert found.path("c.avi") == f"{address}/videos/c.mkv" and found.path("d") == f"{address}/videos/d.mp4"

            copies = annotation_folder(folder, (".mp4", ".mkv"))
            assert copies.name == "d" and (copies / "annotations" / "val.json").read_bytes() == b"{}"
            before = (copies / "train.json").stat()
            assert annotation_folder(folder, (".mp4", ".mkv")) == copies
            assert (copies / "train.json").stat().st_mtime_ns == before.st_mtime_ns
        with pytest.raises(ValueError, match=rf"{server.address}/no: cannot be listed: the server answers 404"):
            names_below(RemoteFolder(f"{server.address}/no"))
    stored.rm("/d", recursive=True)
