"""Words with times from manifests, subtitles and YT-Temporal's files."""

import json
from pathlib import Path

import numpy as np
import pytest

from datasets.annotations.files import json_of
from datasets.annotations.spoken import read_folder, read_manifest, read_speech, read_yt_temporal
from datasets.annotations.subtitles import read_subtitles
from datasets.annotations.timed_words import TimedWord, clip_of_word, draw_transcripts
from tests.datasets.annotations.folders import error_of, touch, write_json, write_lines

ROW = {"video": "a.mp4", "words": [[0.5, "hello"], [1, "there"]]}
YOUTUBE = """WEBVTT
Kind: captions

00:00:00.000 --> 00:00:02.060 align:start position:0%
\x20
guys<00:00:00.179><c> this</c><00:00:00.359><c> is</c>

00:00:02.060 --> 00:00:02.070 align:start position:0%
guys this is
\x20

00:00:02.070 --> 00:00:03.740 align:start position:0%
guys this is
good

00:00:03.740 --> 00:00:04.900 align:start position:0%
good
Q&amp;A<00:00:04.100><c> now</c>
"""
SRT = """1
00:00:01,000 --> 00:00:03,000
<i>Two words</i>

2
01:00:00,500 --> 01:00:01,000
one
more
"""


def test_manifest_by_hand(tmp_path: Path) -> None:
    write_lines(tmp_path / "m.jsonl", [ROW, {**ROW, "video": "/b.mp4", "duration": 9.5}])
    first, second = read_manifest(tmp_path / "m.jsonl", tmp_path)
    assert first.words == (TimedWord(0.5, "hello"), TimedWord(1.0, "there")) and first.duration is None
    assert first.video == str(tmp_path / "a.mp4") and (second.video, second.duration) == ("/b.mp4", 9.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": []}, "at least one word"),
        ({"words": [[1, "a"], [0.5, "b"]]}, "word 1 at 0.5 s is before the word above it"),
        ({"words": [["1", "a"]]}, "word 0 is ['1', 'a']"),
        ({"words": [[-1, "a"]]}, "word 0 is [-1, 'a']"),
        ({"words": [[1, "\ud83d"]]}, "is not valid Unicode"),
        ({"duration": 0}, "duration 0 is not a number of seconds above 0"),
        ({"caption": "x"}, "unknown key 'caption'"),
        ({"video": "../a.mp4"}, "leaves the folder of videos"),
    ],
)
def test_wrong_lines_are_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "m.jsonl", [ROW, {**ROW, **change}])
    text = error_of(lambda: read_manifest(tmp_path / "m.jsonl", tmp_path))
    assert "m.jsonl:2" in text and message in text


