"""Samples: what is in them, what they depend on, and what happens to files that cannot be read."""

import pickle
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from datasets import decode, sampling, transforms
from datasets.annotations import manifest
from datasets.framing import Framing
from datasets.pairs import PairTable
from datasets.records import QuestionRecord, VideoTextRecord
from datasets.samples import collate
from datasets.text import clean_caption
from datasets.video_text import MAX_TRIES, VideoTextDataset
from tests.pairs import dataset_of
from tests.videos import frame_numbers, grey_steps, write_video

# A size that decord can make: see decode.read_video.
SIZE = 32
NOISE = np.random.default_rng(0).integers(0, 255, (10, 48, 48, 3), dtype=np.uint8)


@pytest.fixture
def records(tmp_path: Path) -> list[VideoTextRecord]:
    """A video with two captions, one that cannot be read with two, an image, and a part of a video."""
    steps = str(write_video(tmp_path / "steps.mp4", grey_steps(20)))
    (tmp_path / "broken.mp4").write_text("no video")
    Image.fromarray(NOISE[0]).save(tmp_path / "image.png")
    return [
        VideoTextRecord(steps, ("A first!", "a second")),
        VideoTextRecord(str(tmp_path / "broken.mp4"), ("broken one", "broken two")),
        VideoTextRecord(str(tmp_path / "image.png"), ("an image of (noise)",)),
        VideoTextRecord(steps, ("the last part",), 1.0, 1.8),
    ]


def dataset(records: list[VideoTextRecord], **changes: object) -> VideoTextDataset:
    settings = {
        "num_frames": 4, "image_size": SIZE, "sampling": "uniform", "seed": 5, "training": True,
        "clean": partial(clean_caption, max_words=64),
    }  # fmt: skip
    return dataset_of(records, **{**settings, **changes})


def test_evaluation_has_a_sample_a_video_and_all_captions(records: list[VideoTextRecord]) -> None:
    data = dataset(records, training=False)
    assert len(data) == 4
    assert data.captions == ["a first", "a second", "broken one", "broken two", "an image of noise", "the last part"]
    assert data.caption_video == [0, 0, 1, 1, 2, 3]
    first = ["a first", "broken one", "an image of noise", "the last part"]
    assert [data[index].texts[0] for index in range(4)] == first
    assert [data[index].index for index in range(4)] == [0, 1, 2, 3]
    assert frame_numbers(data[0].clip.pixels) == [2, 7, 12, 17]
    assert frame_numbers(data[3].clip.pixels) == [11, 13, 15, 17]
    # An image is a still clip.
    still = transforms.resize_image(torch.from_numpy(NOISE[0]).permute(2, 0, 1), SIZE)
    assert torch.equal(data[2].clip.pixels, still.expand(4, 3, SIZE, SIZE))


def test_training_has_a_sample_a_pair(records: list[VideoTextRecord]) -> None:
    data = dataset(records)
    samples = [data[3, index] for index in (0, 1, 4, 5)]
    assert len(data) == 6
    assert [sample.texts[0] for sample in samples] == ["a first", "a second", "an image of noise", "the last part"]
    assert [sample.index for sample in samples] == [0, 0, 2, 3]
    assert all(sample.failed == [] for sample in samples)


def test_texts_are_cleaned_as_told(records: list[VideoTextRecord]) -> None:
    clean = partial(clean_caption, max_words=2)
    assert dataset(records, clean=clean, training=False).captions[-2:] == ["an image", "the last"]


@pytest.mark.parametrize("name", ["headtail", "random"])
def test_random_frames_follow_from_seed_epoch_and_index(records: list[VideoTextRecord], name: str) -> None:
    data = dataset(records, sampling=name)

    def frames(epoch: int, index: int, seed: int = 5) -> list[int]:
        return frame_numbers(dataset(records, sampling=name, seed=seed)[epoch, index].clip.pixels)

    expected = sampling.SAMPLERS[name](4, 20, sampling.generator("frames", 5, 2, 1))
    assert frame_numbers(data[2, 1].clip.pixels) == frames(2, 1) == expected.tolist()
    assert len({tuple(frames(epoch, 1)) for epoch in range(6)}) > 3
    assert frames(2, 0) != frames(2, 1) or frames(3, 0) != frames(3, 1)
    assert frames(2, 1, seed=6) != frames(2, 1) or frames(3, 1, seed=6) != frames(3, 1)


