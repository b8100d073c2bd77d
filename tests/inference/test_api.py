"""The object that people use a checkpoint through gives what training's evaluation computes, to rounding."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inference.api import TrainedModel, load_model
from tasks.data import clean_up
from tasks.pair_matching import PairMatcher
from tasks.retrieval import RetrievalTask
from tests.integration.runs import ROOT, SCRIPTS, start, train
from tests.tiny_runs import FRAMES, IMAGE, write_data, write_questions

TRAINED: dict[str, Any] = {
    "optim": {"lr": 5e-3, "clip_norm": 1.0},
    "train": {"max_epochs": 4, "batch_size": 4, "eval_every": 4},
}
NUM_VIDEOS = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"), [1, 2, 1, 1, 1, 2, 1, 1])
    return write_questions(root, [3, 1, 2, 0, 3, 1, 1, 1])


@pytest.fixture(scope="module")
def checkpoints(root: Path) -> dict[str, Path]:
    """A checkpoint of each task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # starting Java takes longer than a run of this size
        folders = {task: train(root, root / task, task, **TRAINED) for task in SCRIPTS}
    return {
        task: folder / ("checkpoint_last" if task == "pretrain" else "checkpoint_best")
        for task, folder in folders.items()
    }


@pytest.fixture(scope="module")
def models(checkpoints: dict[str, Path]) -> dict[str, TrainedModel]:
    return {task: load_model(path, device="cpu") for task, path in checkpoints.items()}


@pytest.fixture
def videos(root: Path) -> list[Path]:
    return [root / "videos" / f"{number}.mp4" for number in range(NUM_VIDEOS)]


def captions(root: Path) -> list[str]:
    lines = (root / "captions.jsonl").read_text().splitlines()
    return [caption for line in lines for caption in json.loads(line)["caption"]]


def evaluate(checkpoint: Path, task: str, out: Path, *overrides: str) -> list[dict[str, Any]]:
    """The predictions that the entry script writes of a checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        assert start(SCRIPTS[task], "--evaluate", f"checkpoint={checkpoint}", f"output_dir={out}", *overrides) == 0
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What passes through training's evaluation of retrieval: embeddings, and the logits of matching by video."""
    seen: dict[str, Any] = {"logits": {}}
    embed_texts, encode_videos, match = RetrievalTask._embed_texts, RetrievalTask._encode_videos, PairMatcher.match

    def embedded(task: RetrievalTask, texts: Any) -> Any:
        seen["texts"] = embed_texts(task, texts)
        return seen["texts"]

    def encoded(task: RetrievalTask, *arguments: Any) -> Any:
        found = encode_videos(task, *arguments)
        seen["videos"] = found.embeddings
        return found

    def matched(matcher: PairMatcher, tokens: Any, chosen: Any) -> Any:
        logits = match(matcher, tokens, chosen)
        seen["logits"][len(seen["logits"])] = dict(zip(chosen.tolist(), logits.tolist(), strict=True))
        return logits

    monkeypatch.setattr(RetrievalTask, "_embed_texts", embedded)
    monkeypatch.setattr(RetrievalTask, "_encode_videos", encoded)
    monkeypatch.setattr(PairMatcher, "match", matched)
    yield seen


@pytest.mark.parametrize("overrides", [(), ("aggregation.reducer=none",), ("aggregation.keep=0.25",)])
def test_embeddings_and_matches_are_those_of_the_metrics(
    root: Path,
    checkpoints: dict[str, Path],
    videos: list[Path],
    tmp_path: Path,
    evaluated: dict[str, Any],
    overrides: tuple[str, ...],
) -> None:
    checkpoint = checkpoints["retrieval"]
    asked = ("--evaluate", f"checkpoint={checkpoint}", f"output_dir={tmp_path}", *overrides)
    assert start(SCRIPTS["retrieval"], *asked) == 0
    model, texts = load_model(checkpoint, *overrides, device="cpu"), captions(root)
    of_videos, of_texts = model.encode_video(videos), model.encode_text(texts)
    assert isinstance(of_videos, torch.Tensor)
    assert of_videos.dtype == of_texts.dtype == torch.float32
    torch.testing.assert_close(of_videos.norm(dim=1), torch.ones(NUM_VIDEOS))
    np.testing.assert_allclose(of_videos, evaluated["videos"], atol=2e-6)
    np.testing.assert_allclose(of_texts, evaluated["texts"], atol=2e-6)
    np.testing.assert_allclose(of_texts @ of_videos.T, evaluated["texts"] @ evaluated["videos"].T, atol=2e-6)
    for number in (0, 5):
        matches = model.match(videos[number], texts)
        expected = evaluated["logits"][number]
        assert len(expected) == len(texts)
        assert [match.logit for match in matches] == pytest.approx([expected[row] for row in range(10)], abs=1e-5)


