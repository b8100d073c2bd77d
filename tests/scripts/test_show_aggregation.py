"""The command from a checkpoint to the files, and what it says of bad input."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from inference.api import load_model
from inference.pictures.aggregation import similarity_of, trace_of
from scripts.show_aggregation import main
from tests.integration.runs import train
from tests.tiny_runs import FRAMES, write_data

PICTURES = {"regions.png", "blocks.png", "similarity.png"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), [1] * 8)


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    return train(root, root / "run", "retrieval", train={"max_epochs": 1, "batch_size": 4}) / "checkpoint_best"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_everything_is_drawn(root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, out = root / "videos" / "0.mp4", tmp_path / "deep" / "out"
    assert run(video, "--checkpoint", checkpoint, "--text", "red is still", "--out", out) == 0
    assert {path.name for path in out.iterdir()} == PICTURES | {"grounding.png", "regions.mp4"}
    for picture in PICTURES:
        with Image.open(out / picture) as image:
            assert np.asarray(image.convert("L")).std() > 5
    with av.open(str(out / "regions.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == FRAMES
    assert "encoding: 100%" in capsys.readouterr().err


def test_without_a_phrase_nothing_is_grounded_and_settings_go_over_the_checkpoint(
    root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["aggregation.frames_per_block=0", "video.num_frames=3"]
    assert run(root / "videos" / "0.mp4", "--checkpoint", checkpoint, "--out", out, *words) == 0
    assert {path.name for path in out.iterdir()} == PICTURES | {"regions.mp4"}
    with av.open(str(out / "regions.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 3


def test_what_is_drawn_is_what_the_checkpoint_encodes(root: Path, checkpoint: Path) -> None:
    model = load_model(checkpoint, device="cpu")
    video = str(root / "videos" / "1.mp4")
    trace, encoded = trace_of(model, video, None, None), model.encode_tokens(video)
    assert torch.equal(trace.tokens, encoded.tokens)
    assert np.array_equal(trace.origins, encoded.origins.numpy())
    assert np.array_equal(trace.frames, encoded.frames.permute(0, 2, 3, 1).numpy())
    # The embedding of the whole video is the projected mean of its tokens, so a token's projection is its part in it.
    with model.computing():
        parts = model.model.vision_proj(encoded.tokens).float()
    whole = F.normalize(parts.mean(dim=0), dim=0)
    torch.testing.assert_close(whole, model.encode_video(video))
    cosine = F.normalize(parts, dim=-1) @ model.encode_text("red is still")
    expected = cosine[encoded.origins].double().numpy()
    np.testing.assert_allclose(similarity_of(model, trace, "red is still"), expected, atol=1e-6)


NOTHING = ["aggregation.reducer=none", "aggregation.frames_per_block=0", "aggregation.patches_per_block=0"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (NOTHING, "nothing merges"),
        (["--text", " "], "--text: is empty"),
        (["aggregation.reducer=other"], "aggregation.reducer"),
    ],
)
def test_bad_input_ends_in_one_line(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    out = tmp_path / "out"
    assert run(root / "videos" / "0.mp4", "--checkpoint", checkpoint, "--out", out, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and said in lines[-1]
    assert sum(line.startswith("error: ") for line in lines) == 1 and not out.exists()


def test_a_missing_video_and_a_file_in_the_way_are_named(
    root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "no.mp4", "--checkpoint", checkpoint, "--out", tmp_path / "out") == 2
    assert "no.mp4" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert run(root / "videos" / "0.mp4", "--checkpoint", checkpoint, "--out", tmp_path / "file") == 2
    assert "is a file; name a folder" in capsys.readouterr().err
