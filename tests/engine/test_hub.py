"""Addresses of checkpoints, with the hub's own functions replaced: nothing here goes over a network."""

import socket
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from huggingface_hub import constants, errors

from configs.load import dump, from_dict, load_to_evaluate
from configs.schema import RetrievalConfig
from engine import hub
from engine.hub import local_path, tokenizer_folder, why_unreachable

REPOSITORY = ("own.py", "vocab.txt", "tokenizer.py", "model.safetensors", "config.yaml", "state.json", "answers.json",
              "random.json", "optimizer.safetensors", "tokenizer/tokenizer.json", "README.md", "best/model.safetensors",
              "best/config.yaml", "best/tokenizer/vocab.txt", "best/random.json")  # fmt: skip


@pytest.fixture(autouse=True)
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub counts as reachable without being asked."""
    monkeypatch.setattr(hub, "why_unreachable", lambda: None)


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's two functions over a repository `owner/name`, of which only what is asked for is downloaded."""
    cache = tmp_path / "cache"

    def fetch(repository: str, name: str, revision: str | None, dry_run: bool) -> Any:
        target = cache / repository / (revision or "main") / name
        if dry_run:
            return planned(name, size=len(name), fetched=not target.exists())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(name)
        return str(target)

    def download(repository: str, *, filename: str, revision: str | None, dry_run: bool = False) -> Any:
        return fetch(repository, filename, revision, dry_run)

    def snapshot(
        repository: str,
        *,
        revision: str | None,
        allow_patterns: list[str],
        ignore_patterns: Sequence[str] = (),
        dry_run: bool = False,
    ) -> Any:
        found = []
        for name in REPOSITORY:
            wanted = any(fnmatch(name, pattern) for pattern in allow_patterns)
            if wanted and not any(fnmatch(name, pattern) for pattern in ignore_patterns):
                found.append(fetch(repository, name, revision, dry_run))
        return found if dry_run else str(cache / repository / (revision or "main"))

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    return cache


def planned(name: str, size: int | None, fetched: bool = True) -> SimpleNamespace:
    """What a dry run says of a file."""
    return SimpleNamespace(filename=name, file_size=size, will_download=fetched)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_fetched_alone(fake_hub: Path) -> None:
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


def test_a_folder_without_weights_is_refused(fake_hub: Path) -> None:
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
            r"is not on this machine, and the hub cannot be reached \(it did not answer\); fetch it where there is",
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
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, dry_run=False, **__: [] if dry_run else str(tmp_path))
    config = load_to_evaluate(RetrievalConfig, None, ["checkpoint=hf://owner/name"], local_path("hf://owner/name"))
    assert (config.model.depth, config.checkpoint) == (4, "hf://owner/name")


def test_a_tokenizer_comes_without_code_and_without_weights(fake_hub: Path, tmp_path: Path) -> None:
    assert tokenizer_folder(str(tmp_path)) == tmp_path
    found = tokenizer_folder("bert-base-uncased")
    assert found == fake_hub / "bert-base-uncased" / "main" and files(found) == {"vocab.txt"}


@pytest.mark.parametrize("address", ["hf://owner/name/file.pth", "hf://owner/name"])
@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([hub.LARGEST_GB * 10**9 + 10**8], r"would download 20.1 GB, more than 20; name a single file, or download"),
        ([15 * 10**9, 15 * 10**9], r"would download 30.0 GB, more than 20"),
        ([5, None], "the hub does not say how large file1 is; download it yourself and give its path"),
    ],
)
def test_what_is_too_large_is_not_begun(
    monkeypatch: pytest.MonkeyPatch, address: str, sizes: list[int | None], words: str
) -> None:
    answer = Mock(return_value=[planned(f"file{number}", size) for number, size in enumerate(sizes)])
    monkeypatch.setattr(hub, "hf_hub_download", answer)
    monkeypatch.setattr(hub, "snapshot_download", answer)
    with pytest.raises(ValueError, match=f"^checkpoint: {address}: {words}"):
        local_path(address)
    with pytest.raises(ValueError, match=f"^model.text.tokenizer: 'large' is no local folder .*{words}"):
        tokenizer_folder("large")
    assert [call.kwargs["dry_run"] for call in answer.call_args_list] == [True, True]


def test_what_is_here_already_may_be_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    here = planned("file.pth", 10**12, fetched=False)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, dry_run=False, **__: here if dry_run else "/there/file.pth")
    assert local_path("hf://owner/name/file.pth") == Path("/there/file.pth")


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionError("no network"), "is not on this machine, and the hub cannot be reached"),
        (errors.GatedRepoError("gated", response=ANSWER), "is gated"),
    ],
)
def test_without_the_hub_earlier_downloads_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cause: Exception, words: str
) -> None:
    """The hub's own function then fetches nothing, and a dry run of it fails."""
    (tmp_path / "model.safetensors").touch()
    here = [tmp_path]

    def snapshot(repository: str, *, dry_run: bool = False, local_files_only: bool = False, **_: Any) -> str:
        if dry_run:
            raise errors.DryRunError("no network") from cause
        assert local_files_only
        if not here:
            raise errors.LocalEntryNotFoundError("not here")
        return str(here[0])

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert local_path("hf://owner/name") == tmp_path
    here.clear()
    with pytest.raises(ValueError, match=f"^checkpoint: hf://owner/name: {words}"):
        local_path("hf://owner/name")


def test_without_a_network_the_hub_is_asked_once_and_the_cache_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "why_unreachable", lambda: "no route")
    asked: list[dict[str, Any]] = []

    def snapshot(repository: str, **wanted: Any) -> str:
        asked.append(wanted)
        if repository == "bert-base-uncased":
            return str(tmp_path)
        raise errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert tokenizer_folder("bert-base-uncased", tmp_path / "cache") == tmp_path
    with pytest.raises(ValueError, match=r"^checkpoint: hf://o/n: is not .*\(no route\); fetch it where .*OFFLINE.md$"):
        local_path("hf://o/n", tmp_path / "cache")
    assert [(wanted["local_files_only"], wanted["cache_dir"]) for wanted in asked] == [(True, tmp_path / "cache")] * 2
    assert not any("dry_run" in wanted for wanted in asked)


def test_a_closed_port_and_offline_mode_are_distinguished_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real = why_unreachable.__wrapped__
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"https://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    start = time.monotonic()
    assert "refused" in (real() or "")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert real() == "HF_HUB_OFFLINE is set"
    assert time.monotonic() - start < 1


def test_any_answer_of_the_hub_means_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "get_session", lambda: Mock(head=Mock(return_value=ANSWER)))
    assert why_unreachable.__wrapped__() is None


def test_what_convert_checkpoint_says_of_a_tokenizer_names_its_own_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot_download", Mock(side_effect=errors.RepositoryNotFoundError("", response=ANSWER)))
    with pytest.raises(
        ValueError, match=r"^--tokenizer: 'x' is no .*; give a folder with vocab.txt or tokenizer.json$"
    ):
        tokenizer_folder("x", setting="--tokenizer", otherwise="")
    with pytest.raises(ValueError, match="^model.text.tokenizer: 'x' is no .*, or 'from_data' for a vocabulary"):
        tokenizer_folder("x")
