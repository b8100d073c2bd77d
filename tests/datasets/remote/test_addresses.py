"""What is an address, what is shown of it, and how names in folders become one."""

from pathlib import Path

import pytest

from datasets.records import check_video_path, is_image
from datasets.remote.addresses import RemoteFolder, check_address, folder_of, identity, is_address, join, resolve, shown


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://me:pass@site.org:8080/a b.mp4", "https://site.org:8080/a b.mp4"),
        ("https://site.org/a.mp4?X-Amz-Signature=abc&X-Amz-Date=1&Expires=9", "https://site.org/a.mp4"),
        ("https://site.org/a.mp4?sv=1&sig=abc&se=2", "https://site.org/a.mp4"),
        ("https://site.org/watch?v=17&token=abc#t=3", "https://site.org/watch?v=17"),
        ("s3://key:secret@bucket/a.mp4?versionId=3", "s3://bucket/a.mp4?versionId=3"),
        ("s3://bucket/what?.mp4", "s3://bucket/what?.mp4"),
        ("hf://datasets/owner/repo@main/a.mp4", "hf://datasets/owner/repo@main/a.mp4"),
        ("https://[broken/a.mp4?sig=abc", "https://"),
        ("/videos/a.mp4?sig=abc", "/videos/a.mp4?sig=abc"),
    ],
)
def test_what_is_shown_holds_no_secret(address: str, expected: str) -> None:
    assert shown(address) == expected


def test_unknown_parameters_are_hidden_and_still_tell_files_apart() -> None:
    one, other = (f"https://site.org/get?k={secret}" for secret in ("s3cret", "0ther"))
    assert shown(one) != shown(other) and "s3cret" not in shown(one)
    assert shown(one).startswith("https://site.org/get?k=hidden-")
    assert identity(one) != identity(other)
    assert identity("https://me:p@site.org/a?sig=1") == identity("https://site.org/a?sig=2")


def test_kinds_of_addresses() -> None:
    kinds = ("http", "https", "s3", "gs", "gcs", "hf", "memory")
    assert all(is_address(f"{kind}://a/b.mp4") for kind in kinds)
    assert not any(is_address(path) for path in ("/a/b.mp4", "a:b.mp4", "file:///a.mp4", "ftp://a/b.mp4", "a//b"))
    check_address("file:///a.mp4")
    with pytest.raises(ValueError, match="ftp:// is no kind of address that is read; known are http://"):
        check_video_path("ftp://site/a.mp4")
    assert is_image("https://site.org/a.JPG?sig=abc") and not is_image("https://site.org/a.mp4?name=b.jpg")


def test_names_in_folders() -> None:
    assert join("/videos", "a.mp4") == "/videos/a.mp4"
    assert join("/videos", "s3://bucket/a.mp4") == "s3://bucket/a.mp4"
    assert join("s3://bucket/videos/", "x/a b?.mp4") == "s3://bucket/videos/x/a b?.mp4"
    assert join("https://site.org/videos", "x/a b?#%.mp4") == "https://site.org/videos/x/a%20b%3F%23%25.mp4"
    assert join("https://site.org", "/here/a.mp4") == "/here/a.mp4"
    assert join("/videos", "file:///b/a%20b.mp4") == "/b/a b.mp4"
    assert resolve(Path("/videos"), "./x//a.mp4") == "/videos/x/a.mp4"
    assert resolve(folder_of("s3://bucket/videos"), "a.mp4") == "s3://bucket/videos/a.mp4"
    assert folder_of("file:///videos") == Path("/videos") and folder_of("videos") == Path("videos")


def test_a_folder_with_a_secret_is_refused() -> None:
    assert str(RemoteFolder("s3://bucket/a/") / "b") == "s3://bucket/a/b"
    for address in ("https://me:s3cret@site.org/a", "https://site.org/a?sig=s3cret"):
        with pytest.raises(ValueError, match="may hold no user") as error:
            folder_of(address)
        assert "s3cret" not in str(error.value)
