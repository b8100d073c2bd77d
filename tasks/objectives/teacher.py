"""A frozen CLIP image tower that teaches: in no checkpoint, without gradient, from a weights file of its own."""

import torch
from torch import Tensor
from torch.nn import functional as F

from configs.model import VideoConfig
from configs.unmasked_teacher import TeacherConfig
from engine.hub import local_path
from models.parts.clip.files import describe, image_sizes_of, load_image_tower, read_clip
from models.parts.clip.image_tower import ImageTower
from models.parts.clip.names import IMAGE
from models.parts.clip.sizes import PUBLISHED, ImageTowerSizes
from models.parts.clip.teacher import Teaching, teach
from models.parts.pixels import normalise_pixels


class FrozenTeacher:
    """Not an `nn.Module`: what holds it neither saves nor trains it, nor sends it to other processes.

    Args:
        teacher: the section of the configuration; `ValueError` if its file is missing or of another tower.
    """

    def __init__(self, teacher: TeacherConfig) -> None:
        assert teacher.weights is not None, "the configuration refuses that"
        self.teacher = teacher

        if torch.get_default_device().type == "meta" and (sizes := _published_sizes(teacher)) is not None:
            # On the meta device a model is only measured, for which the file need not be there.
            self.tower = ImageTower(sizes, resize="bicubic").eval().requires_grad_(False)
            return

        try:
            tensors = read_clip(local_path(teacher.weights))
        except ValueError as error:
            raise ValueError(f"objective.teacher.weights: {str(error).removeprefix('checkpoint: ')}") from error
        weights = {name.removeprefix(IMAGE): tensor for name, tensor in tensors.items() if name.startswith(IMAGE)}
        if not weights:
            raise ValueError(f"objective.teacher.weights: {teacher.weights} has no image tower")

        sizes = image_sizes_of(weights)
        found = {"patch_size": sizes.patch_size, "width": sizes.embed_dim}
        for name, size in found.items():
            if size != getattr(teacher, name):
                raise ValueError(
                    f"objective.teacher.{name}: {getattr(teacher, name)} is not that of {teacher.weights}, which is "
                    f"{describe(sizes)}; set it to {size}"
                )
        if teacher.blocks > sizes.depth:
            raise ValueError(f"objective.teacher.blocks: {teacher.weights} has {sizes.depth}, not {teacher.blocks}")

        self.tower = ImageTower(sizes, resize="bicubic")
        load_image_tower(self.tower, tensors, teacher.weights)
        self.tower.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, video_BTCHW: Tensor) -> Teaching:
        """Features and attention of uint8 frames (B, T, 3, H, W), in the colours that CLIP was trained with."""
        if self.tower.proj.device != video_BTCHW.device:
            self.tower.to(video_BTCHW.device)
        frames = normalise_pixels(video_BTCHW, VideoConfig.pixel_mean, VideoConfig.pixel_std, torch.float32)
        size = self.teacher.image_size
        if frames.shape[-2:] != (size, size):
            resized = F.interpolate(frames.flatten(0, 1), size=(size, size), mode="bicubic", align_corners=False)
            frames = resized.unflatten(0, frames.shape[:2])
        return teach(self.tower, frames, self.teacher.blocks)


def _published_sizes(teacher: TeacherConfig) -> ImageTowerSizes | None:
    """The first published CLIP tower with these patches and this width; None if there is none."""
    wanted = (teacher.patch_size, teacher.width)
    found = (image for image, _ in PUBLISHED.values() if (image.patch_size, image.embed_dim) == wanted)
    return next(found, None)
