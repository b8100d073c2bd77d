"""Shards: what is read of them, what of them is refused, and that they give what the plain files gave."""

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import sampling, shards
from datasets.decode import DecodeError, read_image, read_video
from datasets.loaders import TrainLoader
from datasets.mixing import Mixture, Source
from datasets.records import ShardMember
from datasets.sources import is_there, missing_of_some, open_source
from scripts.make_shards import main as make_shards
from tests.datasets.shards import members_of, write_index, write_tar
from tests.pairs import dataset_of
from tests.videos import frame_numbers, grey_steps, write_video


def four(length: int) -> np.ndarray:
    return sampling.uniform(4, length, np.random.default_rng(0))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pairs, two of them of images, one of a part of a video; the fourth video cannot be read."""
    folder = tmp_path_factory.mktemp("plain")
    rows: list[dict[str, Any]] = []
    for number in range(8):
        write_video(folder / f"{number}.mp4", grey_steps(8 + number))
        rows.append({"video": f"{number}.mp4", "caption": [f"video {number}", f"again {number}"]})
    (folder / "3.mp4").write_text("no video")
    rows[5] |= {"start": 0.2, "end": 0.5}
    for number in (8, 9):
        Image.fromarray(grey_steps(1, 40)[0] + np.uint8(number)).save(folder / f"{number}.png")
        rows.append({"video": f"{number}.png", "caption": f"image {number}"})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def packed(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the shards that were made of `plain`."""
    folder = tmp_path_factory.mktemp("packed")
    command = [str(plain / "pairs.jsonl"), "--media", str(plain), "--out", str(folder), "--workers", "0"]
    with pytest.raises(SystemExit) as ended:
        make_shards(command)
    assert ended.value.code == 0
    return folder / "index.json"


def test_a_table_of_shards_says_what_the_plain_files_say(plain: Path, packed: Path) -> None:
    files, members = open_source(plain / "pairs.jsonl", plain), open_source(packed, Path("/no/meaning"))
    assert list(members.texts) == list(files.texts) and np.array_equal(members.text_video, files.text_video)
    assert [members.span(video) for video in range(10)] == [files.span(video) for video in range(10)]
    assert members.path(9) == f"{packed.parent}/pairs-000000.tar/000000009.png"
    for video in range(10):
        member, file = members.file(video), files.file(video)
        assert isinstance(member, ShardMember) and str(member) == members.path(video) and is_there(members, video)
        with open(member.shard, "rb") as shard:
            shard.seek(member.offset)
            assert shard.read(member.size) == Path(str(file)).read_bytes()
    assert missing_of_some(packed, members) == (0, 10)


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (4, 0), (1, 2), (2, 2), (4, 2)])
def test_ranks_and_workers_see_what_one_process_saw_of_the_plain_files(
    plain: Path, packed: Path, ranks: int, workers: int
) -> None:
    def batches(path: Path, rank: int, world_size: int, workers: int) -> list[dict[str, Any]]:
        settings: dict[str, Any] = {"num_frames": 3, "image_size": 32, "sampling": "headtail", "seed": 1}
        data = dataset_of(open_source(path, path.parent), training=True, **settings)
        loader = TrainLoader(
            Mixture([Source("pairs", data)]),
            **{"batch_size": 8, "accumulate": 1, "seed": 1, "workers": workers},
            **{"rank": rank, "world_size": world_size},
        )
        return [batch for epoch in range(2) for batch in loader.epoch(epoch, first_step=epoch)]

    expected = batches(plain / "pairs.jsonl", 0, 1, 0)
    assert len(expected) == 3 and any(batch["failed"] for batch in expected)
    of_ranks = [batches(packed, rank, ranks, workers) for rank in range(ranks)]
    for step, one in enumerate(expected):
        parts = [of_rank[step] for of_rank in of_ranks]
        assert torch.equal(torch.cat([part["clip"].pixels for part in parts]), one["clip"].pixels)
        assert [text for part in parts for text in part["text"]] == one["text"]
        assert torch.cat([part["row"] for part in parts]).tolist() == one["row"].tolist()
    failed = {failure["video"] for of_rank in of_ranks for batch in of_rank for failure in batch["failed"]}
    assert failed == {f"{packed.parent}/pairs-000000.tar/000000003.mp4"}


