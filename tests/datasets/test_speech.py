"""Videos with timed words as samples: which words and frames a clip gets, from each of the formats."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.data import SpeechConfig
from datasets.annotations.timed_words import Segment, TimedWord, transcripts
from datasets.framing import Framing
from datasets.speech import SpeechDataset
from datasets.spoken_table import check_long_enough, open_speech, packed, unpacked
from tests.videos import write_video

SECONDS, FPS = 30, 4
WORDS = [[0.5 * number + 0.01, f"w{number}"] for number in range(2 * SECONDS)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of half a minute, and one of three seconds, with a word every half second."""
    root = tmp_path_factory.mktemp("speech")
    (root / "videos").mkdir()
    write_video(root / "videos" / "a.mp4", np.zeros((SECONDS * FPS, 32, 32, 3), np.uint8), fps=FPS)
    shutil.copy(root / "videos" / "a.mp4", root / "videos" / "b.mp4")
    write_video(root / "videos" / "short.mp4", np.zeros((3 * FPS, 32, 32, 3), np.uint8), fps=FPS)
    rows = [{"video": f"{name}.mp4", "words": WORDS} for name in ("a", "b", "short")]
    (root / "speech.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def dataset(
    root: Path, file: str = "speech.jsonl", *, sampling: str = "interval_random", **speech: Any
) -> SpeechDataset:
    return SpeechDataset(
        open_speech(root / file, root / "videos"),
        speech=SpeechConfig(**speech), num_frames=12, framing=Framing(32), sampling=sampling, seed=0, training=True,
    )  # fmt: skip


def segment_of(data: SpeechDataset, video: int, epoch: int) -> Segment:
    """The clips of a sample, by the draw that its texts are tested with."""
    start, end = data._span(video, epoch, video)
    assert start is not None and end is not None
    length = (end - start - 3) / 4
    starts = tuple(start + number * (length + 1) for number in range(4))
    return Segment(starts, tuple(first + length for first in starts))


def test_words_and_frames_are_those_of_the_four_clips(root: Path) -> None:
    data, starts = dataset(root), set()
    for epoch in range(6):
        sample, segment = data[epoch, 0], segment_of(data, 0, epoch)
        starts.add(segment.starts[0])
        assert sample.texts == transcripts([TimedWord(*word) for word in WORDS], segment)
        assert all(text for text in sample.texts) and sample.clip is not None
        times = sample.clip.times.numpy().reshape(4, 3)
        # A frame is on screen for a quarter of a second, so it may be shown a little before its clip begins.
        assert (times > np.array(segment.starts)[:, None] - 0.5).all(), (times, segment)
        assert (times < np.array(segment.ends)[:, None] + 0.25).all(), (times, segment)
        again = data[epoch, 0]
        assert again.texts == sample.texts and np.array_equal(again.clip.times, sample.clip.times)
    assert len(starts) == 6


def test_frames_of_the_span_lie_in_the_gaps_too(root: Path) -> None:
    data, in_gaps = dataset(root, frames="span"), 0
    for epoch in range(10):
        segment, times = segment_of(data, 0, epoch), data[epoch, 0].clip.times.numpy()
        inside = [((times >= start) & (times < end)) for start, end in zip(segment.starts, segment.ends, strict=True)]
        in_gaps += int((~np.any(inside, axis=0)).sum())
    assert in_gaps > 5


def test_whole_videos_are_cut_into_quarters(root: Path) -> None:
    data = dataset(root, sampling="interval_middle", cut="whole")
    sample = data[0, 0]
    expected = [" ".join(word for _, word in WORDS[15 * part : 15 * part + 15]) + " " for part in range(4)]
    assert sample.texts == expected and data[1, 0].texts == expected
    times = sample.clip.times.numpy().reshape(4, 3)
    assert (times // (SECONDS / 4) == np.arange(4)[:, None]).all()
    assert sample.rows == [0] * 4


def test_short_videos_are_replaced_and_named(root: Path) -> None:
    data = dataset(root)
    sample = data[0, 2]
    assert sample.name.endswith(("a.mp4", "b.mp4")) and len(sample.texts) == 4
    (failure,) = sample.failed
    assert failure["video"].endswith("short.mp4") and "3 seconds is too short for 4 clips" in failure["reason"]


def test_a_manifest_that_says_so_is_refused_with_the_line(root: Path, tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "words": WORDS, "duration": seconds} for seconds in (30, 4.5)]
    path = tmp_path / "speech.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"speech.jsonl:2: a.mp4 of 4.5 s is too short for 4 clips with gaps"):
        check_long_enough(path, open_speech(path, root / "videos"))


@pytest.mark.parametrize("words", [[[1, "..."]], [[1, " "], [2, "♪"]]])
def test_a_transcript_without_words_is_refused_with_the_line(tmp_path: Path, words: list[Any]) -> None:
    path = tmp_path / "speech.jsonl"
    path.write_text(json.dumps({"video": "a.mp4", "words": words}) + "\n")
    with pytest.raises(ValueError, match=r"speech.jsonl:1: nothing is spoken in the video"):
        open_speech(path, tmp_path)


def test_subtitles_beside_videos_and_yt_temporal_give_the_same_words(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "talks" / "part"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        shutil.copy(root / "videos" / "a.mp4", folder / f"{name}.mp4")
    (folder / "a.srt").write_text("1\n00:00:01,000 --> 00:00:03,000\nhello there\n")
    (folder / "b.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\n[Music]\n")
    table = open_speech(tmp_path / "talks", tmp_path)
    assert [*table.paths] == ["part/a.mp4"] and table.left_out == 1
    assert unpacked(table.texts[0]) == [TimedWord(1.5, "hello"), TimedWord(2.5, "there")]

    videos = tmp_path / "videos"
    (videos / "x" / "annotations").mkdir(parents=True)
    (tmp_path / "list.csv").write_text("Name\nx/data/one.mp4\nx/data/two.mp4\n")
    for name, spoken in (("one", ["hello", "there"]), ("two", [])):
        content = {
            "subtitles": [{"word": word, "time": 1.5 + place} for place, word in enumerate(spoken)],
            "denoised": [{"cleanasr": " ".join(spoken)}] if spoken else [],
            "info": {"duration": 9},
        }
        (videos / "x" / "annotations" / f"{name}.json").write_text(json.dumps(content))
    aligned = open_speech(tmp_path / "list.csv", videos)
    assert [*aligned.paths] == ["x/data/one.mp4"] and aligned.left_out == 1
    assert aligned.texts[0] == table.texts[0] and aligned.span(0) == (None, 9.0)


def test_words_survive_being_packed() -> None:
    words = [TimedWord(0.25, 'a "quoted" é'), TimedWord(3.0, "")]
    assert unpacked(packed(words)) == words