def test_words_with_times_of_their_own_are_taken_once(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text(YOUTUBE)
    assert read_subtitles(tmp_path / "a.vtt") == [
        TimedWord(0.0, "guys"), TimedWord(0.179, "this"), TimedWord(0.359, "is"), TimedWord(2.07, "good"),
        TimedWord(3.74, "Q&A"), TimedWord(4.1, "now"),
    ]  # fmt: skip


def test_words_of_plain_cues_are_spread_over_their_time(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text(SRT.replace("\n", "\r\n"))
    assert read_subtitles(tmp_path / "a.srt") == [
        TimedWord(1.5, "Two"), TimedWord(2.5, "words"), TimedWord(3600.625, "one"), TimedWord(3600.875, "more"),
    ]  # fmt: skip


def test_wrong_subtitles_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n00:02.000 --> 00:01.000\nx\n")
    assert "a.vtt:3: the cue ends at 1 s, before it begins at 2 s" in error_of(
        lambda: read_subtitles(tmp_path / "a.vtt")
    )
    (tmp_path / "a.vtt").write_text("WEBVTT\n")
    assert "holds no cue" in error_of(lambda: read_subtitles(tmp_path / "a.vtt"))


def test_subtitles_beside_videos(tmp_path: Path) -> None:
    touch(tmp_path, "deep/a.mp4", "b.webm", "c.mp4")
    (tmp_path / "deep" / "a.en.vtt").write_text(YOUTUBE)
    (tmp_path / "b.srt").write_text(SRT)
    found = read_folder(tmp_path)
    assert [(Path(record.video).name, len(record.words)) for record in found] == [("b.webm", 4), ("a.mp4", 6)]
    message = error_of(lambda: read_folder(touch(tmp_path / "none", "x.mp4")))
    assert "none of its 1 videos has subtitles" in message


def test_yt_temporal_as_tvts_lays_it_out(tmp_path: Path) -> None:
    speech = {
        "subtitles": [{"word": "its", "time": 0.5}, {"word": "cold", "time": 1.5}],
        "denoised": [{"cleanasr": "It's cold."}],
        "info": {"duration": 30},
    }
    videos = tmp_path / "videos"
    (videos / "part" / "annotations").mkdir(parents=True)
    write_json(videos / "part" / "annotations" / "x.json", speech)
    (tmp_path / "meta_data").mkdir()
    (tmp_path / "meta_data" / "yttemporal_val.csv").write_text("Page\tName\n1\tpart/data/x.mp4\n")
    (record,) = read_yt_temporal(tmp_path, "val", videos)
    assert record.words == (TimedWord(0.5, "It's"), TimedWord(1.5, "cold."))
    assert record.video == str(videos / "part" / "data" / "x.mp4") and record.duration == 30

    assert "lacks yttemporal_train.csv" in error_of(lambda: list(read_yt_temporal(tmp_path, "train", videos)))
    (tmp_path / "meta_data" / "yttemporal_val.csv").write_text("Name\npart/data/y.mp4\n")
    assert "yttemporal_val.csv:2: no file" in error_of(lambda: list(read_yt_temporal(tmp_path, "val", videos)))
    write_json(videos / "part" / "annotations" / "y.json", {**speech, "info": {}})
    assert "info.duration is None" in error_of(lambda: list(read_yt_temporal(tmp_path, "val", videos)))


def test_the_published_example(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "annotations" / "yt_temporal"
    spoken = json_of(folder / "WAaKRUoY6Io.grover.json")["subtitles"]
    # MERLOT's words are those of YouTube's automatic captions, without a line that is a single word.
    from_vtt = read_subtitles(folder / "WAaKRUoY6Io.en.vtt")
    assert TimedWord(188.38, "sweetness") in from_vtt
    from_vtt.remove(TimedWord(188.38, "sweetness"))
    assert from_vtt == [TimedWord(round(row["time"], 3), row["word"]) for row in spoken]
    record = read_speech(folder / "WAaKRUoY6Io.grover.json", tmp_path / "v.mp4")
    assert (len(record.words), record.duration) == (641, 255)
    clean = " ".join(row["cleanasr"] for row in json_of(folder / "WAaKRUoY6Io.grover.json")["denoised"])
    given = " ".join(word.word for word in record.words if word.word)
    assert json.dumps(given.split()[:300]) == json.dumps(clean.split()[:300])


def test_draws_go_on_until_every_clip_has_words() -> None:
    # Something is said in the first 20 seconds alone.
    words = [TimedWord(time + 0.5, "word") for time in range(20)]
    counts = {1: [], 20: []}
    for tries, found in counts.items():
        for seed in range(60):
            segment, spoken = draw_transcripts(words, 60.9, np.random.default_rng(seed), tries)
            found.append(sum(bool(text) for text in spoken))
            assert sum(text.count("word") for text in spoken) == sum(clip_of_word(w.time, segment) >= 0 for w in words)
    assert np.mean(counts[20]) > np.mean(counts[1]) + 1
    with pytest.raises(ValueError, match="nothing is spoken"):
        draw_transcripts([TimedWord(1.0, " ")], 60, np.random.default_rng(0))
