import json
from pathlib import Path

import numpy as np

from datasets.stories.flash_pictures import render_flashes
from datasets.stories.glimpses import FLASH, draw_long_story
from datasets.stories.pictures import RGB
from datasets.stories.story_set import StorySet, write_annotations

STORIES = [draw_long_story(np.random.default_rng(seed), 4, 48, FLASH) for seed in range(12)]


def test_a_flash_lasts_its_frames_alone() -> None:
    for seed, story in enumerate(STORIES):
        frames = render_flashes(story, 64, np.random.default_rng(seed)).astype(int)
        assert frames.shape == (48, 64, 64, 3)
        first = 0
        for glimpse in story:
            assert FLASH[0] <= glimpse.seen <= FLASH[1]
            if glimpse.colour not in ("white", "black"):  # grey shapes may look like these
                # Whatever the light, a shape's pixels are its colour, brighter or darker.
                scene = frames[first : first + glimpse.num_frames]
                counts = (_cosine(scene, np.array(RGB[glimpse.colour])) > 0.999).sum(axis=(1, 2))
                seen = np.zeros(glimpse.num_frames, dtype=bool)
                seen[glimpse.begin : glimpse.begin + glimpse.seen] = True
                assert counts[seen].min() > 40 and counts[~seen].max(initial=0) < 20
            first += glimpse.num_frames


def test_hardly_a_pixel_stays_as_it_is() -> None:
    for seed, story in enumerate(STORIES):
        frames = render_flashes(story, 64, np.random.default_rng(seed)).astype(int)
        is_equal = (frames[1:] == frames[:-1]).all(axis=-1)
        assert is_equal.mean() < 0.1


def test_the_seed_fixes_every_pixel() -> None:
    twice = [render_flashes(STORIES[0], 32, np.random.default_rng(5)) for _ in range(2)]
    assert np.array_equal(*twice)


def _cosine(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(pixels, axis=-1) * np.linalg.norm(colour)
    return (pixels @ colour) / np.maximum(norms, 1e-6)


def test_training_videos_also_show_shapes_that_stay(tmp_path: Path) -> None:
    """And of those alone each scene is a clip of its own; what is tested are flashes."""
    of_split = {}
    for job in write_annotations(tmp_path, StorySet(kind="flashes", train=60, test=20, scenes=3)):
        of_split.setdefault(job.path.name.split("_")[0], []).extend((job.path.name, scene) for scene in job.story)

    stay = {split: [scene.seen == scene.num_frames for _, scene in own] for split, own in of_split.items()}
    assert 0.4 < np.mean(stay["train"]) < 0.6 and not any(stay["test"])
    assert {scene.seen for _, scene in of_split["test"]} == {1, 2}

    rows = [json.loads(line) for line in (tmp_path / "train_scenes.jsonl").read_text().splitlines()]
    expected = [(name, f"a {scene.colour} {scene.shape}.") for name, scene in of_split["train"] if scene.seen == 8]
    assert [(row["video"], row["caption"]) for row in rows] == expected
    assert (tmp_path / "test_scenes.jsonl").read_text() == ""


def test_the_seed_fixes_the_annotations_to_the_byte(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_annotations(tmp_path / name, StorySet(kind="flashes", train=8, test=4, scenes=3, seed=7))
        made.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert made[0] == made[1] and len(made[0]) == 9
