"""Recognition from manifests, by several views of each video, and from Python."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from inference.api import load_model
from tests.integration.runs import results_of, start
from tests.integration.test_recognition import evaluate, write_config
from tests.labelled_videos import COLOURS, write_labelled


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fine-tuning of a small TVTSv2."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert start("train_recognition", "--config", write_config(root, folder)) == 0
    return folder


def write_labels(path: Path, root: Path, numbers: range, **other: str) -> Path:
    """A manifest of the colours' videos of these numbers; `other` gives colours another label."""
    rows = [
        {"video": str(root / name / f"{number}.mp4"), "label": other.get(name, name), "group": f"{name} {number}"}
        for name in COLOURS
        for number in numbers
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_manifests_with_labels_train_and_evaluate(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_labels(tmp_path / "train.jsonl", root, range(3))
    write_labels(tmp_path / "test.jsonl", root, range(3, 4))
    write_labels(tmp_path / "other.jsonl", root, range(1), red="scarlet")
    data = {"root": str(tmp_path), "manifest": "train.jsonl", "test_manifest": "test.jsonl"}
    config = write_config(root, tmp_path / "run", objective={"name": "probe"}, data=data)
    assert start("train_recognition", "--config", config) == 0
    results = results_of(tmp_path / "run")
    assert results["metrics"]["top1"] == 100.0 and (results["split"], results["num_videos"]) == ("test", 3)

    words = ("--config", config, "data.test_manifest=other.jsonl", f"output_dir={tmp_path / 'refused'}")
    assert start("train_recognition", *words) == 2
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert f"{tmp_path / 'other.jsonl'}:1: class 'scarlet' is not one of the 3 known: blue, green, red" in said
    assert start("train_recognition", *words, "data.first_label=1") == 2
    assert "data.first_label: has no effect on a manifest" in capfd.readouterr().err


def test_the_api_classifies_as_evaluation_does(run: Path, root: Path, tmp_path: Path) -> None:
    videos = [root / name / f"{number}.mp4" for name in sorted(COLOURS) for number in range(4)]
    model = load_model(run / "checkpoint_best")
    found = model.classify(videos)
    with torch.no_grad():
        logits = model.task.head(model.encode_video(videos))
    evaluate(run / "checkpoint_best", tmp_path / "all", "data.test_split=all")
    predicted = [json.loads(line) for line in (tmp_path / "all" / "predictions.jsonl").read_text().splitlines()]
    of_video = {row["video"]: row["predicted"] for row in predicted}
    for video, classes, row in zip(videos, found, logits.softmax(dim=1), strict=True):
        assert [each.name for each in classes] == of_video[str(video)]
        order = [sorted(COLOURS).index(each.name) for each in classes]
        assert [each.probability for each in classes] == pytest.approx(row[order].tolist())
    # Alone, a video's products have another shape than in a batch, and on some processors other last bits.
    (alone,) = model.classify(videos[0], most=1)
    assert (alone.name, alone.probability) == (found[0][0].name, pytest.approx(found[0][0].probability))
    with pytest.raises(ValueError, match="its head knows its own classes; leave out classes"):
        model.classify(videos[0], ["red", "green"])
    with pytest.raises(ValueError, match="most: 0 asks for no class"):
        model.classify(videos[0], most=0)


def test_windows_and_mirror_images_are_averaged_in_evaluation_and_api(run: Path, root: Path, tmp_path: Path) -> None:
    """By hand: 8 frames, so that windows of 4 begin at the first frame alone, and of 2 at the first and the second."""
    views = ("evaluation.windows=3", "evaluation.mirror=true", "video.eval_sampling=interval_middle")
    words = (*views, "video.num_frames=2", "data.test_split=all")
    found = evaluate(run / "checkpoint_best", tmp_path / "one", *words)
    small = evaluate(run / "checkpoint_best", tmp_path / "small", *words, "evaluation.batch_size=1")
    assert found["metrics"] == small["metrics"] and (found["windows"], found["mirror"]) == (3, True)

    plain = load_model(run / "checkpoint_best", "video.num_frames=2")
    model = load_model(run / "checkpoint_best", *words[:4])
    video = root / "red" / "3.mp4"
    with av.open(str(video)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    size = plain.config.video.image_size
    whole = torch.from_numpy(frames).permute(0, 3, 1, 2)
    assert whole.shape[-2:] == (size, size) and len(whole) == 8
    shown = torch.stack([whole[[first, 4 + first]] for first in (0, 1)])
    rows = [plain.encode_pixels(clips).embedding for clips in (shown, shown.flip(-1))]
    with torch.no_grad():
        expected = plain.task.head(torch.cat(rows)).softmax(dim=1).mean(dim=0)
    probabilities = {each.name: each.probability for each in model.classify(video)}
    assert [probabilities[name] for name in sorted(COLOURS)] == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_api_classifies_by_prompts(run: Path, root: Path) -> None:
    videos, names = [root / name / "3.mp4" for name in COLOURS], ["blue", "red", "green"]
    model = load_model(run / "checkpoint_best", "evaluation.classify=prompts", "evaluation.prompts=['a {} video']")
    for templates in (None, ["a {} video", "{}"]):
        found = model.classify(videos, names, prompts=templates)
        texts = [model.encode_text([t.format(name) for t in templates or ["a {} video"]]) for name in names]
        means = torch.stack([torch.nn.functional.normalize(text.mean(dim=0), dim=0) for text in texts])
        expected = (100 * model.encode_video(videos) @ means.T).softmax(dim=1)
        for classes, row in zip(found, expected, strict=True):
            probabilities = {each.name: each.probability for each in classes}
            assert [probabilities[name] for name in names] == pytest.approx(row.tolist(), abs=1e-4)
            assert [each.probability for each in classes] == sorted(probabilities.values(), reverse=True)

    for classes, said in ((None, "has no head; give the classes"), (["red"], "at least two different names")):
        with pytest.raises(ValueError, match=said):
            model.classify(videos[0], classes)
    with pytest.raises(ValueError, match="its placeholders are {colour}"):
        model.classify(videos[0], names, prompts="a {colour} video")
