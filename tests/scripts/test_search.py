"""The command from videos to what is found, and what it says of bad input."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from datasets.decode import seconds
from engine.folder_lock import only_writer
from inference.api import load_model
from inference.features.sources import tags_of
from inference.search.searcher import Hit, Searcher
from scripts.search import in_percent, main
from tests.integration.runs import train
from tests.tiny_runs import write_data, write_questions

ONE_EPOCH: dict[str, Any] = {"train": {"max_epochs": 1, "batch_size": 4}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(write_data(tmp_path_factory.mktemp("data"), [1] * 6), [1] * 6)


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    return train(root, root / "retrieval", "retrieval", **ONE_EPOCH) / "checkpoint_best"


@pytest.fixture(scope="module")
def index(root: Path, checkpoint: Path) -> Path:
    """An index of the folder `videos`, which no test changes."""
    assert run("index", root / "videos", "--checkpoint", checkpoint, "--index", root / "index") == 0
    return root / "index"


def run(*arguments: object) -> int:
    """The exit status of the command, that reads videos in its own process."""
    words = [str(argument) for argument in arguments]
    with pytest.raises(SystemExit) as stop:
        main([*words, *(["--workers", "0"] if "index" in words[:1] else [])])
    return int(stop.value.code or 0)


def found(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    """The hits of a query."""
    capsys.readouterr()
    assert run("query", "red grows", "--json", *arguments) == 0
    return json.loads(capsys.readouterr().out)["hits"]


def test_a_query_prints_what_is_found(root: Path, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hits = found(capsys, "--index", index, "--top", 2, "--rerank", 4)
    assert len(hits) == 2
    assert list(hits[0]) == [
        *("video", "start", "end", "score", "cosine", "match_logit", "probability", "frames", "problem")
    ]
    assert hits[0]["score"] == hits[0]["cosine"] + hits[0]["match_logit"] >= hits[1]["score"]
    assert Path(hits[0]["video"]).parent == root / "videos" and 1 <= len(hits[0]["frames"]) <= 3
    assert run("query", "red grows", "--index", index, "--top", 2, "--rerank", 4) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line[2].isdigit()] == [
        f"  {rank}. {hit['video']}" for rank, hit in enumerate(hits, start=1)
    ]
    first = hits[0]
    assert lines[1].strip() == (
        f"cosine {first['cosine']:.3f} + matching {first['match_logit']:.3f} = {first['score']:.3f}; "
        f"match {in_percent(first['probability'])}"
    )
    best = [f"{seconds:.1f} s ({similarity:.3f})" for seconds, similarity in first["frames"]]
    assert lines[2].strip() == f"best at {', '.join(best)}"


def test_new_and_changed_videos_come_and_removed_ones_leave(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "index"
    videos.mkdir()
    command = ("index", videos, "--checkpoint", checkpoint, "--index", out, "--json")
    for number in (1, 3, 5):
        shutil.copy(root / "videos" / f"{number}.mp4", videos)
    assert run(*command) == 0
    query = ("--index", out, "--frames", 0)
    before = {Path(hit["video"]).stem: hit["cosine"] for hit in found(capsys, *query)}
    shutil.copy(root / "videos" / "0.mp4", videos)
    shutil.copy(root / "videos" / "2.mp4", videos / "3.mp4")
    (videos / "5.mp4").unlink()
    assert run(*command) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["encoded"], counts["encoded_before"]) == (2, 1)
    after = {Path(hit["video"]).stem: hit["cosine"] for hit in found(capsys, *query)}
    assert after.keys() == {"0", "1", "3"}
    assert after["1"] == before["1"] and after["3"] != before["3"]
    cosine = float(
        load_model(checkpoint).encode_text("red grows") @ load_model(checkpoint).encode_video(videos / "3.mp4")
    )
    assert after["3"] == pytest.approx(cosine, abs=1e-5)


def test_a_checkpoint_that_was_moved(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (shutil.copytree(checkpoint, tmp_path / name) for name in ("first", "second"))
    out = tmp_path / "index"
    assert run("index", root / "videos", "--checkpoint", first, "--index", out) == 0
    hits = found(capsys, "--index", out)
    shutil.rmtree(first)
    assert run("query", "red", "--index", out) == 2
    assert f"its checkpoint {first} is gone; say with --checkpoint where it is" in capsys.readouterr().err
    assert found(capsys, "--index", out, "--checkpoint", second) == hits
    assert run("index", root / "videos", "--checkpoint", second, "--index", out) == 0
    assert found(capsys, "--index", out) == hits  # it knows the new place now


def test_an_index_of_something_else_is_refused(
    root: Path, checkpoint: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = train(root, tmp_path / "other", "retrieval", **ONE_EPOCH, seed=1) / "checkpoint_best"
    answering = train(root, tmp_path / "vqa", "vqa", **ONE_EPOCH) / "checkpoint_best"
    refused: dict[str, tuple[Any, ...]] = {
        "weights_sha256: ": (root / "videos", "--checkpoint", other),
        "was made with no settings over the checkpoint's own, not with data.max_words=5 aggregation.keep=0.25": (
            *(root / "videos", "data.max_words=5", "--checkpoint", checkpoint, "aggregation.keep=0.25"),
        ),
        "source: ": (root / "videos" / "0.mp4", "--checkpoint", checkpoint),
        "a checkpoint of vqa has no embeddings to search by; give one fine-tuned for retrieval": (
            *(root / "videos", "--checkpoint", answering),
        ),
    }
    held = {path: path.read_bytes() for path in index.rglob("*") if path.is_file()}
    capsys.readouterr()
    for said, arguments in refused.items():
        assert run("index", *arguments, "--index", index) == 2
        *log, error = capsys.readouterr().err.splitlines()
        assert error.startswith("error: ") and said in error and "error" not in "".join(log)
    assert {path: path.read_bytes() for path in index.rglob("*") if path.is_file()} == held


BAD_QUERIES: dict[str, tuple[str, ...]] = {
    "holds no index; make one with python -m scripts.search index": ("red", "--index", "nowhere"),
    "the text to search for is empty": (" ", "--index", "INDEX"),
    "checkpoint: gone does not exist": ("red", "--index", "INDEX", "--checkpoint", "gone"),
    "argument --top: 0: give 1 or more": ("red", "--index", "INDEX", "--top", "0"),
    "argument --rerank: -1: give 0 or more": ("red", "--index", "INDEX", "--rerank", "-1"),
}


@pytest.mark.parametrize("said", BAD_QUERIES)
def test_bad_queries_end_in_one_line(index: Path, capsys: pytest.CaptureFixture[str], said: str) -> None:
    assert run("query", *(str(index) if word == "INDEX" else word for word in BAD_QUERIES[said])) == 2
    printed = capsys.readouterr()
    assert said in printed.err.splitlines()[-1] and printed.out == ""


def test_an_index_that_is_being_written_is_left_alone(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_writer(tmp_path):
        assert run("index", root / "videos", "--checkpoint", checkpoint, "--index", tmp_path) == 2
    assert "another run is writing to it" in capsys.readouterr().err


def test_videos_that_cannot_be_read_are_counted(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(root / "videos" / "0.mp4", videos)
    (videos / "1.mp4").write_bytes(b"no video")
    assert run("index", videos, "--checkpoint", checkpoint, "--index", tmp_path / "index") == 1
    printed = capsys.readouterr()
    assert "of 1 videos, " in printed.out and "1 failed (see " in printed.out
    assert f"failed: {videos / '1.mp4'}: " in printed.err
    (hit,) = found(capsys, "--index", tmp_path / "index")
    assert run("query", "red", "--index", tmp_path / "index") == 0
    assert "note: 1 videos could not be read and are not in the index" in capsys.readouterr().err
    assert hit["video"] == str(videos / "0.mp4")
    shutil.move(videos / "0.mp4", tmp_path / "0.mp4")
    assert run("query", "red", "--index", tmp_path / "index") == 0
    printed = capsys.readouterr()
    assert "0.mp4: cannot be read (no such file)" in printed.out


def test_what_the_model_does_not_read_is_noted(root: Path, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for text, expected in (
        ("red grows", []),
        ("red grows " * 400, ["the model reads the first 22 of these 800 words"]),
    ):
        assert run("query", text, "--index", index, "--json") == 0
        notes = json.loads(capsys.readouterr().out)["notes"]
        assert [note.partition(";")[0] for note in notes if "reads" in note] == expected


@pytest.mark.parametrize(("probability", "noted"), [(0.49, True), (0.51, False)])
def test_nothing_matches_is_noted(
    index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, probability: float, noted: bool
) -> None:
    hits = [Hit("a.mp4", None, None, 0.3, 0.3, probability=0.2), Hit("b.mp4", None, None, 0.2, 0.2, 1.0, probability)]
    monkeypatch.setattr(Searcher, "query", lambda *rest, where: hits)
    assert run("query", "red", "--index", index) == 0
    assert ("note: nothing in the index matches this text (the best match: 49 %)" in capsys.readouterr().err) == noted


def test_percentages_never_say_never() -> None:
    assert [in_percent(probability) for probability in (0.0, 0.004, 0.5, 0.976, 0.9999)] == [
        *("below 1 %", "below 1 %", "50 %", "98 %", "above 99 %")
    ]


def test_parts_of_videos_are_found(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"video": "2.mp4", "caption": "a", "start": start, "end": end} for start, end in ((0, 0.3), (0.3, 0.7))]
    (tmp_path / "parts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ("--videos", root / "videos", "--checkpoint", checkpoint, "--index", tmp_path / "index")
    assert run("index", tmp_path / "parts.jsonl", *given) == 0
    hits = found(capsys, "--index", tmp_path / "index")
    assert {(hit["start"], hit["end"]) for hit in hits} == {(0, 0.3), (0.3, 0.7)}
    assert all(hit["start"] <= seconds < hit["end"] for hit in hits for seconds, _ in hit["frames"])
    assert run("query", "red", "--index", tmp_path / "index") == 0
    assert "2.mp4 from 0.3 s to 0.7 s" in capsys.readouterr().out


def test_filters_by_folder_tag_and_duration(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[dict[str, Any]] = [{"video": f"{number}.mp4", "caption": "a"} for number in range(4)]
    lines[1]["tags"], lines[2]["tags"] = ["news", "red"], ["news"]
    manifest = tmp_path / "tagged.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ("index", manifest, "--videos", root / "videos", "--checkpoint", checkpoint, "--index", tmp_path / "out")
    assert run(*command) == 0

    def names(where: str) -> set[str]:
        hits = found(capsys, "--index", tmp_path / "out", "--frames", 0, "--where", where)
        return {Path(hit["video"]).stem for hit in hits}

    assert names("") == {"0", "1", "2", "3"}
    assert names("tag=news") == {"1", "2"} and names("tag=news tag!=red") == {"2"}
    lengths = {path.stem: seconds(str(path)) or 0.0 for path in (root / "videos").iterdir() if path.stem in "0123"}
    middle = sorted(lengths.values())[1]
    assert names(f"duration>{middle}") == {name for name, length in lengths.items() if length > middle}
    assert names("folder=videos after=2020-01-01") == names("") and names("folder=elsewhere") == set()
    assert run("query", "red", "--index", tmp_path / "out", "--where", "tag=none") == 0
    assert "passes the filter tag=none" in capsys.readouterr().err
    assert run("query", "red", "--index", tmp_path / "out", "--where", "tagg=none") == 2
    assert "the filter's part 'tagg=none': there is no 'tagg'" in capsys.readouterr().err

    # Other tags need no new embeddings; without tags and durations an older index says so.
    lines[3]["tags"] = ["news"]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(*command) == 0 and names("tag=news") == {"1", "2", "3"}
    shutil.rmtree(tmp_path / "out" / "table")
    assert names("folder=videos") == {"0", "1", "2", "3"}
    assert run("query", "red", "--index", tmp_path / "out", "--where", "tag=news") == 2
    assert "knows no tag of its videos; give its index command again" in capsys.readouterr().err


def test_tags_that_are_no_words_are_refused(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps({"video": "1.mp4", "caption": "a", "tags": "news"}) + "\n")
    given = ("--videos", root / "videos", "--checkpoint", "none", "--index", tmp_path / "out")
    assert run("index", tmp_path / "bad.jsonl", *given) == 2
    with pytest.raises(ValueError, match=r"bad\.jsonl:1: tags is 'news'; write a list of words"):
        tags_of(tmp_path / "bad.jsonl", root / "videos")


def test_an_index_gets_faiss_which_follows_it(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "index"
    shutil.copytree(root / "videos", videos)
    command = ("index", videos, "--checkpoint", checkpoint, "--index", out)
    assert run(*command) == 0
    assert run("query", "red", "--index", out, "--engine", "faiss") == 2
    assert f"has no FAISS index; give python -m scripts.search build-faiss {out}" in capsys.readouterr().err

    assert run("build-faiss", out) == 0
    printed = capsys.readouterr().out
    assert "6 vectors in 1 lists, 1 of them probed; 0 removed" in printed
    assert "asked with texts: recall@10 1.000, recall@100 1.000" in printed
    exactly = found(capsys, "--index", out, "--engine", "exact")
    assert found(capsys, "--index", out) == found(capsys, "--index", out, "--engine", "faiss") == exactly

    # The index command brings it up to date; without FAISS it would be refused.
    (videos / "2.mp4").unlink()
    shutil.copy(videos / "3.mp4", videos / "9.mp4")
    held = shutil.copytree(out / "faiss", tmp_path / "faiss")
    assert run(*command) == 0
    assert "6 vectors in 1 lists, 1 of them probed; 1 removed" in capsys.readouterr().out
    assert len(found(capsys, "--index", out)) == 6
    shutil.rmtree(out / "faiss")
    shutil.copytree(held, out / "faiss")
    assert run("query", "red", "--index", out) == 2
    assert "built from other vectors than the index holds now" in capsys.readouterr().err
    assert run("build-faiss", out) == 0
    assert "6 vectors in 1 lists, 1 of them probed; 1 removed" in capsys.readouterr().out


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert 'query "a dog digs in the snow" --index' in capsys.readouterr().out
    for command in ("index", "query"):
        assert run(command, "--help") == 0
        assert "--index DIR" in capsys.readouterr().out
