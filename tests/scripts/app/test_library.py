"""The videos of an index that lie elsewhere, on the page: names, what is played, and what cannot be had."""

from pathlib import Path

import pytest

from datasets.remote import fetch
from scripts.app.library import Library
from scripts.app.playback import still
from tests.unreliable_server import serving
from tests.videos import grey_steps, write_video


def test_videos_at_addresses_are_played_from_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("VIDEO_TRIES", "1")
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.01)
    (tmp_path / "page").mkdir()
    played = write_video(tmp_path / "a.mp4", grey_steps(4)).read_bytes()
    copied = write_video(tmp_path / "b.avi", grey_steps(4), codec="mpeg4").read_bytes()
    with serving({"v/x/a.mp4": played, "v/b.avi": copied}) as server:
        paths = [f"{server.address}/v/{name}" for name in ("x/a.mp4", "b.avi", "gone.mp4")]
        library = Library(paths, tmp_path / "page")
        assert [video.name for video in library.of_index(0, 3)] == ["x/a.mp4", "b.avi", "gone.mp4"]

        as_it_is, made, gone = (library.indexed(path) for path in paths)
        assert library.playable(as_it_is).path.read_bytes() == played
        assert library.playable(made).is_copy and library.playable(made).path.parent == tmp_path / "page"
        with pytest.raises(ValueError, match=r"gone.mp4: cannot be read \(the server answers 404"):
            library.playable(gone)
        assert still(as_it_is.path, 0.1).startswith(b"\xff\xd8")

        mixed = Library([paths[0], str(tmp_path / "a.mp4")], tmp_path / "page")
        assert [video.name for video in mixed.of_index(0, 2)] == [paths[0], str(tmp_path / "a.mp4")]
