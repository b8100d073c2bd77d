"""Windows cover a video, and what is indexed by them is found by its best one."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import decode, progress
from datasets.decode import seconds
from inference.api import load_model
from inference.features.extract import ExtractionRequest, run
from inference.features.sources import Clip
from inference.features.windows import Windows, with_windows
from inference.search.index import VideoIndex
from inference.search.searcher import Searcher
from scripts.extract_features.__main__ import main
from tests.integration.runs import train
from tests.tiny_runs import write_data
from tests.videos import grey_steps, write_video


def clip(video: str, start: float | None = None, end: float | None = None) -> Clip:
    return Clip(video, start, end, 1, 1)


@pytest.mark.parametrize("length", [3.0, 10.0])
@pytest.mark.parametrize("stride", [1.0, 2.5, 3.0])
@pytest.mark.parametrize("end", [3.1, 10.0, 60.0, 3600.0])
def test_windows_cover_a_part_exactly(length: float, stride: float, end: float) -> None:
    start = 2.0
    spans = list(Windows(length, stride).spans(start, start + end))
    if end <= length:
        assert spans == []  # the part itself is the only window
        return

    assert spans[0][0] == start and spans[-1][1] == start + end
    for (first, last), (next_first, next_last) in zip(spans, spans[1:], strict=False):
        assert next_first - first == pytest.approx(stride) and next_first <= last < next_last
    assert all(0 < last - first <= length + 1e-9 for first, last in spans)
    assert all(last - first == pytest.approx(length) for first, last in spans[:-1])


def test_parts_of_a_manifest_have_windows_of_their_own() -> None:
    part = clip("/v.mp4", 10.0, 22.0)
    found = with_windows([part], Windows(5.0, 5.0))
    assert found == [part, clip("/v.mp4", 10.0, 15.0), clip("/v.mp4", 15.0, 20.0), clip("/v.mp4", 20.0, 22.0)]


def test_what_has_no_length_stays_alone(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    alone = [clip(str(tmp_path / "broken.mp4")), clip("/image.png"), Clip("/gone.mp4", None, None, None, None)]
    assert with_windows(alone, Windows(1.0, 1.0)) == alone


@pytest.mark.parametrize("stride", [0.0, 1.5])
def test_a_stride_that_leaves_gaps_is_refused(stride: float) -> None:
    with pytest.raises(ValueError, match=r"--stride: .* above 0 and at most the window, 1 s"):
        Windows(1.0, stride)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"), [1] * 5)
    write_video(root / "videos" / "long.mp4", grey_steps(24, size=64))
    return root


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    return train(root, root / "run", train={"max_epochs": 1, "batch_size": 4}) / "checkpoint_best"


def test_features_of_windows_are_those_of_their_parts(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    video, out = root / "videos" / "long.mp4", tmp_path / "features"
    length = seconds(str(video))
    assert length is not None
    command = [str(video), "--checkpoint", str(checkpoint), "--out", str(out), "--workers", "0"]
    command += ["--window", str(length / 4), "--stride", str(length / 8)]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert not stop.value.code

    rows = [json.loads(line) for line in (out / "features" / "index.jsonl").read_text().splitlines()]
    assert [rows[0]["start"], rows[0]["end"]] == [None, None] and len(rows) == 1 + 7 and rows[-1]["end"] is None
    model = load_model(checkpoint, device="cpu")
    expected = torch.stack([model.encode_video(video, row["start"], row["end"]) for row in rows])
    np.testing.assert_allclose(np.load(out / "features" / "embeddings.npy"), expected.numpy(), atol=1e-6)

    # Windows of another length or stride are other features.
    command[-1] = str(length / 4)
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2


def test_windows_of_the_api_are_those_of_their_parts(root: Path, checkpoint: Path) -> None:
    model, video = load_model(checkpoint, device="cpu"), root / "videos" / "long.mp4"
    length = seconds(str(video))
    assert length is not None
    found = model.encode_windows(video, 0.5, 0.2)
    spans = [tuple(span) for span in found.spans.tolist()]
    assert spans == list(Windows(0.5, 0.2).spans(0.0, length)) and found.windows.shape[0] == len(spans) > 8
    parts = [(0.0, None), *spans[:-1], (spans[-1][0], None)]
    expected = [model.encode_video(video, start, end) for start, end in parts]
    torch.testing.assert_close(torch.stack([found.embedding, *found.windows]), torch.stack(expected))

    # Of a part; and of one that fits into a window.
    part = model.encode_windows(video, 0.5, start=0.3, end=1.4)
    torch.testing.assert_close(part.spans, torch.tensor([[0.3, 0.8], [0.8, 1.3], [1.3, 1.4]], dtype=torch.float64))
    torch.testing.assert_close(part.windows[1], model.encode_video(video, 0.8, 1.3))
    short = model.encode_windows(root / "videos" / "0.mp4", 60.0)
    assert torch.equal(short.windows, short.embedding[None]) and short.spans[0, 0] == 0 and 0 < short.spans[0, 1] < 60

    (root / "broken.mp4").write_bytes(b"no video")
    for wrong, message in (("broken.mp4", "broken.mp4: cannot be read"), ("picture.png", "is an image")):
        with pytest.raises(ValueError, match=message):
            model.encode_windows(root / wrong, 1.0)


def test_windows_of_a_file_are_read_in_one_pass(
    root: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    every = decode.opened
    monkeypatch.setattr(decode, "opened", lambda source: opened.append(source.name) or every(source))
    windows = Windows(0.5, 0.1)
    video = str(root / "videos" / "long.mp4")
    request = ExtractionRequest(
        source=Path(video), checkpoint=str(checkpoint), out=tmp_path / "features", windows=windows, batch_size=10
    )
    counts = run(request)
    # One to list the frames, and one for each batch.
    assert counts["failed"] == 0 and counts["videos"] > 20 and len(opened) <= 1 + -(-counts["videos"] // 10)


def test_progress_is_logged_where_no_terminal_shows_it(
    root: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr("datasets.reading.TELL_SECONDS", 0.0)
    monkeypatch.setattr(progress.logger, "handlers", [caplog.handler])
    monkeypatch.setattr(progress.logger, "level", logging.INFO)
    request = ExtractionRequest(
        source=root / "videos" / "long.mp4", checkpoint=str(checkpoint), out=tmp_path / "out", windows=Windows(1.0, 0.5)
    )
    run(request)
    lines = [record.getMessage() for record in caplog.records if record.name == "datasets.progress"]
    assert any(
        re.fullmatch(r"0 of 5 videos or windows in 00:0\d, reading long.mp4: 3 of \d+ frames", line) for line in lines
    )
    assert lines[-1].endswith("encoding long.mp4")


def test_a_search_finds_each_video_once_by_its_best_window(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    windows = Windows(0.5, 0.25)
    request = ExtractionRequest(
        source=root / "videos", checkpoint=str(checkpoint), out=tmp_path / "index", windows=windows
    )
    VideoIndex.update(request)
    index = VideoIndex.open(tmp_path / "index")
    assert index.has_windows and len(index.clips) > 6

    query = np.array(index.embeddings[[clip.video.endswith("long.mp4") for clip in index.clips].index(True) + 3])
    rows, cosines = index.search(query, 100)
    assert [index.clips[row].video for row in rows].count(str(root / "videos" / "long.mp4")) == 1
    assert len(rows) == len({clip.video for clip in index.clips}) == 6

    # By brute force: the best row of each video, videos by that.
    every = np.array(index.embeddings, np.float64) @ query
    best = {}
    for row, item in enumerate(index.clips):
        if item.video not in best or every[row] > every[best[item.video]]:
            best[item.video] = row
    assert rows.tolist() == sorted(best.values(), key=lambda row: -every[row])
    np.testing.assert_allclose(cosines, every[rows], atol=1e-6)

    hits = Searcher.open(tmp_path / "index").query("a text", top=3, frames=1)
    assert len({hit.video for hit in hits}) == 3 and all(hit.problem is None for hit in hits)
