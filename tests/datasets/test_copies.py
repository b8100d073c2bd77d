"""What happens to the pixels of a clip between its decoder and its batch: they are copied once, and resized once."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from datasets import decode, loaders, transforms
from datasets.loaders import TrainLoader, evaluation_loader
from datasets.records import VideoTextRecord
from datasets.samples import collate
from datasets.sampling import generator
from datasets.video import pixels
from datasets.video_text import VideoTextDataset
from tests.pairs import dataset_of
from tests.videos import write_video

SIZE, FRAMES = 32, 4
CLIP_BYTES = FRAMES * 3 * SIZE * SIZE
NOISE = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), dtype=np.uint8)


class WrittenBytes(TorchDispatchMode):
    """Counts the bytes of uint8 that operations write: all but views of what they get."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor)]
        places = {tensor.untyped_storage().data_ptr() for tensor in given}
        result = function(*args, **(kwargs or {}))
        aten = torch.ops.aten
        allocates = function.overloadpacket in (aten.empty, aten.resize_, aten.set_)  # memory, and no byte of it
        for made in tree_leaves(result):
            if not isinstance(made, torch.Tensor) or made.dtype != torch.uint8 or allocates:
                continue
            if function._schema.is_mutable or made.untyped_storage().data_ptr() not in places:
                self.total += made.numel()
        return result


@pytest.fixture
def records(tmp_path: Path) -> list[VideoTextRecord]:
    """Two videos of noise, one a part, an image, and a file that cannot be read."""
    path = str(write_video(tmp_path / "noise.mp4", NOISE))
    Image.fromarray(NOISE[0]).save(tmp_path / "image.png")
    (tmp_path / "broken.mp4").write_text("no video")
    return [
        VideoTextRecord(path, ("whole",)),
        VideoTextRecord(str(tmp_path / "image.png"), ("image",)),
        VideoTextRecord(str(tmp_path / "broken.mp4"), ("broken",)),
        VideoTextRecord(path, ("part",), 0.2, 0.9),
    ]


def dataset(records: list[VideoTextRecord], **changes: Any) -> VideoTextDataset:
    settings = {"num_frames": FRAMES, "image_size": SIZE, "sampling": "uniform", "seed": 1, "training": True}
    return dataset_of(records, **{**settings, **changes})


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[str]:
    """Have a function note its name whenever it is called."""
    calls: list[str] = []
    original: Callable[..., Any] = getattr(owner, name)

    def spy(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, spy)
    return calls