@pytest.mark.parametrize("folder", ["videos", "hard"])
def test_real_files_give_the_same_frames_or_the_same_reason_from_a_shard(
    real_data: Path, tmp_path: Path, folder: str
) -> None:
    # All that are hard; of the clips those that are no mp4 and a few that are.
    paths = sorted((real_data / "clips" / folder).iterdir(), key=lambda path: (path.suffix, path.name))
    paths = paths if folder == "hard" else [paths[0], *paths[-4:]]
    members = members_of(write_tar(tmp_path / "a.tar", *((path.name, path.read_bytes()) for path in paths)))
    results: list[list[Any]] = []
    for files in (paths, [members[path.name] for path in paths]):
        results.append([])
        for file in files:
            try:
                results[-1].append(read_video(file if isinstance(file, ShardMember) else str(file), 64, four))
            except DecodeError as error:
                assert error.path == str(file)
                # Of a shard FFmpeg knows its path only.
                results[-1].append(error.reason.replace(str(file), "FILE").replace(f"{tmp_path}/a.tar", "FILE"))
    for path, from_file, from_shard in zip(paths, *results, strict=True):
        assert type(from_file) is type(from_shard), path.name
        if isinstance(from_file, str):
            assert from_file == from_shard
        else:
            assert torch.equal(from_file, from_shard), path.name
    assert sum(isinstance(result, str) for result in results[0]) == (4 if folder == "hard" else 0)


def test_parts_and_images_of_a_shard(plain: Path, packed: Path) -> None:
    table = open_source(packed, packed.parent)
    assert frame_numbers(read_video(table.file(5), 32, lambda length: np.arange(length), *table.span(5))) == [2, 3, 4]
    assert torch.equal(read_image(table.file(9)), read_image(str(plain / "9.png")))
    with pytest.raises(DecodeError, match=r"tar/000000005.mp4: start 7 s lies behind the end"):
        read_video(table.file(5), 32, four, 7)


def test_what_others_write_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """img2dataset's and video2dataset's: captions in .txt and .json, folders, dots in suffixes, long names."""
    long = "n" * 150
    write_tar(
        tmp_path / "a.tar",
        *(("x/0.jpg", b"0"), ("x/0.txt", "  a dog\n"), ("x/0.json", {"caption": None, "url": "u"})),
        *(("v.1/1.mp4", b"11"), ("v.1/1.json", {"caption": "a cat"}), ("v.1/1.txt", "not this"), ("v.1/1.m4a", b"")),
        *((f"{long}.en.txt", "no caption of ours"), (f"{long}.txt", "long"), (f"{long}.WEBM", b"222")),
        *(("__meta__/a.json", "not JSON"), ("no_words.mp4", b"3"), ("no_words.txt", "...")),
        *(("no_caption.mp4", b"4"), ("no_video.txt", "words")),
    )
    write_tar(tmp_path / "b.tar", ("x/0.png", b"5"), ("x/0.json", {"caption": ["one", "!", "two"], "start": None}))
    table = open_source(write_index(tmp_path, a=6, b=1), tmp_path)
    assert list(table.texts) == ["  a dog\n", "a cat", "long", "one", "two"] and table.left_out == 3
    assert [str(table.file(video)) for video in (0, 1, 3)] == [
        f"{tmp_path}/{name}" for name in ("a.tar/x/0.jpg", "a.tar/v.1/1.mp4", "b.tar/x/0.png")
    ]
    assert [table.file(video).size for video in range(4)] == [1, 2, 3, 1]  # type: ignore[union-attr]
    assert "a.tar: 1 samples without a video or an image are left out, the first is no_video" in caplog.text


