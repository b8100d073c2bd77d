"""The benchmark of needles: shares against a plain loop, long passes against the model alone, and a run end to end."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.needles.__main__ import EMBEDDING, TOKENS, main
from benchmarks.needles.mistakes import mistakes, oracle
from benchmarks.needles.passes import Pass, encode_hours
from benchmarks.needles.scores import Needle, shares
from datasets.decode import read_video
from datasets.encode import write_video
from inference.features.extract import ExtractionRequest
from inference.features.sources import Clip
from inference.features.windows import Windows
from inference.search.index import VideoIndex
from tests.models.tiny import vision_language


def clip(hour: int, start: float) -> Clip:
    return Clip(f"/videos/{hour}.mp4", start, start + 4, None, None)


def test_shares_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    clips = [clip(hour, start) for hour in range(7) for start in range(0, 40, 2)]
    embeddings, texts = rng.standard_normal((len(clips), 3)), rng.standard_normal((60, 3))
    needles = []
    for number in range(60):
        start = int(rng.integers(40))
        needles.append(Needle("", f"{number % 7}.mp4", start, start + int(rng.integers(1, 4))))

    hours = in_five = moments = in_hour = chance = 0.0
    for needle, text in zip(needles, texts, strict=True):
        ordered = sorted(range(len(clips)), key=lambda row: -float(embeddings[row] @ text))
        names = [Path(clips[row].video).name for row in ordered]
        starts = [clips[row].start for row in ordered]
        showing = [
            name == needle.hour and start < needle.end and start + 4 > needle.start
            for name, start in zip(names, starts, strict=True)
        ]
        hours += names[0] == needle.hour
        in_five += needle.hour in list(dict.fromkeys(names))[:5]
        moments += showing[0]
        in_hour += showing[names.index(needle.hour)]
        chance += sum(showing) / len(clips)

    found = shares(clips, embeddings, needles, texts)
    expected = (hours, in_five, moments, in_hour)
    assert 0 < moments < hours < in_five < 60
    for name, count in zip(("hour", "hour_top5", "moment", "moment_in_hour"), expected, strict=True):
        assert found[name] == pytest.approx(100 * count / 60, abs=0.01)
    assert found["moment_chance"] == pytest.approx(100 * chance / 60, abs=0.001)
    assert (found["hour_chance"], found["needles"], found["rows"]) == (14.29, 60, 140)


def test_an_oracle_finds_what_is_true_of_one_scene_alone() -> None:
    told = "a red ring left of a blue cross."
    other = "a red ring left of a blue square."
    scenes = [Needle(told, "1.mp4", 0, 2), Needle("a red ring.", "1.mp4", 2, 9), Needle(other, "0.mp4", 4, 6)]
    assert oracle(scenes, [scenes[0], scenes[2]])["moment"] == 100
    # The same is seen in another hour, which comes first.
    twice = [*scenes, Needle(told, "0.mp4", 6, 8)]
    found = oracle(twice, [scenes[0], scenes[2]])
    assert (found["moment"], found["moment_in_hour"], found["needles"]) == (50, 100, 2)


def test_mistakes_are_named_by_the_facts_that_differ() -> None:
    texts = {
        0: "a red ring left of a blue cross.",  # the needle
        1: "a red ring left of a green cross.",
        2: "a blue cross left of a red ring.",
        3: "a green square above a blue cross.",
        4: "a red ring.",
    }
    scenes = [Needle(text, f"{hour}.mp4", 10, 12) for hour, text in texts.items()]
    scenes.append(Needle("a white square above a purple triangle.", "1.mp4", 12, 13))
    clips = [Clip(f"/videos/{hour}.mp4", 9, 13, None, None) for hour in texts]
    needles, embeddings = scenes[:1] * 5, np.eye(5)
    expected = {"second colour": 1, "first and second": 1, "first colour, first shape, relation": 1, "no event": 1}
    assert mistakes(clips, embeddings, needles, np.eye(5), scenes) == expected


class Model:
    """A tiny model in the place of a trained one; passes end before the model's own number of frames or after it."""

    def __init__(self) -> None:
        self.model = vision_language()
        self.config = SimpleNamespace(video=SimpleNamespace(image_size=16))

    @torch.no_grad()
    def encode_clips(self, clips: Any) -> Any:
        return self.model.encode_video(clips.pixels)

    def computing(self) -> Any:
        return torch.no_grad()