def test_row_is_the_position_of_the_text(records: list[VideoTextRecord]) -> None:
    data = dataset(records)
    for row in range(6):
        sample = data[3, row]
        assert data.captions[sample.rows[0]] == sample.texts[0] and data.caption_video[sample.rows[0]] == sample.index
        if row not in (2, 3):
            assert sample.rows[0] == row  # those two are of the broken video, and are replaced
    evaluated = dataset(records, training=False)
    assert [evaluated[index].rows[0] for index in range(4)] == [0, 2, 4, 5]
    batch = collate([data[3, 5], data[3, 1]])
    assert batch["row"].tolist() == [5, 1] and batch["row"].dtype == torch.int64


def test_texts_need_not_stand_video_by_video(records: list[VideoTextRecord]) -> None:
    """As of questions, whose order is that of their file."""
    names = [records[2].video, records[0].video, records[2].video]
    table = PairTable.of([QuestionRecord(name, f"q {row}", ("a",), (1.0,), str(row)) for row, name in enumerate(names)])
    settings = {"num_frames": 2, "image_size": SIZE, "sampling": "uniform", "seed": 5}
    trained = dataset_of(table, training=True, **settings)
    assert [(trained[0, row].index, trained[0, row].texts[0]) for row in range(3)] == [
        (0, "q 0"),
        (1, "q 1"),
        (0, "q 2"),
    ]
    evaluated = dataset_of(table, training=False, **settings)
    assert [(evaluated[index].rows[0], evaluated[index].texts[0]) for index in range(2)] == [(0, "q 0"), (1, "q 1")]
    assert torch.equal(evaluated[1].clip.pixels, trained[0, 1].clip.pixels)


def test_a_row_shown_again_in_an_epoch_is_drawn_again(records: list[VideoTextRecord]) -> None:
    data = dataset(records, sampling="random")
    assert torch.equal(data[2, 1, 1].clip.pixels, data[2, 1].clip.pixels)
    again = [data[2, 1, draw] for draw in (7, 13, 19)]
    assert {(sample.rows[0], sample.texts[0]) for sample in again} == {(1, "a second")}
    assert len({tuple(frame_numbers(sample.clip.pixels)) for sample in [data[2, 1], *again]}) > 2
    assert torch.equal(dataset(records, sampling="random")[2, 1, 13].clip.pixels, again[1].clip.pixels)


def test_augmented_clips(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "noise.mp4", NOISE))
    Image.fromarray(NOISE[0]).save(tmp_path / "still.png")
    records = [VideoTextRecord(path, ("a",)), VideoTextRecord(str(tmp_path / "still.png"), ("b",))]
    data = dataset(records, augment="operations", resize=40)
    clip = decode.read_video(path, 40, lambda length: sampling.uniform(4, length, np.random.default_rng(0)))
    by_hand = transforms.augment_clip(clip, SIZE, sampling.generator("augmentation", 5, 1, 0))
    assert torch.equal(data[1, 0].clip.pixels, by_hand) and not torch.equal(data[2, 0].clip.pixels, by_hand)
    still = data[1, 1].clip.pixels
    assert still.shape == (4, 3, SIZE, SIZE) and torch.equal(still[0], still[3])
    assert not torch.equal(still, data[2, 1].clip.pixels)


def test_evaluation_names_what_it_cannot_read(records: list[VideoTextRecord]) -> None:
    sample = dataset(records, training=False)[1]
    assert sample.clip is None and sample.texts[0] == "broken one" and sample.index == 1
    assert [failure["video"] for failure in sample.failed] == [records[1].video]
    assert "PyAV" in sample.failed[0]["reason"] and "\n" not in sample.failed[0]["reason"]


