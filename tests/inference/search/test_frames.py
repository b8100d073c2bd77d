"""The moments that match a text best, against loops over patches and against frames that tell their own number."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from datasets import decode
from inference.api import EncodedTokens, TrainedModel, load_model
from inference.search import frames as frames_module
from inference.search.frames import best_frames
from tests.integration.runs import train
from tests.tiny_runs import FRAMES, write_data
from tests.videos import frame_numbers, grey_steps, write_video

FPS = 10


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"), [1] * 4)
    write_video(root / "steps.mp4", grey_steps(20), FPS)
    write_video(root / "short.mp4", grey_steps(2), FPS)
    Image.fromarray(grey_steps(1)[0]).save(root / "picture.png")
    return root


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    return train(root, root / "run", train={"max_epochs": 1, "batch_size": 4}) / "checkpoint_best"


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> TrainedModel:
    return load_model(checkpoint, device="cpu")


def text_of(model: TrainedModel) -> torch.Tensor:
    found = model.encode_text("red grows")
    assert isinstance(found, torch.Tensor)
    return found


@pytest.mark.parametrize("span", [(None, None), (0.5, 1.6)])
@pytest.mark.parametrize("reducer", ["none", "geometry", "prune"])
def test_frames_are_those_of_loops_over_their_patches(
    root: Path, checkpoint: Path, reducer: str, span: tuple[float | None, float | None]
) -> None:
    model = load_model(checkpoint, f"aggregation.reducer={reducer}", device="cpu")
    video, text = str(root / "steps.mp4"), text_of(model)
    encoded = model.encode_tokens(video, *span)
    numbers = frame_numbers(encoded.frames)
    expected = {}
    for frame, held in enumerate(encoded.origins.tolist()):
        projected = [model.model.vision_proj(encoded.tokens[token]) for token in held if token >= 0]
        cosines = [F.cosine_similarity(vector, text, dim=0).item() for vector in projected]
        if cosines:
            expected[tuple(held)] = max((np.mean(cosines), numbers[frame] / FPS), expected.get(tuple(held), (-2, 0)))
    found = best_frames(model, encoded, video, *span, text, FRAMES)
    assert len(found) == len(expected)
    for (seconds, similarity), (mean, at) in zip(found, sorted(expected.values(), reverse=True), strict=True):
        assert similarity == pytest.approx(mean, abs=1e-6)
        assert seconds == pytest.approx(at, abs=1e-6) or reducer == "geometry"  # those that merged have one mean
    assert best_frames(model, encoded, video, *span, text, 2) == found[:2]


def test_moments_that_a_short_video_repeats_come_once(root: Path, checkpoint: Path) -> None:
    model = load_model(checkpoint, "aggregation.reducer=none", device="cpu")
    for name, moments in (("short.mp4", [0, 0.1]), ("picture.png", [0])):
        video = str(root / name)
        found = best_frames(model, model.encode_tokens(video), video, None, None, text_of(model), FRAMES)
        assert sorted(seconds for seconds, _ in found) == pytest.approx(moments)


def test_frames_that_became_one_come_once_and_dropped_ones_never(
    root: Path, model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames 0 and 2 are one, of frame 1 half is left, and nothing of frame 3."""
    text = F.normalize(torch.arange(1.0, 4.0), dim=0)
    origins = torch.tensor([[0, 1], [2, -1], [0, 1], [-1, -1]])
    tokens = torch.stack([text, -text, text])
    encoded = EncodedTokens(tokens, torch.ones(3), origins, torch.zeros(FRAMES, 3, 2, 2, dtype=torch.uint8))
    projector: Any = torch.nn.Module()
    projector.project_tokens = lambda tokens: F.normalize(identity(tokens), dim=-1)
    projector.identity = identity = torch.nn.Linear(3, 3, bias=False)
    torch.nn.init.eye_(identity.weight)
    made: Any = SimpleNamespace(computing=torch.no_grad, model=projector, config=model.config)
    found = best_frames(made, encoded, str(root / "steps.mp4"), None, None, text, FRAMES)
    assert np.array(found) == pytest.approx(np.array([[0.7, 1.0], [0.2, 0.0]]), abs=1e-6)
    assert frames_module.grounded(projector, encoded, text)[1].tolist() == pytest.approx([1, np.nan], nan_ok=True)


def choose(positions: list[int], length: int) -> np.ndarray:
    return np.array([position for position in positions if position < length])


@pytest.mark.parametrize("span", [(None, None), (0.25, None), (0.31, 1.2)])
def test_times_are_those_of_the_frames_that_are_read(root: Path, span: tuple[float | None, float | None]) -> None:
    wanted = partial(choose, [0, 2, 2, 5, 8])
    pixels = decode.read_video(str(root / "steps.mp4"), 32, wanted, *span)
    times = decode.read_times(str(root / "steps.mp4"), wanted, *span)
    assert times.tolist() == pytest.approx([number / FPS for number in frame_numbers(pixels)])


def test_what_has_no_times_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(decode.DecodeError, match="broken.mp4: PyAV: "):
        decode.read_times(str(tmp_path / "broken.mp4"), partial(choose, [0]))
