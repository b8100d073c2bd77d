"""What is found in the parts of a configuration's data: the table, the lists and the examples."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from configs.schema import TaskConfig
from models.parts.tokenizer import TextTokenizer
from scripts.check_dataset.look import Look, Seen, look
from scripts.check_dataset.measure import (
    Range,
    TextNumbers,
    VideoNumbers,
    choose_videos,
    measure_texts,
    measure_videos,
)
from scripts.check_dataset.objects import BoxNumbers, count_boxes, draw_boxes, open_boxes
from scripts.check_dataset.parts import DataPart, overlaps
from scripts.check_dataset.picture import Example, draw_sheet
from scripts.parts.worker_pool import Failure, one_line, run_each
from tasks.build import build_tokenizer
from tasks.data import clean_up

EXAMPLES = 6
Results = dict[str, dict[int, Seen | Failure]]
"""What was read, by part and position of the video."""


def report(
    config: TaskConfig, parts: list[DataPart], decode: int | None, workers: int, timeout: float, out: Path
) -> bool:
    """Read videos and texts, write all files and print the table; whether the data are complete and do not leak."""
    out.mkdir(parents=True, exist_ok=True)
    store = open_boxes(config)
    jobs = [job for part in parts for job in choose_videos(part, config, decode, EXAMPLES)]
    results = read_videos(jobs, workers, timeout)
    videos = [measure_videos(part, results.get(part.name, {})) for part in parts]
    tokenizer = tokenizer_at_hand(config, parts)
    texts = [measure_texts(part.table, config, tokenizer) for part in parts]
    write_files(config, out, parts, results)
    boxes: list[BoxNumbers] = []
    if store is not None:
        boxes = [count_boxes(store, part) for part in parts]
        for part in parts:
            draw_boxes(store, part, results.get(part.name, {}), out)
    common = overlaps(parts)
    numbers = {
        part.name: {"data": part.split, "source": part.source, "videos": asdict(of_videos), "texts": asdict(of_texts)}
        for part, of_videos, of_texts in zip(parts, videos, texts, strict=True)
    }
    for part, of_boxes in zip(parts, boxes, strict=False):
        numbers[part.name]["boxes"] = asdict(of_boxes)
    overlap = [{"parts": [first.name, second.name], "videos": files} for first, second, files in common]
    text = json.dumps({"parts": numbers, "overlap": overlap}, indent=2)
    (out / "dataset.json").write_text(text + "\n", encoding="utf-8")

    for part in parts:
        print(f"{part.name}: {part.source}")
    print(table_of(parts, videos, texts, boxes))
    for first, second, files in common:
        same = " (they are the same split)" if first.split == second.split else ""
        print(f"{first.name} and {second.name} have {len(files)} videos in common{same}, the first is {files[0]}")
    print(f"lists and examples: {out}")
    leaks = any("train" in (first.name, second.name) for first, second, _ in common)
    incomplete = leaks or any(item.missing or item.undecodable for item in videos)
    incomplete |= any(item.without or item.failed for item in boxes)
    return not incomplete


def read_videos(jobs: list[Look], workers: int, timeout: float) -> Results:
    """Read the chosen videos of all parts."""
    results: Results = {}
    with closing(run_each(look, jobs, workers, timeout)) as ended:
        for job, result in tqdm(ended, total=len(jobs), desc="reading", unit="video"):
            results.setdefault(job.part, {})[job.video] = result
    return {part: dict(sorted(of_part.items())) for part, of_part in results.items()}


def tokenizer_at_hand(config: TaskConfig, parts: list[DataPart]) -> TextTokenizer | None:
    """The tokenizer a run would take; None, and why on stderr, if it cannot be had here.

    A checkpoint that is not on this machine is not fetched for it.
    """
    if config.checkpoint is not None and not Path(config.checkpoint).exists():
        config = replace(config, checkpoint=None)
    clean, first = clean_up(config), parts[0]

    def texts() -> Iterator[str]:
        if first.name in ("eval", "test"):
            raise ValueError("model.text.tokenizer: is made from the texts to train on, which are not read")
        return (clean(text) for text in first.table.texts)

    try:
        return build_tokenizer(config, texts)
    except (ValueError, OSError) as error:
        print(f"no word pieces: {one_line(error)}", file=sys.stderr)
        return None


def write_files(config: TaskConfig, out: Path, parts: list[DataPart], results: Results) -> None:
    """The lists of what is missing and undecodable, and the examples of each part."""
    missing, undecodable = [], []
    for part in parts:
        of_part = results.get(part.name, {})
        places = [video for video in range(part.table.num_videos) if not part.there[video]]
        missing += [{"part": part.name, "video": part.table.path(video)} for video in places]
        undecodable += [
            {"part": part.name, "video": part.table.path(video), "reason": result.reason}
            for video, result in of_part.items()
            if isinstance(result, Failure)
        ]
        draw_sheet(
            f"{part.name}: {part.split}, {part.num_frames} frames, {part.sampling} sampling",
            _examples(config, part, of_part),
            out / f"examples_{part.name.replace('/', '_')}.png",
        )

    for name, rows in (("missing", missing), ("undecodable", undecodable)):
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _examples(config: TaskConfig, part: DataPart, results: dict[int, Seen | Failure]) -> list[Example]:
    clean, text_video = clean_up(config), part.table.text_video.tolist()
    first_text: dict[int, int] = {}
    for position, video in enumerate(text_video):
        first_text.setdefault(video, position)
    # Those the table has pictures of, and those among them that could not be read.
    shown = [video for video in results if part.there[: video + 1].sum() <= EXAMPLES]
    return [
        Example(part.table.path(video), clean(part.table.texts[first_text[video]]), results[video]) for video in shown
    ]


def table_of(
    parts: list[DataPart], videos: list[VideoNumbers], texts: list[TextNumbers], boxes: Sequence[BoxNumbers] = ()
) -> str:
    """The numbers as text, a column a part."""

    def row(label: str, cells: Iterable[object]) -> list[str]:
        return [label, *map(str, cells)]

    rows = [
        row("", (part.name for part in parts)),
        row("data", (part.split for part in parts)),
        row("videos annotated", (item.annotated for item in videos)),
        row("  there", (item.annotated - item.missing for item in videos)),
        row("  missing", (item.missing for item in videos)),
        row("videos read", (item.tried for item in videos)),
        row("  undecodable", (item.undecodable for item in videos)),
        row("  seconds, min/median/max", (_range(item.seconds, 1) for item in videos)),
        row("  frames, min/median/max", (_range(item.frames, 0) for item in videos)),
        row("  fewer frames than a clip", (_share(item.short, item.tried - item.undecodable) for item in videos)),
        row("texts", (item.number for item in texts)),
        row("  a video, min/median/max", (_range(item.per_video, 0) for item in texts)),
        row("  another video has too", (_share(item.shared, item.number) for item in texts)),
        row("  words, min/median/max", (_range(item.words, 0) for item in texts)),
        row("  cut to words", ("not" if item.max_words is None else item.max_words for item in texts)),
        row("    which cuts", (_share(item.cut_by_words, item.number) for item in texts)),
        row("  word pieces, min/median/max", (_range(item.pieces, 0) for item in texts)),
        row("  cut to word pieces", (item.max_tokens for item in texts)),
        row("    which cuts", (_share(item.cut_by_tokens, item.tokenized) for item in texts)),
    ]

    if boxes:
        rows += [
            row("clips without boxes", (item.without for item in boxes)),
            row("  whose boxes failed", (item.failed for item in boxes)),
            row("  boxes a frame, mean", (f"{item.per_frame:.1f}" for item in boxes)),
            row("  trajectories a clip, mean", (f"{item.trajectories:.1f}" for item in boxes)),
        ]

    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for label, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([label.ljust(widths[0]), *padded]))
    return "\n".join(lines)


def _range(values: Range | None, digits: int) -> str:
    if values is None:
        return "-"
    return "/".join(f"{value:.{digits}f}" for value in (values.min, values.median, values.max))


def _share(count: int, of: int) -> str:
    return f"{count} ({100 * count / of:.1f} %)" if of else "-"
