"""Which files a folder of videos is taken to hold."""

from pathlib import Path

from datasets.files_below import files_below


def test_links_are_followed_and_each_folder_is_entered_once(tmp_path: Path) -> None:
    (tmp_path / "top" / "inner").mkdir(parents=True)
    (tmp_path / "top" / ".hidden").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("top/a.mp4", "top/.b.mp4", "top/inner/c.mp4", "top/.hidden/d.mp4", "elsewhere/e.mp4"):
        (tmp_path / name).touch()
    top = tmp_path / "top"
    (top / "latest").symlink_to(top)
    (top / "newest").symlink_to(top / "inner")
    (top / "other").symlink_to(tmp_path / "elsewhere")
    assert sorted(files_below(top)) == [str(top / name) for name in ("a.mp4", "inner/c.mp4", "other/e.mp4")]