def test_long_passes_and_the_windows_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    monkeypatch.setattr("benchmarks.needles.passes.load_model", lambda checkpoint, *overrides: model)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    hours = [tmp_path / f"hour_{index}.mp4" for index in range(2)]
    for index, hour in enumerate(hours):
        write_video(hour, pixels[20 * index :][:20], fps=1)

    folder = tmp_path / "passes"
    whole, windows = encode_hours(hours, tmp_path, Pass(10, 10, "linear"), Pass(4, 2), folder)
    assert [(Path(c.video).stem, c.start, c.end) for c in whole.clips] == [
        (hour, start, start + 10) for hour in ("hour_0", "hour_1") for start in (0, 10)
    ]
    assert [(c.start, c.end) for c in windows.clips[:8]] == [(s, s + 4) for s in (0, 2, 4, 6, 10, 12, 14, 16)]

    # The third pass is the first of the second hour, and its second window is of seconds 2 to 6.
    frames = read_video(str(hours[1]), 16, np.arange)[:10].contiguous()
    with torch.no_grad():
        features = model.model.encode_video(frames[None])
        tokens: Tensor = features.tokens[0, 1:].view(10, 16, -1)[2:6].flatten(0, 1)
        expected = model.model.project_tokens(tokens.mean(dim=0))
    torch.testing.assert_close(torch.from_numpy(whole.embeddings[2]), features.embedding[0])
    torch.testing.assert_close(torch.from_numpy(windows.embeddings[8 + 1]), expected, rtol=1e-4, atol=1e-5)

    # What is there is not encoded again.
    monkeypatch.setattr("benchmarks.needles.passes.load_model", None)
    again, _ = encode_hours(hours, tmp_path, Pass(10, 10, "linear"), Pass(4, 2), folder)
    np.testing.assert_array_equal(again.embeddings, whole.embeddings)


@pytest.mark.soak
def test_a_run_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--hours", "2", "--minutes", "48", "--passes", "60", "--seeds", "0", "--out", str(tmp_path / "out")]
    settings = ["train.max_epochs=1", "train.batch_size=32", "optim.warmup_steps=1", "train.workers=0"]
    for _ in range(2):  # the second finds all of it
        main([*options, *settings])
    results = json.loads((tmp_path / "out" / "needles.json").read_text())["seeds"]["seed0"]
    assert results.keys() == {"training", "oracle", "2_nearest", "60_nearest", "60_linear", "60_windows"}
    assert results["60_linear"][EMBEDDING]["rows"] == 2 * 60
    assert results["60_linear"][TOKENS]["rows"] == 2 * 60 * 59
    printed = capsys.readouterr().out
    assert printed.count("$ python train_retrieval.py") == 1 and "| 60 s, windows |" in printed

    # The windows are those of an index, which has the whole hours besides.
    seed, index = tmp_path / "out" / "seed0", tmp_path / "index"
    request = ExtractionRequest(
        source=seed / "videos" / "videos" / "hours",
        checkpoint=str(seed / "model" / "checkpoint_best"),
        out=index,
        windows=Windows(2, 1),
    )
    VideoIndex.update(request)
    indexed = VideoIndex.open(index)
    rows = [row for row, clip in enumerate(indexed.clips) if clip.start is not None]
    ours = [np.load(seed / "passes" / "2_nearest" / f"hour_0{hour}.npz")["passes"] for hour in range(2)]
    assert results["2_nearest"][EMBEDDING]["rows"] == len(rows) == 2 * 3599
    np.testing.assert_allclose(indexed.embeddings[rows], np.concatenate(ours), rtol=0, atol=1e-5)