def test_training_replaces_what_it_cannot_read(records: list[VideoTextRecord]) -> None:
    data = dataset(records)
    chosen = set()
    for epoch in range(12):
        sample, again = data[epoch, 2], dataset(records)[epoch, 2]
        assert sample.index != 1 and [failure["video"] for failure in sample.failed] == [records[1].video]
        assert torch.equal(sample.clip.pixels, again.clip.pixels) and sample.texts[0] == again.texts[0]
        # The replacement is the sample that its own place in the epoch has.
        place = data.captions.index(sample.texts[0])
        assert torch.equal(sample.clip.pixels, data[epoch, place].clip.pixels)
        chosen.add(sample.texts[0])
    assert len(chosen) > 1


def test_a_bad_file_is_opened_once(records: list[VideoTextRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = decode.read_parts
    monkeypatch.setattr(decode, "read_parts", lambda path, *rest: opened.append(path) or real(path, *rest))
    data = dataset(records)
    reasons = {str(data[epoch, index].failed) for epoch in range(5) for index in (2, 3)}
    assert opened.count(records[1].video) == 1 and len(reasons) == 1


def test_what_was_read_before_does_not_show(records: list[VideoTextRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    def half_broken(path: str, size: int, parts: list[decode.Part], *rest: object) -> list[decode.Reading]:
        choose = parts[0].choose
        if choose(20)[-1] > 16:
            raise decode.DecodeError(path, "the end is missing")
        frames = np.full((4, size, size, 3), choose(20)[0], dtype=np.uint8)
        return [decode.Reading(frames, choose(20), np.zeros(4), "none", "")]

    monkeypatch.setattr(decode, "read_parts", half_broken)
    data = dataset(records, sampling="random")
    failures = set()
    for epoch in range(10):
        sample, fresh = data[epoch, 0], dataset(records, sampling="random")[epoch, 0]
        assert torch.equal(sample.clip.pixels, fresh.clip.pixels) and sample.failed == fresh.failed
        failures.add(len(sample.failed) > 0)
    assert failures == {True, False}


def test_all_bad_is_an_error(tmp_path: Path) -> None:
    records = [VideoTextRecord(str(tmp_path / f"{number}.mp4"), ("x",)) for number in range(2 * MAX_TRIES)]
    for count in (1, 3, 2 * MAX_TRIES):
        tried = min(count, MAX_TRIES + 1)
        with pytest.raises(ValueError, match=r"videos drawn .* cannot be read.*/0.mp4 \(no such file\)") as error:
            dataset(records[:count])[0, 0]
        assert int(str(error.value).split()[0]) in (tried, tried - 1)


def test_one_good_file_among_bad_ones_is_found(records: list[VideoTextRecord], tmp_path: Path) -> None:
    bad = [VideoTextRecord(str(tmp_path / f"{number}.mp4"), ("x",)) for number in range(60)]
    data = dataset([*bad, records[0]])
    assert data[0, 7].index == 60 and len(data[0, 7].failed) <= 60


def test_our_own_mistakes_name_the_file(records: list[VideoTextRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise TypeError("a mistake")

    monkeypatch.setattr(decode, "read_parts", fail)
    with pytest.raises(TypeError, match="a mistake") as error:
        dataset(records)[0, 0]
    assert error.value.__notes__ == [f"while reading {records[0].video}"]


def test_cache_reads_a_video_once_and_keeps_what_precedes_augmentation(
    records: list[VideoTextRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    for settings in ({}, {"augment": "operations", "resize": 40}, {"training": False}):
        plain, cached = dataset(records, **settings), dataset(records, **settings, cache_bytes=10**6)
        items = [0, 2, 3] if "training" in settings else [(epoch, index) for epoch in (0, 1) for index in (0, 1, 4, 5)]
        for item in items:
            assert torch.equal(plain[item].clip.pixels, cached[item].clip.pixels)
        monkeypatch.setattr(decode, "read_parts", lambda *rest: pytest.fail("read again"))
        for item in items:
            cached[item]
        monkeypatch.undo()


def test_cache_that_does_not_fit_or_has_no_effect(records: list[VideoTextRecord]) -> None:
    needed = 4 * 4 * 3 * SIZE * SIZE
    dataset(records, cache_bytes=needed)
    with pytest.raises(ValueError, match=r"data.cache_gb: 4 clips of 4 frames of 32 pixels need 49.2 kB"):
        dataset(records, cache_bytes=needed - 1)
    with pytest.raises(ValueError, match="data.cache: memory has no effect with headtail sampling"):
        dataset(records, cache_bytes=10**6, sampling="headtail")


def test_a_pickled_dataset_is_the_same_and_small(records: list[VideoTextRecord]) -> None:
    data = dataset(records)
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[1, 5].clip.pixels, data[1, 5].clip.pixels) and copy.captions == data.captions
    many = [VideoTextRecord(f"/v/{number:06}.mp4", ("five words are in it",)) for number in range(1000)]
    # Text, two positions, a text's video, start and end: 13 + 20 + 5 * 8 bytes.
    assert len(pickle.dumps(dataset(many))) < 1000 * 73 + 5000


def test_collate_leaves_out_what_could_not_be_read(records: list[VideoTextRecord]) -> None:
    data = dataset(records, training=False)
    batch = collate([data[0], data[1], data[3]])
    assert torch.equal(batch["clip"].pixels, torch.stack([data[0].clip.pixels, data[3].clip.pixels]))
    assert batch["text"] == ["a first", "the last part"] and batch["index"].tolist() == [0, 3]
    assert batch["index"].dtype == torch.int64
    assert [failure["video"] for failure in batch["failed"]] == [records[1].video]
    empty = collate([data[1]])
    assert empty["clip"] is None and empty["text"] == [] and empty["index"].shape == (0,) and len(empty["failed"]) == 1


def test_real_clips_and_hard_files(real_data: Path) -> None:
    clips = real_data / "clips"
    records = manifest.read(clips / "captions.jsonl", clips / "videos")
    records += [VideoTextRecord(str(path), ("x",)) for path in sorted((clips / "hard").iterdir())]
    data = dataset(records, training=False, num_frames=8, image_size=64)
    samples = [data[index] for index in range(len(data))]
    bad = {Path(sample.failed[0]["video"]).name for sample in samples if sample.clip is None}
    assert bad == {"corrupted.mp4", "truncated.mp4", "empty.mp4", "not_a_video.mp4"}
    clips_seen = [sample.clip.pixels for sample in samples if sample.clip is not None]
    assert len(clips_seen) == len(records) - 4 and all(clip.shape == (8, 3, 64, 64) for clip in clips_seen)


@pytest.mark.parametrize("training", [True, False])
def test_a_clip_has_the_times_of_its_frames(records: list[VideoTextRecord], training: bool) -> None:
    data = dataset(records, training=training, cache_bytes=10**6)
    video, image, part = [(0, 0), (0, 4), (0, 5)] if training else [0, 2, 3]
    for _ in range(2):  # from the file, then from the cache
        # 10 frames a second, counted from the video's beginning in a part of it too.
        for item in (video, part):
            clip = data[item].clip
            assert clip.times.tolist() == pytest.approx([number / 10 for number in frame_numbers(clip.pixels)])
        assert data[image].clip.times.tolist() == [0.0] * 4
        assert data[part].clip.times[0] >= 1.0


def test_a_video_with_all_of_its_texts(records: list[VideoTextRecord]) -> None:
    names = [records[2].video, records[0].video, records[2].video]
    table = PairTable.of([QuestionRecord(name, f"q {row}", ("a",), (1.0,), str(row)) for row, name in enumerate(names)])
    settings = {"num_frames": 2, "image_size": SIZE, "sampling": "uniform", "seed": 5, "texts": "all"}
    for training in (True, False):
        data = dataset_of(table, training=training, **settings)
        assert len(data) == 2
        samples = [data[3, 0], data[3, 1]] if training else [data[0], data[1]]
        assert [(sample.index, sample.rows, sample.texts) for sample in samples] == [
            (0, [0, 2], ["q 0", "q 2"]),
            (1, [1], ["q 1"]),
        ]
        batch = collate(samples[::-1])
        assert batch["text"] == ["q 1", "q 0", "q 2"] and batch["row"].tolist() == [1, 0, 2]
        assert batch["text_sample"].tolist() == [0, 1, 1] and batch["index"].tolist() == [1, 0]


def test_a_rule_by_times_gets_the_times_of_the_part(records: list[VideoTextRecord]) -> None:
    """20 frames, 10 a second: the first frame of each second, counted from where the part begins."""
    for training in (True, False):
        data = dataset(records, training=training, sampling="per_second")
        whole, part = (data[0, 0], data[0, 5]) if training else (data[0], data[3])
        assert frame_numbers(whole.clip.pixels) == [0, 0, 0, 10]
        assert frame_numbers(part.clip.pixels) == [10] * 4
    assert data.frame_times(0).tolist() == pytest.approx([0, 0, 0, 1])


def box_of(table: PairTable, video: int, times: torch.Tensor) -> torch.Tensor:
    return torch.stack([times, torch.full_like(times, video)], dim=1)


def test_extras_go_along_with_their_clips(records: list[VideoTextRecord]) -> None:
    data = dataset(records, training=False, extras={"box": box_of})
    batch = collate([data[3], data[1], data[0]])
    assert set(batch["clip"].extras) == {"box"} and batch["clip"].extras["box"].shape == (2, 4, 2)
    assert torch.equal(batch["clip"].extras["box"][..., 0], batch["clip"].times)
    assert batch["clip"].extras["box"][..., 1].tolist() == [[3] * 4, [0] * 4]
    moved = batch["clip"].to(torch.device("meta"))
    assert {part.device.type for part in (moved.pixels, moved.times, moved.extras["box"])} == {"meta"}


def test_squares_of_whole_frames(tmp_path: Path) -> None:
    """Frames and images are read whole, and one draw serves all frames of a clip."""
    path = str(write_video(tmp_path / "noise.mp4", NOISE[:, :, :40]))
    Image.fromarray(NOISE[0, :, :40]).save(tmp_path / "still.png")
    records = [VideoTextRecord(path, ("a",)), VideoTextRecord(str(tmp_path / "still.png"), ("b",))]
    whole = [frame.to_ndarray(format="rgb24") for frame in av.open(path).decode(video=0)]
    indices = sampling.uniform(4, len(whole), np.random.default_rng(0))
    frames = torch.from_numpy(np.stack(whole)[indices]).permute(0, 3, 1, 2)
    image = decode.read_image(str(tmp_path / "still.png"))
    for settings in (
        {"interpolation": "bicubic"},
        {"interpolation": "nearest", "fit": "crop", "resize": 36, "augment": "crop"},
        {"interpolation": "bicubic_aliased", "augment": "resized_crop"},
    ):
        data, framing = dataset(records, **settings), Framing(SIZE, **settings)
        for item, pixels in enumerate((frames, image.expand(4, -1, -1, -1))):
            by_hand = framing.square(pixels, sampling.generator("augmentation", 5, 1, item))
            assert torch.equal(data[1, item].clip.pixels, by_hand)
        changes = not torch.equal(data[1, 0].clip.pixels, data[2, 0].clip.pixels)
        assert changes == ("augment" in settings)
        if framing.is_random:
            with pytest.raises(ValueError, match="data.cache: memory has no effect with video.augment"):
                dataset(records, **settings, cache_bytes=10**6)
