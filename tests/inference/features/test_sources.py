"""Which clips a source names that lies elsewhere, or whose videos do."""

import json
from pathlib import Path

import pytest

from datasets.remote.addresses import RemoteFolder
from inference.features.folder import read_clips
from inference.features.sources import clips_of, tags_of, with_addresses
from tests.unreliable_server import serving


def test_clips_are_written_without_their_secrets_and_opened_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDEO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("VIDEO_TRIES", "1")
    with serving({"d/videos/a.mp4": b"1", "d/videos/b.mp4": b"22", "d/videos/notes.txt": b"3"}) as server:
        plain, signed = f"{server.address}/d/videos/b.mp4", f"{server.address}/d/videos/a.mp4?sig=5ecre7"
        rows = [
            {"video": signed, "caption": "one", "start": 1, "end": 2, "tags": ["news"]},
            {"video": "b.mp4", "caption": "two"},
            {"video": "gone.mp4", "caption": "three"},
        ]
        server.files["d/list.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
        source = RemoteFolder(f"{server.address}/d/list.jsonl")

        clips = clips_of(source, None)
        gone = plain.replace("b.mp4", "gone.mp4")
        assert [clip.video for clip in clips] == [signed.removesuffix("?sig=5ecre7"), plain, gone]
        assert [clip.file for clip in clips] == [signed, plain, gone]
        assert [clip.size for clip in clips] == [1, 2, None]
        assert tags_of(source, None) == {(clips[0].video, 1, 2): ("news",)}

        written = tmp_path / "clips.jsonl"
        written.write_text("".join(json.dumps(clip.row) + "\n" for clip in clips))
        assert "5ecre7" not in written.read_text()
        read = read_clips(written)
        assert read == clips and read[0].file != signed
        assert [clip.file for clip in with_addresses(read, source, None)] == [signed, plain, gone]

        folder = clips_of(RemoteFolder(f"{server.address}/d/videos"), None)
        assert [(clip.video[-5:], clip.size) for clip in folder] == [("a.mp4", 1), ("b.mp4", 2)]
        # The state of a file is the same whoever asks for it.
        assert folder[1] == clips[1]
        with pytest.raises(ValueError, match="--videos: has no effect"):
            clips_of(RemoteFolder(f"{server.address}/d/videos"), tmp_path)
