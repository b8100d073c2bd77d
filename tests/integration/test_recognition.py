"""Recognition through the entry script: fine-tuning, probes and prompts, with each system; and what it refuses."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from configs.load import load
from configs.schema import RecognitionConfig
from datasets.samples import Clip
from engine.random_state import seed_everything
from inference.api import load_model
from models.parts.losses_sorting import row_noise
from scripts.extract_features.__main__ import main as extract_features
from tasks.metrics.recognition import class_logits, recognition_metrics
from tasks.recognition import RecognitionTask
from tests.gloo import run_ranks
from tests.integration.runs import files_below, losses_of, results_of, start, weights_of
from tests.labelled_videos import COLOURS, write_labelled
from tests.tiny_runs import SETTINGS

MODELS: dict[str, dict[str, Any]] = {
    "tvts": {
        "name": "tvts", "depth": 2, "width": 24, "heads": 2, "patch_size": 8, "embed_dim": 16, "sort_heads": 2,
        "motion": True,
        "text": {
            "tokenizer": "from_data", "vocab_size": 560, "depth": 2, "width": 16, "heads": 2, "max_positions": 24,
            "trained_blocks": 1,
        },
    },
    "umt": {
        "name": "umt", "depth": 2, "width": 32, "heads": 2, "embed_dim": 16,
        "text": {
            "tokenizer": "from_data", "vocab_size": 200, "depth": 2, "width": 32, "heads": 2, "intermediate": 32,
            "fusion_layer": 1, "max_positions": 24, "dropout": 0.0,
        },
    },
    "testa": SETTINGS["model"],
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fine-tuning of a small TVTSv2."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert start("train_recognition", "--config", write_config(root, folder)) == 0
    return folder


def write_config(root: Path, folder: Path, system: str = "tvts", **sections: Any) -> Path:
    settings: dict[str, Any] = {
        "task": "recognition",
        "model": MODELS[system],
        "video": {"num_frames": 4, "image_size": 32},
        "data": {"root": str(root), "dataset": "labelled", "test_split": "test"},
        "optim": {"lr": 3e-3},
        "train": {"batch_size": 3, "max_epochs": 8, "eval_every": 8, "workers": 0},
        "output_dir": str(folder),
        **sections,
    }
    if settings.get("objective", {}).get("name") == "probe":
        del settings["optim"]
    path = folder.parent / f"{folder.name}.yaml"
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(settings, file)
    return path


def evaluate(checkpoint: Path, folder: Path, *words: str) -> dict[str, Any]:
    assert start("train_recognition", "--evaluate", f"checkpoint={checkpoint}", f"output_dir={folder}", *words) == 0
    return results_of(folder)


def test_a_head_learns_colours_and_its_checkpoint_is_evaluated_by_it(run: Path, tmp_path: Path) -> None:
    results = results_of(run)
    assert results["metrics"] == {"top1": 100.0, "top5": 100.0, "mean_per_class": 100.0}
    assert (results["split"], results["num_videos"]) == ("test", 3)
    assert results["classified_by"] == "head" and results["num_classes"] == 3
    rows = list(csv.reader((run / "confusion.csv").read_text().splitlines()))
    assert rows[:2] == [["true", "blue", "green", "red"], ["blue", "1", "0", "0"]]
    assert [row[1:] for row in rows[2:]] == [["0", "1", "0"], ["0", "0", "1"]]
    assert (run / "confusion.png").read_bytes().startswith(b"\x89PNG")

    # Another folder with other videos and fewer classes: the head keeps its numbers.
    other = write_labelled(tmp_path / "other", per_class=2, seed=9)
    (other / "labels.csv").write_text("file,label\nred/0.mp4,red\nblue/1.mp4,blue\n")
    found = evaluate(run / "checkpoint_best", tmp_path / "found", f"data.root={other}", "data.test_split=all")
    assert found["metrics"]["top1"] == 100.0 and found["num_videos"] == 2 and found["classified_by"] == "head"


def test_any_batch_size_and_two_processes_evaluate_the_same(run: Path, root: Path, tmp_path: Path) -> None:
    one = evaluate(run / "checkpoint_best", tmp_path / "one", "data.test_split=all")
    small = evaluate(run / "checkpoint_best", tmp_path / "small", "data.test_split=all", "evaluation.batch_size=1")
    assert one["metrics"] == small["metrics"] and one["num_videos"] == 12
    words = [f"checkpoint={run / 'checkpoint_best'}", f"output_dir={tmp_path / 'two'}", "data.test_split=all"]
    run_ranks(2, start, "train_recognition", "--evaluate", *words)
    two = results_of(tmp_path / "two")
    assert two["metrics"] == one["metrics"] and two["num_videos"] == 12
    assert (tmp_path / "two" / "predictions.jsonl").read_text() == (tmp_path / "one" / "predictions.jsonl").read_text()


def test_a_run_resumes_to_the_bit_from_an_earlier_checkpoint(run: Path, root: Path, tmp_path: Path) -> None:
    resumed = tmp_path / "resumed"
    shutil.copytree(run, resumed)
    for name in ("checkpoint_last", "checkpoint_best"):
        shutil.rmtree(resumed / name)
    (earlier,) = resumed.glob("checkpoint_step_*")
    assert json.loads((earlier / "state.json").read_text())["epoch"] == 7

    assert start("train_recognition", "--config", write_config(root, resumed)) == 0
    first, second = (weights_of(folder / "checkpoint_last") for folder in (run, resumed))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert results_of(resumed)["metrics"] == results_of(run)["metrics"]


@pytest.mark.parametrize("system", MODELS)
def test_every_dual_encoder_trains_a_head_is_probed_and_classifies_by_prompts(
    system: str, root: Path, tmp_path: Path
) -> None:
    config = write_config(root, tmp_path / "run", system, train={"batch_size": 9, "max_epochs": 1, "workers": 0})
    assert start("train_recognition", "--config", config) == 0
    assert len(losses_of(tmp_path / "run")) == 1

    probe = write_config(root, tmp_path / "probe", system, objective={"name": "probe"})
    assert start("train_recognition", "--config", probe) == 0
    results = results_of(tmp_path / "probe")
    assert results["metrics"]["top1"] == 100.0  # colours are linear in any random features

    prompts = ("evaluation.classify=prompts", "evaluation.prompts=['a {} video', '{}']")
    found = evaluate(tmp_path / "probe" / "checkpoint_best", tmp_path / "prompts", *prompts)
    assert found["classified_by"] == "prompts" and found["num_texts"] == 6
    assert found["metrics"]["mean_per_class"] == pytest.approx(by_hand(tmp_path / "probe", root))


def by_hand(run: Path, root: Path) -> float:
    """The accuracy of two prompts a class, by the API's embeddings."""
    model = load_model(run / "checkpoint_best")
    classes = sorted(COLOURS)
    texts = [model.encode_text([f"a {name} video", name]).double() for name in classes]
    means = torch.stack([torch.nn.functional.normalize(text, dim=-1).mean(dim=0) for text in texts])
    videos = model.encode_video([root / name / "3.mp4" for name in classes]).double().numpy()
    logits = class_logits(videos, torch.nn.functional.normalize(means, dim=-1).numpy())
    return recognition_metrics(logits, np.arange(3))["mean_per_class"]


