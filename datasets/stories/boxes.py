"""The exact boxes of a story's shapes, in the file that `scripts.prepare_objects` makes of other videos.

A box is of the pixels that a shape covers by half or more. Its class is its colour and shape, as captions call it.
"""

from itertools import product
from pathlib import Path

import numpy as np

from datasets.objects.detections import ClipBoxes, Detection, choose_boxes
from datasets.objects.store import ObjectSettings, ObjectStore, StoreWriter, clip_name
from datasets.sampling import uniform
from datasets.stories.pictures import Array, scene_covers
from datasets.stories.speech import scene_rows
from datasets.stories.stories import COLOURS, SHAPES, Story
from datasets.stories.story_set import StorySet, VideoJob

CLASSES = {f"{colour} {shape}": number for number, (colour, shape) in enumerate(product(COLOURS, SHAPES), 1)}


def write_boxes(path: Path, jobs: list[VideoJob], num_frames: int, per_frame: int, *, of_scenes: bool = False) -> bool:
    """Write the boxes of all videos of a set on `num_frames` of their frames; False if `path` has them already.

    `of_scenes` writes them for each scene as a clip of its own, on `num_frames` of the scene's frames.

    ValueError if it is a file of other frames, or if the stories are of another kind than `actions`.
    """
    made = jobs[0].story_set
    if made.kind != "actions":
        raise ValueError(f"--objects: are known of --kind actions, not of {made.kind}")
    settings = settings_of(made, num_frames, per_frame)
    if path.exists():
        ObjectStore(path).check(num_frames=num_frames, objects_per_frame=per_frame, image_size=made.size)
        return False

    # The clips of a video, a whole number of them, stand in rows one after the other.
    clips_of = scene_boxes_of if of_scenes else video_boxes_of
    names = [name for job in jobs for name in (scene_names(job) if of_scenes else [job.path.name])]
    writer = StoreWriter(path, names, settings)
    per_video = len(names) // len(jobs)
    for video in dict.fromkeys(row // per_video for row in writer.pending()):
        for number, boxes in enumerate(clips_of(jobs[video], num_frames, per_frame)):
            writer.put(video * per_video + number, boxes, made.size)
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


def video_boxes_of(job: VideoJob, num_frames: int, per_frame: int) -> list[ClipBoxes]:
    """The boxes of one video, as a list of one clip."""
    return [_of_clip(_all_frames(job), num_frames, per_frame)]


def scene_boxes_of(job: VideoJob, num_frames: int, per_frame: int) -> list[ClipBoxes]:
    """The boxes of each scene of a video."""
    frames, per_scene = _all_frames(job), job.story_set.frames_per_scene
    starts = range(0, len(frames), per_scene)
    return [_of_clip(frames[start : start + per_scene], num_frames, per_frame) for start in starts]


def scene_names(job: VideoJob) -> list[str]:
    """What the file calls the scenes of a video: by their times, as lists of scenes have them."""
    made = job.story_set
    rows = scene_rows(job.path.name, job.story, made.frames_per_scene / made.fps)  # type: ignore[arg-type]
    return [clip_name(row["video"], row["start"], row["end"]) for row in rows]


def _of_clip(frames: list[list[Detection]], num_frames: int, per_frame: int) -> ClipBoxes:
    chosen = uniform(num_frames, len(frames), np.random.default_rng(0))
    return choose_boxes([frames[index] for index in chosen.tolist()], per_frame)


def _all_frames(job: VideoJob) -> list[list[Detection]]:
    """What is seen on each frame of a video."""
    made, rng = job.story_set, np.random.default_rng(job.rng_key)
    story: Story = job.story  # type: ignore[assignment]
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
