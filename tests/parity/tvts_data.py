"""TVTSv2's cases of what happens to data: frames, aligned speech, tokens, pixels."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.annotations.asr import align, clean_words, denoised_words
from datasets.annotations.timed_words import (
    SegmentDraw,
    TimedWord,
    clip_of_word,
    cut_segment,
    transcripts,
    whole_starts,
)
from datasets.framing import crop_centre, resize, resize_shorter_side
from datasets.sampling import (
    all_frames_once,
    ends,
    frames_of_span,
    reference_draws,
    window,
    window_starts,
)
from models.parts.clip.tokenizer import load_clip_tokenizer
from tests.parity.cases import Meta, Tensors
from tests.parity.facts import Differing, compare_facts

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHORTER_SIDE = 1.2
"""Of the crop, in the evaluation transform."""
NO_RNG = np.random.default_rng(0)
"""For rules that draw nothing."""


def compute_frames(tensors: Tensors, meta: Meta) -> Tensors:
    """Indices of the rules without chance, and the bounds of those with it."""
    count, pad = meta["num_frames"], meta["pad"]
    lengths = tensors["lengths"].tolist()
    low, high, possible = zip(*(_bounds(count, length, pad) for length in lengths), strict=True)
    segments = []
    for frames, duration, start, end in tensors["pretrain_segments"].tolist():
        first, length = frames_of_span(int(frames), duration, start, end)
        segment_low, segment_high, is_possible = _bounds(count, length, pad)
        segments.append((segment_low + first * is_possible, segment_high + first * is_possible))
    starts = [
        (length, start) for length in meta["window_lengths"] for start in window_starts(length, count, meta["stride"])
    ]
    rows = [np.concatenate([[length, start], window(count, length, start)]) for length, start in starts]
    return {
        "uniform": _stack([_padded(all_frames_once(count, length), count, pad) for length in lengths]),
        "linspace": _stack([ends(count, length, NO_RNG) for length in lengths]),
        "random_lowest": _stack(low),
        "random_highest": _stack(high),
        "random_possible": torch.tensor(possible).to(tensors["random_possible"].dtype),
        "windows": _stack(rows),
        "pretrain_lowest": _stack([segment[0] for segment in segments]),
        "pretrain_highest": _stack([segment[1] for segment in segments]),
    }


def _bounds(count: int, length: int, pad: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Lowest and highest draw, or padding where an interval holds no draw of the reference."""
    low, high = reference_draws(count, length)
    if (high < low).any():
        return np.full(count, pad), np.full(count, pad), False
    return low, high, True


def _padded(indices: np.ndarray, count: int, pad: int) -> np.ndarray:
    return np.concatenate([indices, np.full(count - len(indices), pad)])


def _stack(rows: object) -> Tensor:
    return torch.from_numpy(np.stack(rows).astype(np.int64))


def compute_asr(tensors: Tensors, meta: Meta) -> Tensors:
    """Bounds of the clips and the clip of each word."""
    duration = int(meta["duration"])
    segment = cut_segment(duration, SegmentDraw(**meta["drawn"]))
    words = clean_words(_words(meta))
    return {
        "duration": torch.tensor(duration),
        "starts": torch.tensor(segment.starts, dtype=tensors["starts"].dtype),
        "ends": torch.tensor(segment.ends, dtype=tensors["ends"].dtype),
        "word_clip": torch.tensor([clip_of_word(word.time, segment) for word in words]),
        "label": torch.arange(meta["clips"]),
    }


def asr_facts(tensors: Tensors, meta: Meta) -> Differing:
    """The texts of a case."""
    duration, draw = int(meta["duration"]), SegmentDraw(**meta["drawn"])
    words = _words(meta)
    aligned = align(words, meta["denoised"])
    lowest, highest = whole_starts(duration, draw.seconds)
    found = {
        "kept_words": [word.word for word in clean_words(words)],
        "denoised_words": denoised_words(meta["denoised"]),
        "aligned": [word.word for word in aligned],
        "transcripts": transcripts(aligned, cut_segment(duration, draw)),
    }
    differing = compare_facts(meta["expected"], **found)
    return differing + compare_facts(meta, whole_start_range=[lowest, highest], fallback=highest < lowest)


def _words(meta: Meta) -> list[TimedWord]:
    return [TimedWord(row["time"], row["word"]) for row in meta["subtitles"]]


def clip_vocabulary() -> str:
    """Where CLIP's vocabulary file is; `ValueError` without REAL_DATA, which names the folder of real files."""
    if "REAL_DATA" not in os.environ:
        raise ValueError("this case needs CLIP's vocabulary: set REAL_DATA to the folder that holds tokenizers/clip")
    return str(Path(os.environ["REAL_DATA"]) / "tokenizers" / "clip")


def compute_tokens(tensors: Tensors, meta: Meta) -> Tensors:
    """Token ids in both spellings of the special tokens."""
    spellings = {"clip_ids": "openai", "openclip_ids": "openclip"}
    return {
        output: load_clip_tokenizer(clip_vocabulary(), spelling)(meta["texts"], meta["context"], pad_to_max=True)[0]
        for output, spelling in spellings.items()
    }


def compute_transform(tensors: Tensors, meta: Meta) -> Tensors:
    """Evaluation's pixels and those of feature extraction."""
    video, crop = tensors["video"], meta["crop"]
    evaluated = crop_centre(resize_shorter_side(video, int(SHORTER_SIDE * crop), "nearest"), crop)
    return {
        "evaluation": _normalised(evaluated),
        "feature_extraction": _normalised(resize(video, (crop, crop), "bilinear")),
    }


def _normalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels / 255 - mean) / std


KINDS = {
    "tvts_frames": compute_frames,
    "tvts_asr": compute_asr,
    "tvts_tokens": compute_tokens,
    "tvts_transform": compute_transform,
}
FACTS = {"tvts_asr": asr_facts}