def link(name: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../0.mp4", b"0")], r"a.tar: member '../0.mp4' climbs out of the shard"),
        ([("/tmp/0.mp4", b"0")], r"a.tar: member '/tmp/0.mp4' climbs out"),
        ([("x/../../0.mp4", b"0")], r"climbs out"),
        ([(link("0.mp4"), b"")], r"a.tar: member '0.mp4' is a link or a device"),
        ([(link("0.mp4", tarfile.LNKTYPE), b"")], "is a link or a device"),
        ([(link("0.mp4", tarfile.CHRTYPE), b"")], "is a link or a device"),
        ([(link("0.mp4", tarfile.FIFOTYPE), b"")], "is a link or a device"),
        ([("0.mp4", b"0"), ("0.avi", b"0")], r"a.tar/0.avi: a second video or image of its sample, beside 0.mp4"),
        ([("0.mp4", b"0"), ("0.json", "{")], r"a.tar/0.json: not JSON"),
        ([("0.mp4", b"0"), ("0.json", "[]")], r"a.tar/0.json: found list, not an object"),
        ([("0.mp4", b"0"), ("0.json", {"caption": 3})], r"a.tar/0.json: caption is 3; write a text"),
        ([("0.mp4", b"0"), ("0.json", {"caption": "a", "start": -1})], r"a.tar/0.json: start is -1"),
        ([("0.jpg", b"0"), ("0.json", {"caption": "a", "end": 1})], r"end has no effect on an image"),
        ([("0.mp4", b"0"), ("0.txt", b"\xff")], r"a.tar/0.txt: not UTF-8"),
        ([("0.mp4", b"0"), ("0.txt", b"a"), ("0.txt", b"b")], r"a.tar/0.txt: stands twice in its sample"),
        ([("0.mp4", b"0"), ("0.txt", b" " * (1 << 20) + b"a")], r"a.tar/0.txt: 1048577 bytes are no captions"),
        ([("0.mp4", b"0"), ("1.mp4", b"0")], r"a.tar: 2 samples where .*index.json says 1"),
    ],
)
def test_members_that_are_refused(tmp_path: Path, members: list[tuple[Any, Any]], message: str) -> None:
    write_tar(tmp_path / "a.tar", *members)
    with pytest.raises(ValueError, match=message):
        open_source(write_index(tmp_path, a=1), tmp_path)


def cut(data: bytes) -> bytes:
    """Between the last two members, where tarfile sees nothing wrong."""
    return data[:5120]


def flip(data: bytes) -> bytes:
    """Another byte in the second sample's first header, which is behind a header, a block, a header and a block."""
    return data[:2050] + bytes([data[2050] ^ 0x55]) + data[2051:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"a.tar: cut off after 2.mp4; get the shard again"),
        (flip, r"a.tar: damaged after 0.txt, what follows is no header; get the shard again"),
        (lambda data: data[:2048] + bytes(512) + data[2560:], r"a.tar: damaged after 0.txt"),
        (lambda data: data[:2048], r"a.tar: cut off after 0.txt; get the shard again"),
        (lambda data: data[:2048] + bytes(1024), r"a.tar: 1 samples where .*index.json says 3"),
        (lambda data: b"x" + data[1:], r"a.tar: damaged after its beginning"),
        (lambda data: data[:5000], r"a.tar: damaged (in|after) .*; get the shard again"),
        (lambda data: b"", r"a.tar: damaged after its beginning \(empty file\)"),
        (lambda data: b"\x1f\x8b\x08" + data, r"a.tar: compressed with gzip, .*unpack it to a plain .tar"),
    ],
)
def test_damaged_shards_are_named(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    pairs = [(f"{number}.{suffix}", "word") for number in range(3) for suffix in ("mp4", "txt")]
    path = write_tar(tmp_path / "a.tar", *pairs)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        open_source(write_index(tmp_path, a=3), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wids_version": 2}, r"index.json: __kind__ 'wids-shard-index-v1', wids_version 2; an index of shards has"),
        ({"__kind__": "other"}, r"index.json: __kind__ 'other'"),
        ({"shardlist": []}, r"index.json: no shards"),
        ({"shardlist": [{"url": "a.tar"}]}, r"shardlist\[0\] is {'url': 'a.tar'}; write"),
        ({"shardlist": [{"url": "ftp://site/a.tar", "nsamples": 1}]}, r"shardlist\[0\]: ftp:// is no kind of address"),
        ({"shardlist": [{"url": "pipe:cat a.tar", "nsamples": 1}]}, r"download the shards"),
        ({"shardlist": [{"url": "gone.tar", "nsamples": 1}]}, r"gone.tar: no such file; get the shard again"),
        ({"shardlist": [{"url": "a.tar", "nsamples": 1}] * 2}, r"index.json: names a shard twice"),
        ({"shardlist": [{"url": "a.tar", "nsamples": 1, "filesize": 7}]}, r"a.tar: 10240 bytes where .* says 7"),
        ({"datasets": [{"source_url": "b.json"}]}, r"index.json: names other indices under 'datasets'"),
    ],
)
def test_indices_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_tar(tmp_path / "a.tar", ("0.mp4", b"0"), ("0.txt", "word"))
    path = write_index(tmp_path, a=1)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        open_source(path, tmp_path)


