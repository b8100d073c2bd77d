"""The loading benchmark: the reference's loader gives what ours gives, and the limit decodes every clip."""

import multiprocessing
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks import load, videos
from benchmarks.measure import measure
from benchmarks.settings import Settings, sections
from datasets import index
from models.parts.pixels import normalise_pixels
from tests.videos import grey_steps, write_video

WHOLE = ("aggregation.reducer=none", "aggregation.frames_per_block=0", "aggregation.patches_per_block=0")
SMALL = ("video.num_frames=3", "video.image_size=32", *WHOLE)
SETTINGS = Settings(config=None, overrides=SMALL, device="cpu", threads=1, rounds=1)
VIDEO = sections(SETTINGS)[1]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Five videos, of which the two loaders' epochs of fours leave one out."""
    (tmp_path / "videos").mkdir()
    made = [write_video(tmp_path / f"videos/{number}.mp4", grey_steps(9 + number)) for number in range(5)]
    lines = "".join(f'{{"video": "{path.name}", "caption": "a"}}\n' for path in made)
    (tmp_path / "captions.jsonl").write_text(lines)
    return [str(path) for path in made]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_references_loader_gives_the_same_clips(paths: list[str], workers: int) -> None:
    ours, theirs = {}, {}
    paths = paths[:4]
    for batch in load.our_loader(SETTINGS, paths, workers, augment=False).epoch(0):
        assert not batch["failed"] and batch["clip"].pixels.dtype == torch.uint8
        ours |= dict(zip(batch["index"].tolist(), batch["clip"].pixels, strict=True))
    for clips, captions, positions in load.naive_loader(SETTINGS, paths, workers):
        assert set(captions) == {load.CAPTION}
        theirs |= dict(zip(positions.tolist(), clips, strict=True))
    assert sorted(ours) == sorted(theirs) == [0, 1, 2, 3]
    for position, clip in ours.items():
        normalised = normalise_pixels(clip, VIDEO.pixel_mean, VIDEO.pixel_std, torch.float32)
        torch.testing.assert_close(theirs[position], normalised, atol=1e-5, rtol=0)


def test_seconds_are_those_of_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(load.time, "perf_counter", lambda: next(clock))
    assert load._seconds_a_clip(iter([torch.zeros(4, 1), torch.zeros(2, 1)]), "cpu") == 1.0


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_the_limit_decodes_every_clip(paths: list[str], workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(multiprocessing.active_children())
    decoders = load.RawDecoders(workers)
    processes = set(multiprocessing.active_children()) - before
    assert len(processes) == workers
    jobs = [videos.job(path, 32, videos.chooser(VIDEO)) for path in paths]
    sent: Counter[str] = Counter()
    original = load.Connection.send

    def send(self: load.Connection, job: videos.Job) -> None:
        sent[job.path] += 1
        original(self, job)

    monkeypatch.setattr(load.Connection, "send", send)
    assert decoders.seconds(jobs * 2) > 0
    assert sent == dict.fromkeys(paths, 2)
    assert decoders.seconds(jobs[:1]) > 0  # fewer than there are processes
    broken = jobs[0]._replace(path=paths[0] + ".gone")
    with pytest.raises(RuntimeError, match="0.mp4.gone"):
        decoders.seconds([broken])
    for pipe in decoders._pipes:
        pipe.close()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0


@pytest.mark.soak
@pytest.mark.usefixtures("in_this_process")
def test_cases(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "CLIPS", 8)
    settings = Settings(**{**vars(SETTINGS), "data": str(Path(paths[0]).parents[1])})
    one, two, augmented = load.cases(settings)
    assert [case.name for case in (one, two, augmented)] == [
        "load, 1 worker",
        "load, 2 workers",
        "load, 2 workers, augmented",
    ]
    assert [case.ours.arguments["workers"] for case in (one, two, augmented)] == [1, 2, 2]
    assert one.ours.arguments["paths"] == paths + paths[:3]
    assert augmented.naive is None and augmented.ours.arguments["augment"] and not two.ours.arguments["augment"]
    large = Settings(**{**vars(settings), "overrides": ("video.image_size=320", *WHOLE)})
    assert len(load.cases(large)) == 2
    for case in (two, augmented):
        row = measure(case, settings)
        assert row.ours_s > 0 and row.limit_s > 0 and (row.naive_s is None) == (case is augmented)


def test_a_file_that_cannot_be_read_is_named(paths: list[str]) -> None:
    Path(paths[2]).write_text("no video")
    with pytest.raises(ValueError, match=r"--data: .*2\.mp4.* cannot be read"):
        load.ours(SETTINGS, paths[:4], workers=0, augment=False)()


@pytest.mark.usefixtures("in_this_process")
def test_manifests_grow() -> None:
    rows = load.manifest_growth(SETTINGS, (300, 3000))
    assert [row["rows"] for row in rows] == [300, 3000]
    assert all(row.keys() == {"rows", "seconds", "peak_bytes", "seconds_again"} for row in rows)
    assert all(row["seconds"] > 0 and row["seconds_again"] > 0 for row in rows)


def test_a_manifest_is_indexed_by_the_first_opening_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load.write_manifest(tmp_path / "captions.jsonl", 50)
    assert len(set((tmp_path / "captions.jsonl").read_text().splitlines())) == 50
    built, original = [], index._build

    def build(*arguments: object) -> None:
        built.append(arguments)
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(index, "_build", build)
    work = load.open_manifest(SETTINGS, str(tmp_path / "captions.jsonl"), 50)
    work()
    work()
    assert len(built) == 1
    with pytest.raises(AssertionError):
        load.open_manifest(SETTINGS, str(tmp_path / "captions.jsonl"), 51)()