def test_features_of_a_probe_are_encoded_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(root, tmp_path / "probe", objective={"name": "probe"})
    assert start("train_recognition", "--config", config) == 0
    weights, (cache,) = weights_of(tmp_path / "probe" / "checkpoint_best"), (tmp_path / "probe" / "features").iterdir()
    before = files_below(cache)

    seed_everything(42)  # as the run did; other weights would not find these features
    task = RecognitionTask(load(RecognitionConfig, config, []), torch.device("cpu"))
    monkeypatch.setattr(task, "each_clip", lambda *_: pytest.fail("a video is encoded again"))
    with torch.no_grad():
        task.eval().fit()
    assert task.head is not None and torch.equal(task.head.linear.weight, weights["head.linear.weight"])
    assert files_below(cache) == before

    # A file that was cut short counts as not written; its videos, and only those, are encoded again.
    (part,) = cache.iterdir()
    part.write_bytes(part.read_bytes()[:100])
    assert start("train_recognition", "--config", config) == 0
    again = weights_of(tmp_path / "probe" / "checkpoint_best")
    assert torch.equal(again["head.linear.weight"], weights["head.linear.weight"])


def test_hidden_patches_are_not_seen_and_what_is_seen_is_a_plain_loss(root: Path, tmp_path: Path) -> None:
    """By hand: which patches stay follows from seed and step, and pixels of the others change nothing."""
    model = {**MODELS["tvts"], "mask_ratio": 0.75}
    with pytest.raises(ValueError, match="objective.hide_patches: takes a model with a model.mask_ratio above 0"):
        none = {**model, "mask_ratio": 0.0}
        load(
            RecognitionConfig,
            write_config(root, tmp_path / "none", model=none, objective={"hide_patches": True}),
            [],
        )
    path = write_config(root, tmp_path / "most", model=model, objective={"hide_patches": True})
    config = load(RecognitionConfig, path, [])
    task = RecognitionTask(config, torch.device("cpu")).train()
    task.prepare_head()
    assert task.head is not None

    pixels = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    labels = task.labels("train")
    batch: dict[str, Any] = {"clip": Clip.of_pixels(pixels), "row": torch.tensor([0, 5])}
    task.begin_step(7, 0.0, [batch])
    loss = task(batch)["classes"]
    kept = row_noise(config.seed, 7, 0, 2, 16).argsort(dim=1)[:, :4].sort(dim=1).values
    logits = task.head(task.model.encode_video(pixels, kept).embedding)
    assert torch.equal(loss, torch.nn.functional.cross_entropy(logits, labels[[0, 5]]))

    patches = pixels.unflatten(-1, (4, 8)).unflatten(-3, (4, 8)).clone()
    for clip, places in enumerate(kept.tolist()):
        for place in set(range(16)) - set(places):
            patches[clip, :, :, place // 4, :, place % 4] = 0
    changed = {**batch, "clip": Clip.of_pixels(patches.flatten(-2).flatten(-3, -2))}
    assert torch.equal(task(changed)["classes"], loss)
    task.begin_step(8, 0.0, [batch])
    assert not torch.equal(task(batch)["classes"], loss)


def test_the_same_command_trains_to_the_same_weights(run: Path, root: Path, tmp_path: Path) -> None:
    assert start("train_recognition", "--config", write_config(root, tmp_path / "second")) == 0
    first, second = weights_of(run / "checkpoint_best"), weights_of(tmp_path / "second" / "checkpoint_best")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_multiple_choice_ranks_the_options_of_each_video(run: Path, root: Path, tmp_path: Path) -> None:
    lines = [
        {"clip_name": f"red/{number}.mp4", "options": ["red", "green", "blue"][: 3 - number % 2], "answer": number % 2}
        for number in range(4)
    ]
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "videos").symlink_to(root)
    settings = ("data.dataset=ssv2_mc", "data.train_split=val", "data.test_split=val", f"data.root={tmp_path}")
    found = evaluate(run / "checkpoint_best", tmp_path / "found", *settings)
    assert found["metrics"].keys() == {"top1", "top5"} and found["num_videos"] == 4 and found["num_texts"] == 3

    model = load_model(run / "checkpoint_best")
    texts = model.encode_text(["red", "green", "blue"])
    right = 0
    for line in lines:
        cosines = texts[: len(line["options"])] @ model.encode_video(root / line["clip_name"])
        right += int(cosines.argmax()) == line["answer"]
    assert found["metrics"]["top1"] == 25.0 * right