def test_a_shard_that_changes_is_noticed_when_it_is_read_and_when_it_is_opened(
    plain: Path, packed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = tmp_path / "pairs-000000.tar"
    shard.write_bytes((packed.parent / shard.name).read_bytes())
    index = tmp_path / "index.json"
    index.write_text(packed.read_text())
    table = open_source(index, tmp_path)
    os.utime(shard, ns=(0, 1))
    for file in (table.file(0), table.file(9)):
        with pytest.raises(DecodeError, match=r"pairs-000000.tar/00000000\d.\w+: the shard has changed since it was"):
            read_image(file) if str(file).endswith("png") else read_video(file, 32, four)
    again = open_source(index, tmp_path)
    assert "another state of the file; indexing it again" in caplog.text
    assert frame_numbers(read_video(again.file(0), 32, lambda length: np.arange(3))) == [0, 1, 2]
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(DecodeError, match="the shard has changed"):
        read_video(again.file(0), 32, four)
    shard.unlink()
    with pytest.raises(DecodeError, match=r"pairs-000000.tar/000000000.mp4: no such shard"):
        read_video(again.file(0), 32, four)
    assert not is_there(again, 0)


def test_a_list_of_pairs_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "pairs.json").write_text('[{"path": "a.mp4", "caption": "about a \\"shardlist\\""}]')
    assert open_source(tmp_path / "pairs.json", tmp_path).path(0) == f"{tmp_path}/a.mp4"


def test_keys_end_at_the_first_dot_of_the_last_part() -> None:
    assert [shards.split_key(name) for name in ("a.mp4", "x.y/a.b.json", "x/a", "x/.a")] == [
        *(("a", "mp4"), ("x.y/a", "b.json"), ("x/a", ""), ("x/", "a"))
    ]


def test_wids_reads_what_we_write(plain: Path, packed: Path) -> None:
    """Releases of the package `webdataset` before 1.0 hold `wids`."""
    wids = pytest.importorskip("wids")
    data = wids.ShardListDataset(str(packed), cache_dir=str(packed.parent), keep=True, transformations=[])
    table = open_source(packed, packed.parent)
    assert len(data) == table.num_videos
    for number in (0, 5, 9):
        sample = data[number]
        file = Path(table.path(number))
        assert sample["__key__"] == file.stem
        assert sample[file.suffix].getvalue() == (plain / f"{number}{file.suffix}").read_bytes()
        assert json.load(sample[".json"])["video"] == f"{number}{file.suffix}"


def test_webdataset_reads_what_we_write(packed: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    samples = list(webdataset.WebDataset(str(packed.parent / "pairs-000000.tar"), shardshuffle=False))
    table = open_source(packed, packed.parent)
    assert [f"{sample['__key__']}" for sample in samples] == [Path(table.path(video)).stem for video in range(10)]