def test_pixels_lie_where_the_reader_put_them(records: list[VideoTextRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    original = decode.read

    def read(*arguments: Any) -> decode.Reading:
        reading = original(*arguments)
        places.append(reading.frames.ctypes.data)
        return reading

    monkeypatch.setattr(decode, "read", read)
    for indices in ([0, 3, 7], [2, 2, 2, 9]):
        clip = decode.read_video(records[0].video, SIZE, lambda length, indices=indices: np.array(indices))
        assert clip.data_ptr() == places[-1]
        assert clip.permute(0, 2, 3, 1).is_contiguous()


@pytest.mark.parametrize("kind", ["plain", "crop", "cached"])
def test_a_clip_is_written_once(records: list[VideoTextRecord], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    # Of the operations that leave a clip at level 5 as it is.
    monkeypatch.setattr(transforms, "CLIP_OPERATIONS", ("identity", "contrast", "brightness", "sharpness"))
    changes = {"crop": {"augment": "operations", "resize": 64}, "cached": {"cache_bytes": 10**6}}.get(kind, {})
    data = dataset([records[0], records[3]], **changes)
    for row in range(2):  # the first look at a clip fills the cache
        data[0, row]
    with WrittenBytes() as written:
        batch = collate([data[0, row] for row in range(2)])
    assert written.total == batch["clip"].pixels.numel() == 2 * CLIP_BYTES


def test_an_image_is_resized_once_and_repeated_in_the_batch_alone(
    records: list[VideoTextRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    resized = count_calls(monkeypatch, transforms.functional, "resize")
    cropped = count_calls(monkeypatch, transforms.functional, "resized_crop")
    data, augmented = dataset(records), dataset(records, augment="operations", resize=40)
    clip = data[0, 1].clip.pixels
    assert clip.shape == (FRAMES, 3, SIZE, SIZE) and clip.stride(0) == 0 and (resized, cropped) == (["resize"], [])
    assert augmented[0, 1].clip.pixels.stride(0) == 0 and (len(resized), len(cropped)) == (1, 1)
    data[0, 0], augmented[0, 0]
    assert (len(resized), len(cropped)) == (1, 1)  # videos are resized by their decoder


def test_pillow_converts_only_what_is_no_rgb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(NOISE[0]).save(tmp_path / "colour.png")
    Image.fromarray(NOISE[0, ..., 0]).save(tmp_path / "grey.png")
    converted = count_calls(monkeypatch, Image.Image, "convert")
    copied = count_calls(monkeypatch, Image.Image, "copy")
    decode.read_image(str(tmp_path / "colour.png"))
    assert not converted and not copied
    decode.read_image(str(tmp_path / "grey.png"))
    assert len(converted) == 1


@pytest.mark.parametrize("indices", [[0, 5], [1, 1, 1, 8, 8]])
def test_pyav_converts_each_frame_once(
    records: list[VideoTextRecord], monkeypatch: pytest.MonkeyPatch, indices: list[int]
) -> None:
    made = []

    class Counted:
        def __init__(self) -> None:
            self.reformatter, self.calls = original(), 0
            made.append(self)

        def reformat(self, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return self.reformatter.reformat(*args, **kwargs)

    original = pixels.VideoReformatter
    monkeypatch.setattr(pixels, "VideoReformatter", Counted)
    frames = decode.read(records[0].video, SIZE, lambda length: np.array(indices)).frames
    assert len(made) == 1 and made[0].calls == len(set(indices))
    assert all((frames[place] == frames[indices.index(index)]).all() for place, index in enumerate(indices))


def test_pyav_leaves_nothing_that_a_forked_worker_waits_for(
    records: list[VideoTextRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, original = [], pixels.VideoReformatter

    def keep() -> Any:
        kept.append(original())
        return kept[-1]

    monkeypatch.setattr(pixels, "VideoReformatter", keep)
    # By name, since a thread that an earlier test left behind may end in between.
    threads = set(os.listdir("/proc/self/task"))
    decode.read_video(records[0].video, SIZE, lambda length: np.arange(4))
    assert len(kept) == 1 and set(os.listdir("/proc/self/task")) <= threads
    worker = multiprocessing.get_context("fork").Process(target=kept.clear)
    worker.start()
    worker.join(20)
    ended = worker.exitcode
    worker.kill()
    assert ended == 0


def counted_collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    with WrittenBytes() as written:
        batch = collate(samples)
    return {**batch, "written": written.total, "in_shared_memory": batch["clip"].pixels.is_shared()}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_worker_writes_into_shared_memory(
    records: list[VideoTextRecord], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(loaders, "collate", counted_collate)
    data = dataset([records[0], records[1], records[3]] * 2)
    train = TrainLoader(data, batch_size=3, accumulate=1, seed=0, rank=0, world_size=1, workers=workers)
    batches = list(train.epoch(0))
    assert [batch["written"] for batch in batches] == [3 * CLIP_BYTES] * 2
    assert [batch["in_shared_memory"] for batch in batches] == [workers > 0] * 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_batch_is_its_clips_stacked(records: list[VideoTextRecord], workers: int, augment: bool, device: str) -> None:
    """Videos, parts and images mixed, and one file that is replaced; with a GPU from pinned memory."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    data = dataset(records, augment=augment, resize=40)
    train = TrainLoader(data, batch_size=4, accumulate=1, seed=0, rank=0, world_size=1, workers=workers)
    for epoch in range(3):
        items = [item for batch in iter_rows(train, epoch) for item in batch]
        samples = [data[item.epoch, item.row, item.draw] for item in items]
        (batch,) = train.epoch(epoch)
        assert batch["clip"].pixels.is_contiguous() and batch["clip"].pixels.is_pinned() == torch.cuda.is_available()
        expected = torch.stack([sample.clip.pixels.contiguous() for sample in samples])
        assert torch.equal(batch["clip"].pixels.to(device, non_blocking=True).cpu(), expected)
        assert batch["row"].tolist() == [sample.rows[0] for sample in samples] and len(batch["failed"]) == 1


def iter_rows(train: TrainLoader, epoch: int) -> list[list[Any]]:
    return list(train._batches._of_epoch(epoch, 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_leaves_out_what_cannot_be_read(records: list[VideoTextRecord], workers: int) -> None:
    data = dataset(records, training=False, cache_bytes=10**6)
    for _ in range(2):  # from the files, then from the cache
        (batch,) = evaluation_loader(data, batch_size=4, rank=0, world_size=1, workers=workers)
        expected = [data[index].clip.pixels.contiguous() for index in (0, 1, 3)]
        assert torch.equal(batch["clip"].pixels, torch.stack(expected)) and batch["index"].tolist() == [0, 1, 3]
        # A copy of the cached clips: who writes into a batch leaves them alone.
        batch["clip"].pixels.zero_()
        assert all(clip.any() for clip in data._cache.clips[[0, 1, 3]])  # type: ignore[union-attr]
    assert collate([data[2]])["clip"] is None


@pytest.mark.parametrize("draw", range(12))
def test_order_in_memory_changes_no_pixel(draw: int) -> None:
    """What comes as a view of a decoder's frames is augmented to the same bit as in the order of the axes."""
    view = torch.from_numpy(NOISE[:6]).permute(0, 3, 1, 2)
    plain = view.contiguous()
    assert view.stride() != plain.stride()
    for augment, size in ((transforms.augment_clip, 40), (transforms.augment_image, 24)):
        first, second = (
            augment(clip if size == 40 else clip[0], size, generator("augmentation", 0, 0, draw))
            for clip in (view, plain)
        )
        assert torch.equal(first, second)
    assert torch.equal(transforms.resize_image(view[0], 24), transforms.resize_image(plain[0], 24))


@pytest.mark.parametrize("name", ["contrast", "brightness", "sharpness"])
def test_what_changes_nothing_is_not_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = torch.from_numpy(NOISE).permute(0, 3, 1, 2)
    function = transforms.COLOUR_OPERATIONS[name]
    assert torch.equal(function(clip, 1.0), clip)
    with WrittenBytes() as written:
        assert transforms.apply_operation(clip, name, transforms.CLIP_LEVEL, 1) is clip
    assert written.total == 0
    assert torch.equal(
        transforms.apply_operation(clip, name, transforms.IMAGE_LEVEL, 1), function(clip, 0.1 + 1.8 * 0.7)
    )


@pytest.mark.parametrize("size", [(33, 47), (224, 224), (256, 320)])
@pytest.mark.parametrize("shift", [(5, 0), (-5, 0), (0, 7), (0, -7)])
def test_shifts_are_what_interpolation_makes(size: tuple[int, int], shift: tuple[int, int]) -> None:
    clip = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    expected = transforms.functional.affine(
        clip, 0.0, list(shift), 1.0, [0.0, 0.0], transforms.InterpolationMode.BILINEAR, fill=[128.0], center=[0.5, 0.5]
    )
    assert torch.equal(transforms._shift(clip, x=shift[0], y=shift[1]), expected)


def test_translations_go_where_the_reference_moves_them() -> None:
    clip = torch.from_numpy(NOISE).permute(0, 3, 1, 2)
    for name, sign, level, axis in (("translate_x", 1, 5, -1), ("translate_y", -1, 7, -2)):
        moved = transforms.apply_operation(clip, name, level, sign)
        kept = clip.shape[axis] - level
        source, target = (level, 0) if sign == 1 else (0, level)
        assert torch.equal(moved.narrow(axis, target, kept), clip.narrow(axis, source, kept))
        assert (moved.narrow(axis, kept if sign == 1 else 0, level) == 128).all()