def test_overrides_change_what_is_computed(checkpoints: dict[str, Path], videos: list[Path]) -> None:
    as_trained, kept = (
        load_model(checkpoints["retrieval"], *more, device="cpu") for more in ((), ("aggregation.keep=0.5",))
    )
    assert len(as_trained.encode_tokens(videos[0]).tokens) == 5 and len(kept.encode_tokens(videos[0]).tokens) > 5
    assert not torch.allclose(as_trained.encode_video(videos[0]), kept.encode_video(videos[0]), atol=1e-4)


def test_one_is_a_row_of_many(models: dict[str, TrainedModel], videos: list[Path], root: Path) -> None:
    model, texts = models["retrieval"], captions(root)
    many = model.encode_video([*videos, videos[2]], return_tokens=True)  # more than are encoded at once
    torch.testing.assert_close(many.embedding[8], many.embedding[2])
    one = model.encode_video(videos[5], return_tokens=True)
    torch.testing.assert_close(one.embedding, many.embedding[5])
    torch.testing.assert_close(one.tokens, many.tokens[5])
    torch.testing.assert_close(model.encode_text(texts[3]), model.encode_text(texts)[3])
    single = model.match(videos[5], texts[3])
    assert single.logit == pytest.approx(model.match(videos[5], texts)[3].logit, abs=1e-6)
    assert 0 < single.probability < 1


def test_texts_are_cleaned_as_in_training(models: dict[str, TrainedModel]) -> None:
    model, written = models["retrieval"], "A red, (green) thing; falls!"
    cleaned = clean_up(model.config)(written)
    assert cleaned != written
    torch.testing.assert_close(model.encode_text(written), model.encode_text(cleaned))


