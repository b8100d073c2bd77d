"""Features on disk are those of the API, each clip's once, whatever ended the runs in between and however many ran."""

import json
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import inference.features.folder as folder_module
from datasets.samples import Clip
from engine.folder_lock import only_writer
from inference.api import TrainedModel, load_model
from inference.features.folder import FeatureFolder, PartWriter
from scripts.extract_features.__main__ import main
from tests.gloo import run_ranks
from tests.integration.runs import train
from tests.tiny_runs import write_data, write_questions

NUM_VIDEOS = 7
ONE_EPOCH: dict[str, Any] = {"train": {"max_epochs": 1, "batch_size": 4}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"), [1, 2] + [1] * (NUM_VIDEOS - 2))
    return write_questions(root, [1] * NUM_VIDEOS)


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    return train(root, root / "retrieval", "retrieval", **ONE_EPOCH) / "checkpoint_best"


@pytest.fixture(scope="module")
def answering(root: Path) -> Path:
    return train(root, root / "vqa", "vqa", **ONE_EPOCH) / "checkpoint_best"


@pytest.fixture(scope="module")
def expected(root: Path, checkpoint: Path) -> torch.Tensor:
    """Embeddings of all videos, in order."""
    model = load_model(checkpoint, device="cpu")
    return model.encode_video([root / "videos" / f"{number}.mp4" for number in range(NUM_VIDEOS)])


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many videos each batch held that was encoded."""
    sizes: list[int] = []
    count_encoded(monkeypatch, sizes)
    yield sizes


def count_encoded(monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    """Add to `sizes` how many videos each batch holds from now on, whether its tokens are asked for or not."""

    def counting(encode: Any) -> Any:
        def counted(model: TrainedModel, clips: Clip) -> Any:
            sizes.append(len(clips.pixels))
            return encode(model, clips)

        return counted

    for name in ("encode_clips", "embeddings_of"):
        monkeypatch.setattr(TrainedModel, name, counting(getattr(TrainedModel, name)))


def extract(source: Path, checkpoint: Path, out: Path, *more: object) -> int:
    """The exit status of the command, that reads videos in its own process unless told otherwise."""
    given = [source, "--checkpoint", checkpoint, "--out", out, "--batch-size", 2]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in (*given, *(() if "--workers" in more else ("--workers", 0)), *more)])
    return int(stop.value.code or 0)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def embeddings(out: Path) -> np.ndarray:
    """The rows, once it is sure that the index has a line for each of them and nothing else is left over."""
    found = np.load(out / "features" / "embeddings.npy", mmap_mode="r")
    index = lines(out / "features" / "index.jsonl")
    assert [line["row"] for line in index] == list(range(len(found)))
    assert {path.name for path in out.iterdir()} == {".lock", "extraction.json", "failed.jsonl", "features"}
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_is_encoded_as_by_the_api(
    root: Path, checkpoint: Path, expected: torch.Tensor, tmp_path: Path, workers: int
) -> None:
    assert extract(root / "videos", checkpoint, tmp_path / "out", "--workers", workers) == 0
    np.testing.assert_allclose(embeddings(tmp_path / "out"), expected, atol=2e-6)
    for number, line in enumerate(lines(tmp_path / "out" / "features" / "index.jsonl")):
        path = root / "videos" / f"{number}.mp4"
        state = path.stat()
        assert line == {
            **{"row": number, "video": str(path), "start": None, "end": None},
            **{"size": state.st_size, "mtime_ns": state.st_mtime_ns},
        }
    assert lines(tmp_path / "out" / "failed.jsonl") == []


def test_tokens_and_settings(root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    override = "aggregation.keep=0.5"
    assert extract(root / "videos", checkpoint, tmp_path / "out", "--tokens", "--json", override) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["videos"], counts["encoded"], counts["encoded_before"], counts["failed"]) == (NUM_VIDEOS, 7, 0, 0)
    found = load_model(checkpoint, override, device="cpu").encode_video(
        [root / "videos" / f"{number}.mp4" for number in range(NUM_VIDEOS)], return_tokens=True
    )
    np.testing.assert_allclose(embeddings(tmp_path / "out"), found.embedding, atol=2e-6)
    tokens = np.load(tmp_path / "out" / "features" / "tokens.npy", mmap_mode="r")
    np.testing.assert_allclose(tokens, found.tokens, atol=1e-5)


def test_sources_of_every_kind(root: Path, checkpoint: Path, expected: torch.Tensor, tmp_path: Path) -> None:
    clips = [{"video": "2.mp4", "caption": "a"}, {"video": "1.mp4", "caption": "b", "start": 0.2, "end": 0.5}]
    (tmp_path / "parts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*clips, clips[0]]))
    (tmp_path / "pairs.json").write_text(json.dumps([{"video": "3.mp4", "caption": "a"}] * 2))
    part = load_model(checkpoint, device="cpu").encode_video(root / "videos" / "1.mp4", 0.2, 0.5)
    sources: dict[Path, tuple[list[Any], tuple[Any, ...]]] = {
        root / "videos" / "4.mp4": ([expected[4]], ()),
        root / "captions.jsonl": (list(expected), ()),
        root / "questions.jsonl": (list(expected), ()),
        tmp_path / "parts.jsonl": ([expected[2], part], ("--videos", root / "videos")),
        tmp_path / "pairs.json": ([expected[3]], ("--videos", root / "videos")),
    }
    for source, (rows, more) in sources.items():
        assert extract(source, checkpoint, tmp_path / f"out_{source.name}", *more) == 0
        np.testing.assert_allclose(embeddings(tmp_path / f"out_{source.name}"), torch.stack(rows), atol=2e-6)
    spans = [(line["start"], line["end"]) for line in lines(tmp_path / "out_parts.jsonl" / "features" / "index.jsonl")]
    assert spans == [(None, None), (0.2, 0.5)]


class Killed(BaseException):
    """What ends a process from outside."""


ENDED: dict[str, tuple[type, str, int, int]] = {
    "while a part was written": (PartWriter, "write", 3, NUM_VIDEOS - 4),
    "before parts were put together": (FeatureFolder, "finish", 1, 0),
    "while parts were put together": (FeatureFolder, "_check_room", 1, 0),
}
"""What of the code was reached for the how manieth time, and how many videos were not encoded for good by then."""


@pytest.mark.parametrize("ended", ENDED)
def test_a_run_that_was_ended_goes_on(
    root: Path,
    checkpoint: Path,
    expected: torch.Tensor,
    tmp_path: Path,
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
    ended: str,
) -> None:
    out = tmp_path / "out"
    owner, name, times, left = ENDED[ended]
    monkeypatch.setattr(folder_module, "PART_SECONDS", 0.0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        method, calls = getattr(owner, name), []

        def killed(*arguments: Any) -> Any:
            calls.append(name)
            if len(calls) == times:
                raise Killed
            return method(*arguments)

        patch.setattr(owner, name, killed)
        extract(root / "videos", checkpoint, out)
    assert not (out / "features").exists()
    encoded.clear()
    assert extract(root / "videos", checkpoint, out) == 0
    assert sum(encoded) == left
    np.testing.assert_allclose(embeddings(out), expected, atol=2e-6)


def test_what_is_new_or_changed_is_encoded(
    root: Path, checkpoint: Path, expected: torch.Tensor, tmp_path: Path, encoded: list[int]
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    for number in (1, 3, 5):
        shutil.copy(root / "videos" / f"{number}.mp4", videos)
    assert extract(videos, checkpoint, out) == 0
    np.testing.assert_allclose(embeddings(out), expected[[1, 3, 5]], atol=2e-6)
    encoded.clear()
    assert extract(videos, checkpoint, out) == 0
    assert encoded == []
    # A new one in front, one of other contents, and one that is gone.
    shutil.copy(root / "videos" / "0.mp4", videos)
    shutil.copy(root / "videos" / "2.mp4", videos / "3.mp4")
    (videos / "5.mp4").unlink()
    (out / "features").rename(out / "features.old")  # as a kill between two renames leaves it
    assert extract(videos, checkpoint, out) == 0
    assert sum(encoded) == 2
    np.testing.assert_allclose(embeddings(out), expected[[0, 1, 2]], atol=2e-6)


def test_what_cannot_be_read_is_named_and_tried_again(
    root: Path, checkpoint: Path, expected: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    for number in (0, 2):
        shutil.copy(root / "videos" / f"{number}.mp4", videos)
    (videos / "1.mp4").write_bytes(b"no video")
    assert extract(videos, checkpoint, out) == 1
    assert "of 2 videos, 2 of them encoded now" in capsys.readouterr().out
    np.testing.assert_allclose(embeddings(out), expected[[0, 2]], atol=2e-6)
    (failure,) = lines(out / "failed.jsonl")
    assert failure["video"] == str(videos / "1.mp4") and failure["reason"].startswith("PyAV: ")
    shutil.copy(root / "videos" / "1.mp4", videos)
    assert extract(videos, checkpoint, out, "--json") == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["encoded"], counts["encoded_before"], counts["failed"]) == (1, 2, 0)
    np.testing.assert_allclose(embeddings(out), expected[:3], atol=2e-6)
    assert lines(out / "failed.jsonl") == []


def test_nothing_that_can_be_read_is_an_error(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.mp4").write_bytes(b"no video")
    assert extract(tmp_path / "one.mp4", checkpoint, tmp_path / "out") == 2
    assert "none of its 1 videos can be read (the first is" in capsys.readouterr().err


def one_of_two(videos: Path, checkpoint: Path, out: Path) -> tuple[int, int, str]:
    """What each of two processes does: how many videos it encodes, its exit status, and what it prints."""
    sizes: list[int] = []
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        count_encoded(patch, sizes)
        with pytest.raises(SystemExit) as stop:
            main([str(videos), "--checkpoint", str(checkpoint), "--out", str(out), "--workers", "0", "--json"])
    return sum(sizes), int(stop.value.code or 0), printed.getvalue()


def test_two_processes_share_the_videos(root: Path, checkpoint: Path, expected: torch.Tensor, tmp_path: Path) -> None:
    videos = shutil.copytree(root / "videos", tmp_path / "videos")
    (videos / "9.mp4").write_bytes(b"no video")
    (first, status, printed), second = run_ranks(2, one_of_two, videos, checkpoint, tmp_path / "out")
    assert (first, status, second) == (4, 0, (3, 0, ""))
    counts = json.loads(printed)
    assert (counts["videos"], counts["encoded"], counts["failed"]) == (NUM_VIDEOS + 1, NUM_VIDEOS, 1)
    np.testing.assert_allclose(embeddings(tmp_path / "out"), expected, atol=2e-6)
    (failure,) = lines(tmp_path / "out" / "failed.jsonl")
    assert failure["video"] == str(videos / "9.mp4")


def test_checkpoints_without_embeddings_give_tokens(
    root: Path, answering: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract(root / "videos", answering, tmp_path / "out") == 2
    assert "a checkpoint of vqa has no embeddings; give --tokens" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert extract(root / "videos", answering, tmp_path / "out", "--tokens") == 0
    tokens = np.load(tmp_path / "out" / "features" / "tokens.npy", mmap_mode="r")
    found = load_model(answering, device="cpu").encode_tokens(root / "videos" / "3.mp4")
    np.testing.assert_allclose(tokens[3], found.tokens, atol=1e-5)
    assert not (tmp_path / "out" / "features" / "embeddings.npy").exists()


def test_features_of_something_else_are_not_mixed(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert extract(root / "videos", checkpoint, out) == 0
    moved = shutil.copytree(checkpoint, tmp_path / "moved")
    assert extract(root / "videos", moved, out) == 0  # the same weights
    refused: dict[str, tuple[Path, Path, tuple[str, ...]]] = {
        "source: ": (root / "videos" / "0.mp4", checkpoint, ()),
        "aggregation.keep: ": (root / "videos", checkpoint, ("aggregation.keep=0.25",)),
        "arrays: ": (root / "videos", checkpoint, ("--tokens",)),
        'precision: "fp32" -> "bf16"': (root / "videos", checkpoint, ("--dtype", "bf16")),
    }
    capsys.readouterr()
    for said, (source, weights, more) in refused.items():
        assert extract(source, weights, out, *more) == 2
        error = capsys.readouterr().err
        assert f"error: {out}: holds other features than asked for (" in error and said in error
    retrained = train(root, tmp_path / "retrained", "retrieval", **ONE_EPOCH, seed=1) / "checkpoint_best"
    capsys.readouterr()
    assert extract(root / "videos", retrained, out) == 2
    assert "weights_sha256: " in capsys.readouterr().err
    assert len(embeddings(out)) == NUM_VIDEOS


ERRORS = {
    "gone": r"gone: no such file or folder",
    "empty": r"empty: holds no videos or images",
    "notes.txt": r"notes.txt: no format for '.txt'",
    "missing.jsonl": r"missing.jsonl: none of its 1 videos is there",
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_ends_in_one_line(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "missing.jsonl").write_text('{"video": "9.mp4", "caption": "a"}\n')
    (tmp_path / "videos").mkdir()
    assert extract(tmp_path / name, checkpoint, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and ERRORS[name] in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    assert extract(root / "videos", checkpoint, tmp_path) == 2
    assert "holds thesis.tex, but no extraction.json" in capsys.readouterr().err
    with only_writer(tmp_path / "out"):
        assert extract(root / "videos", checkpoint, tmp_path / "out") == 2
    assert "another run is writing to it" in capsys.readouterr().err
