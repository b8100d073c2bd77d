"""What boxes that go along with clips, and tags of texts, ask of the other sections."""

from configs.data import DataConfig
from configs.model import VideoConfig
from configs.models.base import ModelConfig


def check_objects(data: DataConfig, video: VideoConfig, model: ModelConfig) -> None:
    """Refuse boxes for a model without objects, the reverse, and frames or pixels that differ from the boxes'.

    ValueErrors begin with the dotted key.
    """
    if model.reads_objects and data.objects is None:
        raise ValueError(
            "data.objects: this model encodes clips with their boxes; prepare them with `python -m "
            "scripts.prepare_objects` and name the file, or set model.objects=none"
        )
    if data.objects is None:
        return

    if not model.reads_objects:
        raise ValueError("data.objects: this model has no use for boxes; remove it")
    if video.augment:
        raise ValueError("video.augment: boxes are of the whole frame or its middle; set it to false with data.objects")
    if video.train_sampling != video.eval_sampling:
        raise ValueError(
            f"video.train_sampling: boxes are of the same frames in each epoch and in evaluation; make it equal to "
            f"video.eval_sampling, {video.eval_sampling}, with data.objects"
        )
    if video.fit == "crop" and video.resize != video.image_size:
        raise ValueError(
            f"video.resize: boxes are of a crop of the whole shorter side; set it to video.image_size, "
            f"{video.image_size}, with data.objects"
        )
    for position, source in enumerate(data.sources):
        for name in ("num_frames", "image_size"):
            if getattr(source, name) not in (None, getattr(video, name)):
                raise ValueError(
                    f"data.sources[{position}].{name}: boxes are of clips of video.{name}; remove it with data.objects"
                )


def check_tags(data: DataConfig, task: str, are_read: bool) -> None:
    """Refuse tags that no loss reads, and losses without the tags that they read."""
    if data.tags is not None and not are_read:
        raise ValueError(f"data.tags: has no effect on {task}, whose losses read no nouns and verbs; remove it")
    if data.tags is None and are_read:
        raise ValueError(
            "objective.losses: 'align' reads which tokens are nouns and verbs; make them with `python -m "
            "scripts.tag_captions` and name the file in data.tags, or leave 'align' out"
        )
