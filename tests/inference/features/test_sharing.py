"""Hosts that share an extraction give the rows of one process, to the bit, whoever dies in between."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow.dataset import dataset

from datasets.samples import collate
from inference.api import TrainedModel, load_model
from inference.features import parquet
from inference.features.encode import dataset_of, encode
from inference.features.folder import PARTS, FeatureFolder
from inference.features.sharing import JOB
from inference.features.sources import clips_of
from scripts.extract_features.__main__ import main
from tests.inference.features.engine_runs import POISON, Runs, add_poison, failures_of, features_of, kill, trained
from tests.videos import grey_steps, write_video

NUM_VIDEOS = 13
SHARED = ("--engine", "hosts", "--stale-after", "1.5")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    return trained(root, NUM_VIDEOS)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> TrainedModel:
    return load_model(checkpoint, device="cpu")


def extract(source: Path, checkpoint: Path, out: Path, *more: object) -> int:
    words = [source, "--checkpoint", checkpoint, "--out", out, "--batch-size", 2, "--workers", 1, *more]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_neighbours_change_no_bit(root: Path, model: TrainedModel, rows: int) -> None:
    data = dataset_of(model, clips_of(root / "videos", None))
    samples = [data[position] for position in range(7)]
    together = encode(model, ("embeddings", "tokens"), collate(samples)["clip"], rows)
    for position, sample in enumerate(samples):
        alone = encode(model, ("embeddings", "tokens"), collate([sample])["clip"], rows)
        for name, array in alone.items():
            assert array.dtype == np.float32 and len(array) == 1
            # In a batch, a clip alone stands where the first of a batch does.
            if position % rows == 0 or rows == 1:
                assert np.array_equal(array[0], together[name][position])
            np.testing.assert_allclose(array[0], together[name][position], atol=1e-6)
    pixels = collate(samples)["clip"]
    whole = model.encode_clips(pixels).embedding
    assert whole is not None
    torch.testing.assert_close(torch.from_numpy(together["embeddings"]), whole, atol=2e-6, rtol=0)


def test_two_hosts_one_of_which_dies(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    videos = shutil.copytree(root / "videos", tmp_path / "videos")
    add_poison(videos, *POISON)
    alone, shared = tmp_path / "alone", tmp_path / "by_claims"
    with Runs(videos, checkpoint, tmp_path / "log") as runs:
        reference = runs.start(alone)
        dying, other = (runs.start(shared, *SHARED, seconds_a_clip=0.1) for _ in range(2))
        runs.until(lambda: len(list((shared / JOB / "done").glob("0*"))) >= 1 or other.poll() is not None)
        kill(dying)
        again = runs.start(shared, *SHARED)
        assert [process.wait(300) for process in (reference, other, again)] == [1, 0, 0], runs.output()

    assert features_of(shared) == features_of(alone)
    found = failures_of(shared)
    assert found.keys() == POISON.keys() and all(found[name].startswith(POISON[name]) for name in POISON)


def test_one_process_goes_on_with_what_hosts_began_and_the_other_way_round(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    for number in range(5):
        shutil.copy(root / "videos" / f"{number}.mp4", videos)
    assert extract(videos, checkpoint, out) == 0
    shutil.copy(root / "videos" / "7.mp4", videos)
    assert extract(videos, checkpoint, out, *SHARED, "--json") == 0
    assert '"encoded": 1, "encoded_before": 5, "failed": 0' in capsys.readouterr().out
    (videos / "0.mp4").unlink()
    assert extract(videos, checkpoint, out, "--json") == 0
    assert '"encoded": 0, "encoded_before": 5' in capsys.readouterr().out

    assert extract(videos, checkpoint, tmp_path / "new") == 0
    assert features_of(out) == features_of(tmp_path / "new")

    # Who does not share keeps away while others do.
    (out / JOB).mkdir()
    assert extract(videos, checkpoint, out) == 2
    assert "give --engine hosts to join them" in capsys.readouterr().err


def test_errors_are_one_line_and_leave_no_job(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    for source, more, said in (
        (empty, (), "holds no videos"),
        (root / "videos", ("--workers", 0), "--workers: 0 reads in the process itself"),
    ):
        assert extract(source, checkpoint, out, *SHARED, *more) == 2
        assert said in capsys.readouterr().err
        assert not (out / JOB).exists()

    assert extract(root / "videos", checkpoint, out, *SHARED) == 0
    assert extract(root / "videos", checkpoint, out, *SHARED, "aggregation.keep=0.5") == 2
    assert "aggregation.keep: " in capsys.readouterr().err and not (out / JOB).exists()
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "thesis.tex").touch()
    assert extract(root / "videos", checkpoint, thesis, *SHARED) == 2
    assert [path.name for path in thesis.iterdir()] == ["thesis.tex"]


def test_features_that_vanish_are_missed(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = FeatureFolder.places
    monkeypatch.setattr(FeatureFolder, "places", lambda folder: dict(list(places(folder).items())[1:]))
    assert extract(root / "videos", checkpoint, tmp_path / "out", "--engine", "hosts", "--stale-after", "0.5") == 2
    assert "were written, and are gone; give the same command again" in capsys.readouterr().err
    monkeypatch.undo()
    assert (tmp_path / "out" / PARTS).is_dir()
    assert extract(root / "videos", checkpoint, tmp_path / "out", *SHARED) == 0
    features_of(tmp_path / "out")


def test_parquet_holds_the_same_rows_and_is_kept_up_to_date(
    root: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROWS_A_FILE", 4)
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 3)
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    (tmp_path / "clips.jsonl").write_text(
        "".join(
            json.dumps({"video": f"{number}.mp4", "caption": "a", **span}) + "\n"
            for number in range(5)
            for span in ({}, {"start": 0.1, "end": 0.5})
        )
    )
    for number in range(4):
        shutil.copy(root / "videos" / f"{number}.mp4", videos)
    assert extract(tmp_path / "clips.jsonl", checkpoint, out, "--parquet") == 1
    assert_parquet_is_right(out, rows=8, files=2)

    # Another run keeps it up to date, asked or not.
    shutil.copy(root / "videos" / "4.mp4", videos)
    assert extract(tmp_path / "clips.jsonl", checkpoint, out, *SHARED) == 0
    assert_parquet_is_right(out, rows=10, files=3)
    shutil.rmtree(out / "parquet")
    assert extract(tmp_path / "clips.jsonl", checkpoint, out, "--parquet") == 0
    assert_parquet_is_right(out, rows=10, files=3)


def assert_parquet_is_right(out: Path, rows: int, files: int) -> None:
    assert len(list((out / "parquet").iterdir())) == files
    table = dataset(out / "parquet").to_table()
    index = [json.loads(line) for line in (out / "features" / "index.jsonl").read_text().splitlines()]
    assert len(index) == rows
    for name in ("row", "video", "start", "end", "size"):
        assert table[name].to_pylist() == [line[name] for line in index]
    assert table["modified"].cast("int64").to_pylist() == [line["mtime_ns"] for line in index]
    embeddings = np.array(table["embedding"].to_pylist(), np.float32)
    assert np.array_equal(embeddings, np.load(out / "features" / "embeddings.npy"))


def test_parquet_without_pyarrow_is_one_line_before_anything_is_encoded(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert extract(root / "videos", checkpoint, tmp_path / "out", "--parquet") == 2
    assert "--parquet: needs pyarrow (" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_windows_are_the_same_in_batches_of_any_size_and_on_several_hosts(checkpoint: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name, frames in (("a", 31), ("b", 8), ("c", 24)):
        write_video(videos / f"{name}.mp4", grey_steps(frames, step=7))
    windows = ("--window", 1, "--stride", 0.5)
    assert extract(videos, checkpoint, tmp_path / "alone", *windows) == 0
    expected = features_of(tmp_path / "alone")
    assert expected["features/index.jsonl"].count(b"\n") == 3 + 6 + 4

    assert extract(videos, checkpoint, tmp_path / "five", *windows, "--batch-size", 5) == 0
    assert extract(videos, checkpoint, tmp_path / "by_claims", *windows, *SHARED, "--batch-size", 3) == 0
    assert features_of(tmp_path / "five") == features_of(tmp_path / "by_claims") == expected
