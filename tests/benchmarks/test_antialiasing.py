"""What resizing without antialiasing changes, on pictures of which that is known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.antialiasing import Difference, main
from tests.integration.runs import train
from tests.tiny_runs import write_data
from tests.videos import write_video


def rows_of(printed: str) -> dict[str, list[float]]:
    """The numbers of each line of the table, by the size of frames."""
    lines = printed.splitlines()[1:]
    cells = [line.replace(" x ", "x").replace("%", "").split() for line in lines if "cosine" not in line]
    return {name: [float(number) for number in numbers] for name, *numbers in cells}


def test_fine_patterns_differ_and_flat_pictures_do_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stripes = np.zeros((4, 96, 160, 3), dtype=np.uint8)
    stripes[:, :, 1::2] = 255
    write_video(tmp_path / "stripes.mp4", stripes)
    write_video(tmp_path / "flat.mp4", np.full((4, 64, 64, 3), 90, dtype=np.uint8))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert main([str(tmp_path), "--size", "32", "--num-frames", "2"]) == 0
    said = capsys.readouterr()
    rows = rows_of(said.out)
    assert rows.keys() == {"160x96", "64x64", "all"} and "left out: " in said.err
    # Antialiasing makes the stripes grey; without it they alias to something else.
    assert rows["160x96"][0] == 1 and rows["160x96"][1] > 5
    assert rows["64x64"] == [1, 0, 0, 0]
    assert rows["all"][:2] == [2, pytest.approx(rows["160x96"][1] / 2, abs=0.01)]


def test_a_difference_is_that_of_its_levels() -> None:
    one, other = torch.tensor([0, 10, 200, 255], dtype=torch.uint8), torch.tensor([0, 13, 180, 255], dtype=torch.uint8)
    difference = Difference.of(one, other)
    assert (difference.mean, difference.far) == (23 / 4, 1 / 4)
    assert difference.root_mean_square == pytest.approx(((9 + 400) / 4) ** 0.5)


def test_embeddings_of_a_checkpoint_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_data(tmp_path, [1] * 4)
    run = train(root, root / "run", train={"max_epochs": 1}, video={"num_frames": 4, "image_size": 48})
    capsys.readouterr()
    assert main([str(root / "videos"), "--size", "16", "--checkpoint", str(run / "checkpoint_best")]) == 0
    same, different = capsys.readouterr().out.splitlines()[-2:]
    mean, least = (float(word) for word in same.replace(",", "").split() if word[0] in "01")
    assert 0.5 < least <= mean <= 1 and different.startswith("cosine of different videos: mean ")


def test_a_folder_without_videos_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: holds no video; name a folder of videos\n"
