import numpy as np

from datasets.stories.stories import ACTIONS, BACKGROUNDS, COLOURS, SHAPES, TRAVEL_AXIS, draw_splits, num_paired


def test_stories_of_all_splits_differ_except_partners() -> None:
    splits = draw_splits(np.random.default_rng(0), {"train": 60, "test": 31}, num_scenes=2, pair_share=0.4)
    assert [len(stories) for stories in splits.values()] == [60, 31]
    contents = []
    for count, stories in zip((24, 12), splits.values(), strict=True):
        for index in range(0, count, 2):
            # Two scenes have one other order only.
            assert stories[index + 1] == stories[index][::-1]
        contents += [sorted(scene.facts for scene in story) for story in (*stories[:count:2], *stories[count:])]
    assert len(contents) == 60 + 31 - 12 - 6
    assert not any(contents[i] == contents[j] for i in range(len(contents)) for j in range(i))


def test_scenes_can_be_told_apart_and_drawn() -> None:
    stories = draw_splits(np.random.default_rng(1), {"train": 400}, num_scenes=3, pair_share=0)["train"]
    for story in stories:
        assert len({scene.facts for scene in story}) == 3
    scenes = [scene for story in stories for scene in story]
    for first, second in (scene.things for scene in scenes if len(scene.things) == 2):
        assert first.colour != second.colour
        assert first.shape != second.shape
        assert {"x", "y"} != {TRAVEL_AXIS.get(first.action), TRAVEL_AXIS.get(second.action)}
    things = [thing for scene in scenes for thing in scene.things]
    assert 0.3 < sum(len(scene.things) == 2 for scene in scenes) / len(scenes) < 0.4
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.action for thing in things} == set(ACTIONS)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert not any(thing.action == "spins" and thing.shape in ("circle", "ring") for thing in things)


def test_number_of_paired_stories_is_even_and_within_the_share() -> None:
    cases = [(200, 0.5), (200, 0.0), (200, 1.0), (41, 0.5), (7, 1.0), (1, 1.0)]
    assert [num_paired(count, share) for count, share in cases] == [100, 0, 200, 20, 6, 0]
