"""outcomes.json: what each text, question or video contributed to the metrics of a result, and their intervals."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.records import ChoiceRecord, LabelRecord, QuestionRecord, VideoTextRecord
from datasets.remote.addresses import is_address, shown
from tasks.metrics.answers import slug
from tasks.metrics.intervals import LEVEL, REPLICATES, STATISTICS, Outcomes, metric_intervals
from tasks.metrics.recognition import is_among_best
from tasks.metrics.relation import Relation

OUTCOMES = "outcomes.json"
FORMAT = 1
OfVideo = VideoTextRecord | QuestionRecord | LabelRecord | ChoiceRecord


def with_intervals(result: dict[str, Any], sets: Mapping[str, Outcomes]) -> dict[str, Any]:
    """An evaluation's result with the intervals of its metrics, and the file that another result is compared by.

    Args:
        sets: the outcomes by the name of each set of items, such as `t2v` and `v2t`.
    """
    found = metric_intervals(sets)
    intervals = {"percent": LEVEL, "resampled": "videos", "replicates": REPLICATES, "metrics": found}
    files = {**result.get("files", {}), OUTCOMES: partial(write_outcomes, sets)}
    return {**result, "intervals": intervals, "files": files}


def write_outcomes(sets: Mapping[str, Outcomes], path: Path) -> None:
    """Write the sets as one JSON object."""
    rows = {
        name: {
            "statistic": outcomes.statistic,
            "items": list(outcomes.items),
            "videos": list(outcomes.videos),
            "values": {metric: _plain(values) for metric, values in outcomes.values.items()},
            **({} if outcomes.classes is None else {"classes": list(outcomes.classes)}),
        }
        for name, outcomes in sets.items()
    }
    path.write_text(json.dumps({"format": FORMAT, "sets": rows}) + "\n", encoding="utf-8")


def read_outcomes(path: Path) -> dict[str, Outcomes]:
    """The sets of a file; ValueError says what is wrong with it."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: not there; evaluate again (`--evaluate`), which writes it") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None

    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise ValueError(f"{path}: not outcomes of format {FORMAT}; evaluate again with this version")
    return {name: _read_set(f"{path}: {name}", held_set) for name, held_set in held["sets"].items()}


def retrieval_outcomes(
    ranks: Mapping[str, Mapping[str, NDArray]],
    captions: Sequence[str],
    truth: Relation,
    records: Sequence[VideoTextRecord],
    root: str,
) -> dict[str, Outcomes]:
    """The ranks of all texts and videos.

    Args:
        ranks: by the suffix of their metrics, then by direction, `t2v` and `v2t`.
        truth: the videos (V) of each text (T); a text of several videos is drawn with the first of them.
        records: the videos (V).
    """
    clips, videos = [clip_name(record, root) for record in records], [video_name(record, root) for record in records]
    texts, videos_of_texts = [], []
    for caption, first, end in zip(captions, truth.starts[:-1], truth.starts[1:], strict=True):
        # A text without a video, such as a class that none shows, is drawn by itself.
        video = None if first == end else int(truth.members[first])
        texts.append(caption if video is None else f"{clips[video]}: {caption}")
        videos_of_texts.append(f"text: {caption}" if video is None else videos[video])
    items = {"t2v": (unique_names(texts), videos_of_texts), "v2t": (unique_names(clips), videos)}

    sets = {}
    for direction, (names, clusters) in items.items():
        values = {f"{direction}_{{}}{suffix}": of_both[direction] for suffix, of_both in ranks.items()}
        sets[direction] = Outcomes("ranks", names, clusters, values)
    return sets


def answer_outcomes(records: Sequence[QuestionRecord], right: Mapping[str, Sequence[bool]], root: str) -> Outcomes:
    """Which questions were answered right, for each accuracy; `accuracy` counts for each type of question, too."""
    values = {metric: np.array(column, dtype=np.float64) for metric, column in right.items()}
    kinds = [None if record.kind is None else slug(record.kind) for record in records]
    for kind in sorted({kind for kind in kinds if kind is not None}):
        is_of_kind = np.array([kind == other for other in kinds])
        values[f"accuracy_{kind}"] = np.where(is_of_kind, values["accuracy"], np.nan)

    items = unique_names([record.question_id for record in records])
    return Outcomes("percent", items, [video_name(record, root) for record in records], values)


def clip_outcomes(records: Sequence[OfVideo], right: Mapping[str, Sequence[float] | NDArray], root: str) -> Outcomes:
    """Which clips were chosen for or recognised rightly, for each accuracy."""
    values = {metric: np.array(column, dtype=np.float64) for metric, column in right.items()}
    items = unique_names([clip_name(record, root) for record in records])
    return Outcomes("percent", items, [video_name(record, root) for record in records], values)


def caption_outcomes(records: Sequence[OfVideo], each: Mapping[str, Sequence[float]], root: str) -> Outcomes:
    """The scores of each clip's caption, for the metrics that are means over clips."""
    return clip_outcomes(records, each, root)._replace(statistic="mean")


def label_outcomes(
    records: Sequence[LabelRecord], classes: Sequence[str], logits_VC: NDArray, root: str
) -> dict[str, Outcomes]:
    """Which videos were recognised; clips of one `group`, which were cut from one video, are drawn together."""
    labels = np.array([record.label for record in records])
    right = {"top1": is_among_best(logits_VC, labels, 1), "top5": is_among_best(logits_VC, labels, 5)}
    videos = clip_outcomes(records, right, root)
    groups = [record.group or name for record, name in zip(records, videos.videos, strict=True)]

    # The mean over classes counts what is predicted, so that a tie goes to the first class.
    predicted = {"mean_per_class": (logits_VC.argmax(axis=1) == labels).astype(np.float64)}
    names = [classes[label] for label in labels]
    return {
        "videos": videos._replace(videos=groups),
        "classes": Outcomes("mean_per_class", videos.items, groups, predicted, names),
    }


def video_name(record: OfVideo, root: str) -> str:
    """The video's path below the data's folder, so that results of two machines can be compared."""
    if is_address(record.video):
        return shown(record.video).removeprefix(f"{root.rstrip('/')}/")
    path, folder = Path(record.video), Path(root).absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else record.video


def clip_name(record: OfVideo, root: str) -> str:
    """The video's name, with the seconds of the part that was evaluated."""
    name = video_name(record, root)
    return name if record.start is None and record.end is None else f"{name} {record.start} to {record.end} s"


def unique_names(names: list[str]) -> list[str]:
    """The names, where `#2`, `#3` and so on mark the second and third item of the same name."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return found


def _read_set(place: str, held: dict[str, Any]) -> Outcomes:
    if held.get("statistic") not in STATISTICS:
        raise ValueError(f"{place}: the statistic is {held.get('statistic')!r}, not {', '.join(STATISTICS)}")

    items, videos, classes = held["items"], held["videos"], held.get("classes")
    values = {metric: np.array(column, dtype=np.float64) for metric, column in held["values"].items()}
    columns = [videos, *values.values(), *([] if classes is None else [classes])]
    if any(len(column) != len(items) for column in columns) or len(set(items)) != len(items):
        raise ValueError(f"{place}: its columns differ in length, or an item occurs twice")
    return Outcomes(held["statistic"], items, videos, values, classes)


def _plain(values_N: NDArray) -> list[float | int | None]:
    """The values for JSON: whole numbers as integers, None for NaN."""
    plain: list[float | int | None] = []
    for value in np.asarray(values_N, np.float64).tolist():
        plain.append(None if np.isnan(value) else int(value) if value == int(value) else value)
    return plain
