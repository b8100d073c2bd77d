"""Addresses of checkpoints, with the hub's own functions replaced: nothing here goes over a network."""

from fnmatch import fnmatch
from pathlib import Path
from unittest.mock import Mock

import pytest
from huggingface_hub import constants, errors

from configs.load import dump, from_dict, load_to_evaluate
from configs.schema import RetrievalConfig
from engine import hub
from engine.hub import local_path

REPOSITORY = ("model.safetensors", "config.yaml", "state.json", "answers.json", "random.json", "optimizer.safetensors",
              "tokenizer/tokenizer.json", "README.md", "best/model.safetensors", "best/config.yaml",
              "best/tokenizer/vocab.txt", "best/random.json")  # fmt: skip


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's two functions over a repository `owner/name`, of which only what is asked for is downloaded."""
    cache = tmp_path / "cache"

    def fetch(repository: str, name: str, revision: str | None) -> Path:
        target = cache / repository / (revision or "main") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(name)
        return target

    def download(repository: str, name: str, *, revision: str | None) -> str:
        return str(fetch(repository, name, revision))

    def snapshot(
        repository: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        for name in REPOSITORY:
            wanted = any(fnmatch(name, pattern) for pattern in allow_patterns)
            if wanted and not any(fnmatch(name, pattern) for pattern in ignore_patterns):
                fetch(repository, name, revision)
        return str(cache / repository / (revision or "main"))

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    return cache


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_had_alone(fake_hub: Path) -> None:
    found = local_path("hf://owner/name/sub/file.pth")
    assert found == fake_hub / "owner/name/main/sub/file.pth" and found.read_text() == "sub/file.pth"
    assert local_path("hf://owner/name@v1/model.safetensors").parent == fake_hub / "owner/name/v1"
    assert files(fake_hub / "owner/name/v1") == {"model.safetensors"}


def test_a_folder_comes_with_its_configuration_and_tokenizer(fake_hub: Path) -> None:
    inside = local_path("hf://owner/name@a1b2/best")
    assert inside == fake_hub / "owner/name/a1b2/best"
    assert files(inside) == {"model.safetensors", "config.yaml", "tokenizer/vocab.txt"}
    whole = local_path("hf://owner/name")
    expected = {"model.safetensors", "config.yaml", "state.json", "answers.json", "tokenizer/tokenizer.json"}
    assert {name for name in files(whole) if not name.startswith("best/")} == expected
    assert whole == local_path("hf://owner/name/")


def test_a_folder_without_weights_is_said_to_have_none(fake_hub: Path) -> None:
    address = "hf://owner/name/worst"
    with pytest.raises(ValueError, match=f"^checkpoint: {address}: its folder worst holds no model.safetensors; name"):
        local_path(address)


def test_local_paths_stay_as_they_are(tmp_path: Path) -> None:
    assert local_path(str(tmp_path)) == tmp_path
    with pytest.raises(ValueError, match=f"^checkpoint: {tmp_path / 'gone'} does not exist$"):
        local_path(str(tmp_path / "gone"))


@pytest.mark.parametrize(
    "address", ["hf://", "hf://owner", "hf://owner/@x/f.pth", "hf://o/n@/f.pth", "hf://o/n/../f.pth"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match=f"^checkpoint: {address}: is no address of the form hf://OWNER/REPO"):
        local_path(address)


def test_other_addresses_and_unencrypted_hubs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="^checkpoint: https://a/b.pth: an address begins with hf://"):
        local_path("https://a/b.pth")
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror")
    with pytest.raises(ValueError, match="HF_ENDPOINT is http://mirror; only https is used$"):
        local_path("hf://owner/name/file.pth")


ANSWER = Mock(headers={}, request=Mock(), status_code=404)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            errors.LocalEntryNotFoundError("offline"),
            "is not on this machine, and the hub cannot be reached; download",
        ),
        (errors.GatedRepoError("gated\nmore", response=ANSWER), "is gated; accept its terms on the hub, then log in"),
        (errors.RepositoryNotFoundError("404", response=ANSWER), "there is no such repository, or it is private"),
        (errors.RevisionNotFoundError("404", response=ANSWER), "the repository has no such revision"),
        (errors.RemoteEntryNotFoundError("404", response=ANSWER), "the repository has no such file"),
        (errors.HfHubHTTPError("500\nwent wrong", response=ANSWER), "500 went wrong"),
        (OSError(28, "No space left on device"), ".*No space left on device"),
    ],
)
def test_what_goes_wrong_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    monkeypatch.setattr(hub, "hf_hub_download", Mock(side_effect=error))
    monkeypatch.setattr(hub, "snapshot_download", Mock(side_effect=error))
    for address in ("hf://owner/name/file.pth", "hf://owner/name"):
        with pytest.raises(ValueError, match=f"^checkpoint: {address}: {words}") as caught:
            local_path(address)
        assert "\n" not in str(caught.value)


def test_an_evaluation_takes_the_configuration_beside_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {"data": {"root": "/d"}, "optim": {"lr": 1e-4}, "train": {"batch_size": 8, "max_epochs": 3}}
    trained = from_dict(RetrievalConfig, {**sections, "task": "retrieval", "model": {"depth": 4}}, "test")
    dump(trained, tmp_path / "config.yaml")
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr(hub, "snapshot_download", Mock(return_value=str(tmp_path)))
    config = load_to_evaluate(RetrievalConfig, None, ["checkpoint=hf://owner/name"], local_path)
    assert (config.model.depth, config.checkpoint) == (4, "hf://owner/name")