@pytest.mark.parametrize("overrides", [(), ("evaluation.inference=generate",), ("aggregation.reducer=none",)])
def test_answers_are_those_of_the_evaluation(
    checkpoints: dict[str, Path], tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    rows = evaluate(checkpoints["vqa"], "vqa", tmp_path, *overrides)
    model = load_model(checkpoints["vqa"], *overrides, device="cpu")
    about: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        about.setdefault(row["video"], []).append(row)
    assert len(about) == 7 and (overrides or len({row["predicted"] for row in rows}) > 1)
    for video, asked in about.items():
        assert model.answer(video, [row["question"] for row in asked]) == [row["predicted"] for row in asked]
    assert model.answer(rows[0]["video"], rows[0]["question"]) == rows[0]["predicted"]


def test_answers_are_chosen_of_given_ones(models: dict[str, TrainedModel], videos: list[Path]) -> None:
    assert models["vqa"].answer(videos[0], "does it move?", answers=["two"]) == "two"
    with pytest.raises(ValueError, match="answers: none are given"):
        models["vqa"].answer(videos[0], "does it move?", answers=[])


@pytest.mark.parametrize("overrides", [(), ("evaluation.method=nucleus",)])
def test_captions_are_those_of_the_evaluation(
    checkpoints: dict[str, Path], videos: list[Path], tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    rows = evaluate(checkpoints["caption"], "caption", tmp_path, *overrides)
    model = load_model(checkpoints["caption"], *overrides, device="cpu")
    assert [row["video"] for row in rows] == [str(video) for video in videos]
    written = model.caption(videos)
    assert written == [row["predicted"] for row in rows] and any(written)
    assert model.caption(videos[0]) == written[0]


def test_pretrained_weights_do_all_but_answer(models: dict[str, TrainedModel], videos: list[Path]) -> None:
    model = models["pretrain"]
    assert model.abilities == ("encode_video", "encode_text", "classify", "match", "caption", "encode_tokens")
    assert isinstance(model.caption(videos[0]), str)
    assert model.task.model.visual_encoder is model.model.visual_encoder and not hasattr(model.task, "objectives")


def test_parts_and_images(models: dict[str, TrainedModel], videos: list[Path], tmp_path: Path) -> None:
    model = models["retrieval"]
    parts = model.encode_video([videos[0], videos[0], videos[1]], start=[0.4, None, None], end=[0.6, 0.2, None])
    torch.testing.assert_close(parts[0], model.encode_video(videos[0], 0.4, 0.6))
    torch.testing.assert_close(parts[2], model.encode_video(videos[1]))
    beginning = model.read_video(videos[0], end=0.2)
    assert torch.equal(beginning[0], beginning[1]) and not torch.equal(beginning[0], beginning[3])  # two frames
    torch.testing.assert_close(parts[1], model.encode_pixels(beginning.unsqueeze(0)).embedding[0])
    assert not torch.allclose(parts[0], parts[1], atol=1e-4)
    whole = model.read_video(videos[0])
    assert (whole.shape, whole.dtype) == ((FRAMES, 3, IMAGE, IMAGE), torch.uint8)
    Image.fromarray(whole[0].permute(1, 2, 0).numpy()).save(tmp_path / "still.png")
    still = model.read_video(tmp_path / "still.png")
    assert torch.equal(still, whole[:1].expand(FRAMES, -1, -1, -1))
    torch.testing.assert_close(
        model.encode_video(tmp_path / "still.png"), model.encode_pixels(still.unsqueeze(0)).embedding[0]
    )
    with pytest.raises(ValueError, match=r"still.png: start has no effect on an image"):
        model.encode_video(tmp_path / "still.png", start=1.0)
    with pytest.raises(ValueError, match="1 times for 2 videos"):
        model.encode_video(videos[:2], start=[0.1])


@pytest.mark.parametrize("task", ["retrieval", "vqa", "caption"])
def test_tokens_know_where_they_come_from(models: dict[str, TrainedModel], videos: list[Path], task: str) -> None:
    model = models[task]
    found = model.encode_tokens(videos[0])
    assert found.origins.shape == (FRAMES, (IMAGE // 16) ** 2) and torch.equal(
        found.frames, model.read_video(videos[0])
    )
    cells = torch.bincount(found.origins.flatten(), minlength=len(found.tokens))
    assert torch.equal(cells[1:].float(), found.size[1:]) and cells[0] == 0  # the class token holds none
    torch.testing.assert_close(found.tokens, model.encode_pixels(found.frames.unsqueeze(0)).tokens[0])


def test_the_format_is_chosen(checkpoints: dict[str, Path], videos: list[Path]) -> None:
    exact, half = (load_model(checkpoints["retrieval"], device="cpu", dtype=kind) for kind in ("fp32", "bf16"))
    assert (exact.precision, half.precision) == ("fp32", "bf16")
    one, other = exact.encode_video(videos[0]), half.encode_video(videos[0])
    assert other.dtype == torch.float32 and not torch.equal(one, other)
    torch.testing.assert_close(one, other, atol=0.03, rtol=0)


def test_a_program_elsewhere_uses_it(checkpoints: dict[str, Path], videos: list[Path], tmp_path: Path) -> None:
    """As docs/TUTORIAL.md says: from any folder, with this one on PYTHONPATH."""
    program = "import sys; from inference.api import load_model; print(load_model(sys.argv[1]).caption(sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-c", program, checkpoints["caption"], videos[0]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == load_model(checkpoints["caption"], device="cpu").caption(videos[0])


def test_an_address_of_the_hub_is_loaded(
    checkpoints: dict[str, Path], models: dict[str, TrainedModel], videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def download(*wanted: Any) -> Path:
        asked.append(wanted)
        return checkpoints["caption"]

    monkeypatch.setattr("engine.hub._download", download)
    model = load_model("hf://me/testa@v1/captions", device="cpu")
    assert set(asked) == {("me/testa", "captions", "v1", None)}
    assert model.caption(videos[1]) == models["caption"].caption(videos[1])


REFUSED = {
    "retrieval": {"answer": "train_vqa.py", "caption": "train_caption.py"},
    "vqa": {"encode_video": "retrieval", "encode_text": "retrieval", "match": "vtm", "caption": "train_caption.py"},
    "caption": {"encode_video": "retrieval", "encode_text": "retrieval", "match": "vtm", "answer": "train_vqa.py"},
    "pretrain": {"answer": "train_vqa.py"},
}


@pytest.mark.parametrize("task", REFUSED)
def test_what_a_checkpoint_lacks_is_refused(models: dict[str, TrainedModel], task: str) -> None:
    for ability, remedy in REFUSED[task].items():
        assert ability not in models[task].abilities
        arguments = ["video.mp4"] if ability in ("encode_video", "caption", "encode_text") else ["video.mp4", "text"]
        with pytest.raises(ValueError) as refused:
            getattr(models[task], ability)(*arguments)
        said = str(refused.value)
        assert f"a checkpoint of {task} cannot {ability}, only" in said and remedy in said and "\n" not in said


def test_bad_input_is_named(models: dict[str, TrainedModel], tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"gone\.mp4: cannot be read \(no such file\)"):
        models["retrieval"].encode_video(tmp_path / "gone.mp4")
    with pytest.raises(ValueError, match=r"broken\.mp4: cannot be read \(PyAV"):
        models["caption"].caption(tmp_path / "broken.mp4")
    with pytest.raises(ValueError, match="no videos are given"):
        models["retrieval"].encode_video([])
    with pytest.raises(ValueError, match="no texts are given"):
        models["retrieval"].encode_text([])


@pytest.mark.parametrize(
    ("text", "said"), [("", "'', which has no words"), (" ?", "no words"), ("a \ud83d", "Unicode")]
)
def test_texts_are_as_in_a_manifest(models: dict[str, TrainedModel], videos: list[Path], text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"text 0 .*{said}"):
        models["retrieval"].encode_text(text)
    with pytest.raises(ValueError, match=f"text 1 .*{said}"):
        models["retrieval"].match(videos[0], ["a dog", text])
    with pytest.raises(ValueError, match=f"answer 1 .*{said}"):
        models["vqa"].answer(videos[0], "does it move?", answers=["two", text])


def test_checkpoints_that_cannot_be_loaded(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = checkpoints["retrieval"]
    with pytest.raises(ValueError, match=re.escape(f"holds no model.safetensors; name {folder}")):
        load_model(folder.parent)
    with pytest.raises(ValueError, match="does not exist"):
        load_model(tmp_path / "gone")
    lone = tmp_path / "lone.safetensors"
    shutil.copy(folder / "model.safetensors", lone)
    with pytest.raises(ValueError, match="lone.safetensors: has no config.yaml beside it; give with config"):
        load_model(lone)
    with pytest.raises(ValueError, match="train.batch_size=2: has no effect"):
        load_model(folder, "train.batch_size=2")
    with pytest.raises(ValueError, match="aggregation.kep: unknown key"):
        load_model(folder, "aggregation.kep=0.5")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device: cuda is not there"):
            load_model(folder, device="cuda")
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        load_model(folder, device="cpu", dtype="fp16")


def test_what_was_trained_in_fp16_is_used_in_fp32_on_a_cpu(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints["retrieval"], tmp_path / "copy"))
    written = folder / "config.yaml"
    text, changed = re.subn(r"  precision: \w+\n", "  precision: fp16\n", written.read_text())
    assert changed == 1
    written.write_text(text)
    assert load_model(folder, device="cpu").precision == "fp32"


def test_lone_weights_take_a_configuration(
    checkpoints: dict[str, Path], models: dict[str, TrainedModel], videos: list[Path], tmp_path: Path
) -> None:
    """Such as TESTA's own files; the path may hold what YAML has a meaning for."""
    folder = tmp_path / "a: b # c"
    folder.mkdir()
    lone = shutil.copy(checkpoints["retrieval"] / "model.safetensors", folder / "lone.safetensors")
    tokenizer = f"model.text.tokenizer={checkpoints['retrieval'] / 'tokenizer'}"
    model = load_model(lone, tokenizer, config=checkpoints["retrieval"] / "config.yaml", device="cpu")
    torch.testing.assert_close(model.encode_video(videos[0]), models["retrieval"].encode_video(videos[0]))
    torch.testing.assert_close(model.encode_text("red"), models["retrieval"].encode_text("red"))
