import numpy as np

from datasets.stories.flash_pictures import render_flashes
from datasets.stories.glimpses import FLASH, draw_long_story
from datasets.stories.pictures import RGB

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