def test_mistakes_are_refused_in_one_line(
    run: Path, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def error(*words: object) -> str:
        assert start("train_recognition", *words) == 2
        return capfd.readouterr().err.strip().splitlines()[-1]

    checkpoint = f"checkpoint={run / 'checkpoint_best'}"
    (tmp_path / "labels.csv").write_text("file,label,split\nred/0.mp4,mauve,test\n")
    (tmp_path / "red").symlink_to(root / "red")
    text = error("--evaluate", checkpoint, f"data.root={tmp_path}")
    assert "labels.csv:2" in text and "'mauve' is not one of the 3 known: blue, green, red" in text

    text = error("--evaluate", checkpoint, "evaluation.classify=prompts", "evaluation.prompts=['a {colour} video']")
    assert "evaluation.prompts: prompt 'a {colour} video'" in text and "{colour}" in text
    assert "has no videos of the split 'dev'" in error("--evaluate", checkpoint, "data.test_split=dev")
    assert "there is no such folder" in error("--evaluate", checkpoint, f"data.root={tmp_path / 'nowhere'}")

    config = write_config(root, tmp_path / "no_head")
    assert "prompts do not look at the head" in error("--config", config, "evaluation.classify=prompts")
    assert "optim: has no effect on a probe" in error("--config", config, "objective.name=probe", "optim.clip_norm=1")

    other = tmp_path / "retrieval.yaml"
    other.write_text("task: retrieval\ndata: {root: x, dataset: labelled}\noptim: {lr: 1}\ntrain: {batch_size: 2}\n")
    assert start("train_retrieval", "--config", other, "train.max_epochs=1") == 2
    assert "has classes, not texts; use train_recognition.py" in capfd.readouterr().err


def test_a_video_gives_its_vector_and_shape_by_the_rule_of_the_reference(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, checkpoint = root / "red" / "0.mp4", run / "checkpoint_best"
    rule = ("video.eval_sampling=ends", "video.interpolation=bilinear", "video.image_size=24")
    words = (str(video), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), *rule)
    with pytest.raises(SystemExit) as stop:
        extract_features([*words, "--workers", "0"])
    assert stop.value.code == 0 and "embeddings (1, 16) of 1 videos" in capsys.readouterr().out

    with av.open(str(video)) as container:
        images = [frame.to_image() for frame in container.decode(video=0)]
    chosen = [images[place] for place in np.linspace(0, len(images) - 1, 4).astype(int)]
    frames = np.stack([np.asarray(image.resize((24, 24), Image.BILINEAR)) for image in chosen])
    model = load_model(checkpoint)
    vector = model.encode_pixels(torch.from_numpy(frames).permute(0, 3, 1, 2).unsqueeze(0)).embedding
    found = np.load(tmp_path / "out" / "features" / "embeddings.npy")
    assert vector is not None and np.allclose(found, vector.numpy(), atol=1e-6)
