"""Boxes and tags of stories: where the shapes' pixels are, and what the words are."""

import json
from pathlib import Path

import numpy as np
import pytest
from decord import VideoReader

from configs.load import load
from configs.schema import PretrainConfig
from datasets.annotations.manifest import read
from datasets.objects.store import ObjectStore
from datasets.sampling import uniform
from datasets.stories.boxes import CLASSES, video_boxes_of
from datasets.stories.pictures import RGB
from datasets.stories.stories import ACTIONS, SHAPES, Scene, Story, Thing
from datasets.stories.story_set import StorySet, VideoJob, draw
from datasets.tags import TagStore
from models.parts.clip.tokenizer import make_clip_tokenizer
from scripts.make_story_videos import main
from tasks.data import video_text

ROOT = Path(__file__).resolve().parents[3]
SET = StorySet(train=1, test=1, scenes=2, pairs=0.0)


def story_of(action: str) -> Story:
    first = Scene((Thing("red", "square", action), Thing("blue", "star", "shrinks")), "plain", 0)
    return (first, Scene((Thing("green", "cross", "grows"),), "plain", 0))


def name_of(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"


@pytest.mark.parametrize("action", ACTIONS)
def test_boxes_lie_around_the_colours_of_the_shapes(action: str) -> None:
    story = story_of(action)
    job = VideoJob(Path("v.mp4"), story, (3, 0, 0), SET)
    (found,), pixels = video_boxes_of(job, num_frames=8, per_frame=3), draw(job).astype(float)
    frames = uniform(8, len(pixels), np.random.default_rng(0))
    colour_of = {CLASSES[name_of(thing)]: thing.colour for scene in story for thing in scene.things}

    num_boxes = 0
    for boxes, classes, frame in zip(found.boxes, found.classes, frames, strict=True):
        assert set(classes[classes > 0]) == {CLASSES[name_of(thing)] for thing in story[frame // 8].things}
        for box, label in zip(boxes, classes, strict=True):
            if label:
                # A pixel is of the shape if it is nearer to its colour than to the background's.
                background = np.median(pixels[frame], axis=(0, 1))
                colours = np.array([RGB[colour_of[label]], background])
                is_near = np.linalg.norm(pixels[frame][None] - colours[:, None, None], axis=-1).argmin(axis=0) == 0
                rows, columns = np.nonzero(is_near)
                around = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                np.testing.assert_allclose(box, around, atol=2.1)
                num_boxes += 1
    assert num_boxes == 12
    assert sorted(found.trajectory_ids[found.trajectory_ids > 0]) == sorted(colour_of)


def test_the_command_writes_what_pre_training_reads(tmp_path: Path) -> None:
    out = tmp_path / "stories"
    arguments = [str(out), "--train", "3", "--test", "2", "--workers", "1", "--objects", "6"]
    main(arguments)
    main(arguments)  # finds all of it made
    store, tags = ObjectStore(out / "stories.objects"), TagStore(out / "stories.tags")
    config = load(PretrainConfig, ROOT / "configs" / "debug" / "stoa_pretrain_stories.yaml", [])
    video = config.video
    store.check(num_frames=video.num_frames, image_size=video.image_size, fit=video.fit, sampling=video.eval_sampling)

    captions = [json.loads(line)["caption"] for line in (out / "train.jsonl").open()]
    assert len(store) == 5 and all(f"train_{number:05d}.mp4" in store for number in range(3))
    ids, mask = make_clip_tokenizer(captions, config.model.text.vocab_size)(captions)
    lengths = mask.sum(dim=1).tolist()
    nouns, verbs = tags.masks(captions, lengths, max(lengths))
    for caption, noun, verb in zip(captions, nouns, verbs, strict=True):
        words = caption.replace(".", " .").split()
        assert [word for word, is_noun in zip(words, noun[1:], strict=False) if is_noun] == [
            word for word in words if word in SHAPES
        ]
        assert verb.sum() == noun.sum()


def test_scenes_are_clips_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "stories"
    arguments = [str(out), "--train", "3", "--test", "2", "--scenes", "3", "--workers", "1"]
    main([*arguments, "--objects", "6", "--scene-objects", "2"])
    config = load(PretrainConfig, ROOT / "configs" / "debug" / "stoa_scenes_stories.yaml", [f"data.root={out}"])
    assert config.data.objects is not None and config.data.tags is not None
    whole, scenes = (ObjectStore(out / name) for name in ("stories.objects", config.data.objects))
    assert len(scenes) == 3 * len(whole) == 15

    # The loader's frames of a scene are the story's own, and so are their boxes.
    rows = [json.loads(line) for line in (out / config.data.manifest).open()]
    data = video_text(config, read(out / config.data.manifest, out / "videos"), training=False)
    for number, row in enumerate(rows):
        of_story, scene = whole[row["video"]], number % 3
        sample = data[number]
        extras, frames = sample.clip.extras, slice(2 * scene, 2 * scene + 2)
        assert sample.texts == [row["caption"]]
        np.testing.assert_array_equal(extras["boxes"].numpy(), of_story.boxes[frames])
        np.testing.assert_array_equal(extras["classes"].numpy(), of_story.classes[frames])
        shown = set(of_story.classes[frames].flatten()) - {0}
        assert set(extras["trajectory_ids"].tolist()) - {0} == shown

        reader = VideoReader(str(out / "videos" / row["video"]), num_threads=1)
        chosen = reader.get_batch([8 * scene + 2, 8 * scene + 6]).asnumpy()
        np.testing.assert_array_equal(sample.clip.pixels.permute(0, 2, 3, 1).numpy(), chosen)

    tags = TagStore(out / config.data.tags)
    assert all(tags[row["caption"]].tolist().count(1) == len(tags_of(row["caption"])) for row in rows)


def tags_of(caption: str) -> list[str]:
    return [word for word in caption.replace(".", " .").split() if word in SHAPES]


def test_the_seed_fixes_the_files_of_boxes_and_tags_to_the_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        main([str(tmp_path / name), *"--train 2 --test 1 --workers 1 --objects 6 --scene-objects 2".split()])
    for name in ("stories.objects", "stories.tags", "scenes.objects", "scenes.tags"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_other_frames_and_other_stories_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--train", "1", "--test", "1", "--pairs", "0", "--workers", "1"]
    main([str(tmp_path / "a"), *small, "--objects", "6"])
    for arguments, message in (
        ([str(tmp_path / "a"), *small, "--objects", "4"], "num_frames is 6 there and 4 here"),
        ([str(tmp_path / "b"), *small, "--kind", "glimpses", "--objects", "6"], "not of glimpses"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err
