"""Fetching from a server that fails, stalls, cuts off and lies: every byte arrives, or an error that says which."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.config import conf

from datasets.remote import fetch
from datasets.remote.fetch import beating, fetched, look_at, look_at_all
from datasets.remote.streams import Range, RemoteError, State
from datasets.video.files import DecodeError, at_hand
from tests import stand_in_hub
from tests.unreliable_server import UnreliableServer, serving

CONTENT = bytes(range(256)) * 9000  # more than one chunk
STALLS = ("stall", "silent")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnreliableServer]:
    """A server, and settings with which waits are short."""
    monkeypatch.setenv("VIDEO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("VIDEO_STALL_SECONDS", "10")
    monkeypatch.setenv("VIDEO_TRIES", "3")
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.01)
    with serving({"a b.mp4": CONTENT, "empty.mp4": b""}) as serving_one:
        yield serving_one


def content_of(address: str, part: Range | None = None) -> bytes:
    with fetched(address, part) as file:
        return Path(file.path).read_bytes()


def cached_files() -> list[Path]:
    folder = fetch.current().cache_dir
    return [path for name in ("files", "incoming") for path in (folder / name).rglob("*") if path.is_file()]


def test_a_file_is_fetched_once_and_again_when_it_changed(server: UnreliableServer) -> None:
    address = f"{server.address}/a b.mp4"
    assert content_of(address) == CONTENT
    (kept,) = cached_files()
    assert kept.suffix == ".mp4"
    inode = kept.stat().st_ino
    assert content_of(address) == CONTENT
    assert [path.stat().st_ino for path in cached_files()] == [inode]

    server.files["a b.mp4"] = CONTENT[::-1]
    assert content_of(address) == CONTENT[::-1]
    assert len(cached_files()) == 2


@pytest.mark.parametrize("fault", ["500", "503", "429", "stall", "silent", "cut", "short", "long"])
def test_what_may_pass_is_tried_again(server: UnreliableServer, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    if fault in STALLS:
        monkeypatch.setenv("VIDEO_STALL_SECONDS", "0.3")
    server.faults["a b.mp4"] = [fault, fault]
    assert content_of(f"{server.address}/a b.mp4") == CONTENT
    assert server.asked["a b.mp4"] == 3
    assert len(cached_files()) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            "503",
            r"the server answers 503 Service Unavailable \(try 3 of 3\); try again later, or raise data.remote.tries",
        ),
        ("429", r"answers 429 Too Many Requests \(try 3 of 3\); the server is asked too often; lower train.workers"),
        ("stall", r"no byte came for 0.3 seconds \(try 3 of 3\); try again later"),
        ("silent", r"no byte came for 0.3 seconds \(try 3 of 3\)"),
        ("cut", rf"only {len(CONTENT) // 2} bytes came where the server promised {len(CONTENT)} \(try 3 of 3\)"),
        ("short", rf"only {len(CONTENT)} bytes came where the server promised {len(CONTENT) + 10}"),
        ("long", rf"more bytes came where the server promised {len(CONTENT) - 10} \(try 3 of 3\)"),
    ],
)
def test_what_does_not_pass_is_an_error_and_leaves_nothing(
    server: UnreliableServer, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    if fault in STALLS:
        monkeypatch.setenv("VIDEO_STALL_SECONDS", "0.3")
    server.faults["a b.mp4"] = [f"{fault}*"]
    with pytest.raises(RemoteError, match=reason) as error:
        content_of(f"{server.address}/a b.mp4")
    assert error.value.passing and server.asked["a b.mp4"] == 3
    assert cached_files() == []
    used = fetch.current().cache_dir / "used"
    assert not used.exists() or used.read_text() == "0"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("404", r"answers 404 Not Found \(try 1 of 3, another is of no use\); check the address"),
        ("403", r"answers 403 Forbidden .*; check the credentials, or sign the address again"),
        ("401", "answers 401 Unauthorized .*; set the credentials"),
        ("to:file:///etc/passwd", "refers to what is no web address"),
    ],
)
def test_what_will_not_pass_is_asked_for_once(server: UnreliableServer, fault: str, reason: str) -> None:
    server.faults["a b.mp4"] = [f"{fault}*"]
    with pytest.raises(RemoteError, match=reason):
        content_of(f"{server.address}/a b.mp4")
    assert server.asked["a b.mp4"] == 1


def test_an_empty_file_and_a_server_that_is_not_there(server: UnreliableServer) -> None:
    assert content_of(f"{server.address}/empty.mp4") == b""
    with pytest.raises(DecodeError, match=r"/empty.mp4: the file is empty"), at_hand(f"{server.address}/empty.mp4"):
        pass
    with pytest.raises(RemoteError, match=r"ConnectionRefusedError.* \(try 3 of 3\)"):
        content_of("http://127.0.0.1:9/a.mp4")


def test_a_body_of_unknown_length_is_read_to_its_end(server: UnreliableServer) -> None:
    server.faults["a b.mp4"] = ["no_length"]
    assert content_of(f"{server.address}/a b.mp4") == CONTENT


def test_a_redirect_is_followed_and_gets_no_password(server: UnreliableServer) -> None:
    with serving({"b.mp4": b"elsewhere"}) as other:
        server.faults["a b.mp4"] = [f"to:{other.address}/b.mp4"]
        address = server.address.replace("http://", "http://me:secret@")
        assert content_of(f"{address}/a b.mp4") == b"elsewhere"
        assert "Authorization" in server.headers["a b.mp4"]
        assert "Authorization" not in other.headers["b.mp4"]


def test_what_fsspec_is_configured_to_send_is_sent(server: UnreliableServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a variable of the environment gives it, FSSPEC_HTTP_HEADERS."""
    monkeypatch.setitem(conf, "http", {"headers": '{"Authorization": "Bearer word"}'})
    assert content_of(f"{server.address}/a b.mp4") == CONTENT
    assert server.headers["a b.mp4"]["Authorization"] == "Bearer word"


