"""The exact boxes of a story's shapes, in the file that `scripts.prepare_objects` makes of other videos.

A box is of the pixels that a shape covers by half or more. Its class is its colour and shape, as captions call it.
"""

from itertools import product
from pathlib import Path

import numpy as np

from datasets.objects.detections import ClipBoxes, Detection, choose_boxes
from datasets.objects.store import ObjectSettings, ObjectStore, StoreWriter
from datasets.sampling import uniform
from datasets.stories.pictures import Array, scene_covers
from datasets.stories.stories import COLOURS, SHAPES, Story
from datasets.stories.story_set import StorySet, VideoJob

CLASSES = {f"{colour} {shape}": number for number, (colour, shape) in enumerate(product(COLOURS, SHAPES), 1)}


def write_boxes(path: Path, jobs: list[VideoJob], num_frames: int, per_frame: int) -> bool:
    """Write the boxes of all videos of a set on `num_frames` of their frames; False if `path` has them already.

    ValueError if it is a file of other frames, or if the stories are of another kind than `actions`.
    """
    made = jobs[0].story_set
    if made.kind != "actions":
        raise ValueError(f"--objects: are known of --kind actions, not of {made.kind}")
    settings = settings_of(made, num_frames, per_frame)
    if path.exists():
        ObjectStore(path).check(num_frames=num_frames, objects_per_frame=per_frame, image_size=made.size)
        return False

    writer = StoreWriter(path, [job.path.name for job in jobs], settings)
    for row in writer.pending():
        writer.put(row, boxes_of(jobs[row], num_frames, per_frame), made.size)
    writer.finish()
    return True


def settings_of(made: StorySet, num_frames: int, per_frame: int) -> ObjectSettings:
    """Which frames the boxes are of: those that `video.eval_sampling: uniform` takes, squashed to the set's size."""
    return ObjectSettings(
        num_frames=num_frames,
        objects_per_frame=per_frame,
        image_size=made.size,
        fit="squash",
        sampling="uniform",
        source="the generator of the stories",
        classes=CLASSES,
    )


def boxes_of(job: VideoJob, num_frames: int, per_frame: int) -> ClipBoxes:
    """The boxes of one video."""
    made, story = job.story_set, job.story
    rng = np.random.default_rng(job.rng_key)
    frames = _all_frames(story, made, rng)  # type: ignore[arg-type]
    chosen = uniform(num_frames, len(frames), rng)
    return choose_boxes([frames[index] for index in chosen.tolist()], per_frame)


def _all_frames(story: Story, made: StorySet, rng: np.random.Generator) -> list[list[Detection]]:
    frames: list[list[Detection]] = []
    for scene in story:
        _, covers = scene_covers(scene, made.size, made.frames_per_scene, rng)
        for frame in range(made.frames_per_scene):
            frames.append(
                [
                    Detection(CLASSES[f"{thing.colour} {thing.shape}"], _box(cover[frame]), 1.0)
                    for thing, cover in zip(scene.things, covers, strict=True)
                ]
            )
    return frames


def _box(cover_PQ: Array) -> tuple[float, float, float, float]:
    """The smallest box around the covered pixels, x1 y1 x2 y2."""
    rows, columns = np.nonzero(cover_PQ >= 0.5)
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)
