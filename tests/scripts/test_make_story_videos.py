import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from decord import VideoReader

from datasets.encode import write_video
from datasets.stories import story_set as stories
from datasets.stories.story_set import StorySet, VideoJob, draw, write_annotations
from scripts.make_story_videos import main

SMALL = StorySet(train=9, test=6, scenes=3, frames_per_scene=4, size=64, fps=5, pairs=0.7)
SMALL_OPTIONS = "--train 9 --test 6 --scenes 3 --frames-per-scene 4 --size 64 --fps 5 --pairs 0.7".split()
ANNOTATIONS = (
    "order_pairs.jsonl", "test.jsonl", "test_qa.jsonl", "test_scenes.jsonl", "test_speech.jsonl", "train.jsonl",
    "train_qa.jsonl", "train_scenes.jsonl", "train_speech.jsonl",
)  # fmt: skip


def annotate(folder: Path, story_set: StorySet) -> tuple[list[VideoJob], dict[str, bytes]]:
    folder.mkdir()
    jobs = write_annotations(folder, story_set)
    return jobs, {path.name: path.read_bytes() for path in folder.iterdir()}


def read_jsonl(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stories") / "deep" / "set"
    main([str(out), *SMALL_OPTIONS, "--workers", "1"])
    return out


def test_seed_fixes_annotations_to_the_byte_and_pixels(tmp_path: Path) -> None:
    jobs, files = annotate(tmp_path / "a", SMALL)
    same_jobs, same_files = annotate(tmp_path / "b", SMALL)
    other_jobs, other_files = annotate(tmp_path / "c", replace(SMALL, seed=1))
    assert tuple(sorted(files)) == ANNOTATIONS
    assert files == same_files
    assert all(files[name] != other_files[name] for name in ANNOTATIONS)
    # Drawn in the opposite order: a video's pixels do not depend on those before it.
    same = [draw(job) for job in reversed(same_jobs)][::-1]
    assert all(np.array_equal(draw(job), pixels) for job, pixels in zip(jobs, same, strict=True))
    assert not any(np.array_equal(draw(job), draw(other)) for job, other in zip(jobs, other_jobs, strict=True))


def test_videos_decode_to_what_was_drawn(small_set: Path, tmp_path: Path) -> None:
    jobs, files = annotate(tmp_path / "again", SMALL)
    assert {name: (small_set / name).read_bytes() for name in ANNOTATIONS} == files
    names = [row["video"] for split in ("train", "test") for row in read_jsonl(small_set / f"{split}.jsonl")]
    assert names == [job.path.name for job in jobs]
    assert sorted(names) == sorted(path.name for path in (small_set / "videos").iterdir())
    for job in jobs:
        reader = VideoReader(str(small_set / "videos" / job.path.name), num_threads=1)
        assert len(reader) == 3 * 4
        assert reader.get_avg_fps() == pytest.approx(5)
        decoded, drawn = reader.get_batch(range(12)).asnumpy().astype(float), draw(job).astype(float)
        # Coding costs a few grey levels; a frame out of place costs more, as the next comparison shows.
        errors = np.abs(decoded - drawn).mean(axis=(1, 2, 3))
        assert errors.max() < 12
        assert np.abs(decoded - np.roll(drawn, 4, axis=0)).mean(axis=(1, 2, 3)).min() > 1.5 * errors.max()


def test_workers_change_nothing(small_set: Path, tmp_path: Path) -> None:
    main([str(tmp_path / "set"), *SMALL_OPTIONS, "--workers", "2"])
    files = [path.relative_to(small_set) for path in sorted(small_set.rglob("*")) if path.is_file()]
    assert len(files) == 9 + 6 + len(ANNOTATIONS) + 1
    for name in files:
        assert (tmp_path / "set" / name).read_bytes() == (small_set / name).read_bytes(), name


def test_encoding_again_gives_the_same_bytes(tmp_path: Path) -> None:
    jobs, _ = annotate(tmp_path / "set", replace(SMALL, train=60))
    for job in jobs:
        pixels = draw(job)
        for name in ("once", "again"):
            write_video(tmp_path / f"{name}.mp4", pixels, fps=5)
        assert (tmp_path / "once.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()


def test_order_pairs_are_partners_among_the_test_videos(tmp_path: Path) -> None:
    annotate(tmp_path / "set", StorySet(train=10, test=41, scenes=4, pairs=0.5))
    captions = {row["video"]: row["caption"] for row in read_jsonl(tmp_path / "set" / "test.jsonl")}
    pairs = read_jsonl(tmp_path / "set" / "order_pairs.jsonl")
    assert len(pairs) == 20
    video_of = {caption: video for video, caption in captions.items()}
    for pair in pairs:
        assert pair["caption"] == captions[pair["video"]]
        assert video_of[pair["reordered"]] != pair["video"]
        sentences, reordered = pair["caption"].split(". "), pair["reordered"].split(". ")
        assert len(sentences) == 4
        assert sentences != reordered
        assert sorted(s.rstrip(".") for s in sentences) == sorted(s.rstrip(".") for s in reordered)


def test_no_two_videos_of_a_split_have_the_same_paragraph(tmp_path: Path) -> None:
    # One scene a story: the world is small enough that a generator that does not look would repeat itself.
    annotate(tmp_path / "set", StorySet(train=3000, test=500, scenes=1, pairs=0))
    captions = [
        row["caption"] for split in ("train", "test") for row in read_jsonl(tmp_path / "set" / f"{split}.jsonl")
    ]
    assert len(set(captions)) == len(captions) == 3500
    assert (tmp_path / "set" / "order_pairs.jsonl").read_text() == ""


def test_finished_set_is_left_alone(small_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    main([str(small_set), *SMALL_OPTIONS])
    assert "already complete" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main([str(small_set), *SMALL_OPTIONS, "--seed", "3"])
    assert "made with seed 0 instead of 3" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in small_set.rglob("*")} == before


def test_folder_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), *SMALL_OPTIONS])
    assert "is no story set" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write_two(path: Path, frames: np.ndarray, fps: int) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        path.write_bytes(b"")

    monkeypatch.setattr(stories, "write_video", write_two)
    with pytest.raises(KeyboardInterrupt):
        main([str(tmp_path / "set"), *SMALL_OPTIONS, "--workers", "1"])
    assert len(written) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--train 0", "--train 0: must be at least 1"),
        ("--frames-per-scene 1", "--frames-per-scene 1: must be at least 2"),
        ("--size 48", "--size 48: must be a multiple of 32"),
        ("--seed -1", "--seed -1: must be at least 0"),
        ("--pairs 1.5", "--pairs 1.5: must be a share from 0 to 1"),
        ("--scenes 1", "a story of one scene has no other order"),
    ],
)
def test_bad_argument_gives_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "set"), *options.split()])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()