def test_part_of_a_file(server: UnreliableServer) -> None:
    address = f"{server.address}/a b.mp4"
    whole = look_at(address)
    assert content_of(address, Range(1000, 5000)) == CONTENT[1000:6000]
    with fetched(address, Range(7, 3), expected=whole) as file:
        assert Path(file.path).read_bytes() == CONTENT[7:10]
    with (
        pytest.raises(RemoteError, match="has changed since it was indexed"),
        fetched(address, Range(7, 3), State(whole.size, 1)),
    ):
        pass
    server.faults["a b.mp4"] = ["no_ranges"]
    with pytest.raises(RemoteError, match="sends no parts of files"):
        content_of(address, Range(8, 3))


def test_secrets_are_in_no_error_and_no_log(server: UnreliableServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    address = server.address.replace("http://", "http://me:s3cret-word@") + "/no.mp4?X-Amz-Signature=abc123def&k=v9v9v9"
    with pytest.raises(RemoteError) as error:
        content_of(address)
    said = str(error.value) + caplog.text
    assert not any(secret in said for secret in ("s3cret-word", "abc123def", "v9v9v9"))


def test_a_slow_fetch_beats(server: UnreliableServer) -> None:
    server.faults["a b.mp4"] = ["503"]
    beats: list[float] = []
    with beating(lambda: beats.append(time.monotonic())):
        content_of(f"{server.address}/a b.mp4")
    assert len(beats) > len(CONTENT) / 2**20


def test_many_are_looked_at_at_once(server: UnreliableServer) -> None:
    found = look_at_all([f"{server.address}/a b.mp4", f"{server.address}/no.mp4", "s3://bucket/a.mp4"])
    assert isinstance(found[0], State) and found[0].size == len(CONTENT)
    assert "404" in str(found[1])
    assert "s3:// takes the package s3fs (try 1 of 3, another is of no use); pip install s3fs" in str(found[2])


def test_threads_and_a_small_cache_share_each_fetch(server: UnreliableServer) -> None:
    """Eight readers of one file: it is written once; every one of them reads all of it."""
    read: list[bytes] = []
    threads = [threading.Thread(target=lambda: read.append(content_of(f"{server.address}/a b.mp4"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [CONTENT] * 8 and len(cached_files()) == 1


def test_what_fsspec_stores(server: UnreliableServer) -> None:
    """Its memory file system stands for s3 and others; the file is fetched again when it has changed."""
    stored = fsspec.filesystem("memory")
    stored.pipe("/videos/a.mp4", CONTENT)
    assert content_of("memory://videos/a.mp4") == CONTENT
    assert content_of("memory://videos/a.mp4", Range(5, 10)) == CONTENT[5:15]
    stored.pipe("/videos/a.mp4", CONTENT[::-1])
    assert content_of("memory://videos/a.mp4") == CONTENT[::-1]
    with pytest.raises(
        RemoteError, match=r"there is no such file .*try 1 of 3, another is of no use.*; check the addr"
    ):
        content_of("memory://videos/b.mp4")
    with pytest.raises(RemoteError, match="it is a folder"):
        content_of("memory://videos")
    stored.rm("/videos", recursive=True)


def test_what_the_hub_stores(server: UnreliableServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the hub's own file system; its stand-in knows no more than the few requests that this takes."""
    with stand_in_hub.serving({"me/videos": {"x/a.mp4": CONTENT, "b.mp4": b"b"}}) as hub:
        monkeypatch.setitem(conf, "hf", {"endpoint": hub.address, "token": False})
        assert content_of("hf://me/videos/x/a.mp4") == CONTENT
        assert content_of("hf://me/videos/x/a.mp4", Range(5, 10)) == CONTENT[5:15]
        with pytest.raises(RemoteError, match=r"there is no such file .*try 1 of 3, another is of no use"):
            content_of("hf://me/videos/no.mp4")
