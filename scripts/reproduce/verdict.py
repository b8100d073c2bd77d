"""Whether an evaluation's results match a published row, on the same videos."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from configs.load import differences, from_dict, to_dict
from configs.schema import TASKS, RunConfig
from models.systems import count
from scripts.parts.row_configs import read_config
from scripts.parts.rows.row import Row

Verdict = Literal["match", "no match", "N differs", "agrees, N not known", "nothing published", "submission"]
MATCH: Final = "match"
NO_MATCH: Final = "no match"
N_DIFFERS: Final = "N differs"
N_UNKNOWN: Final = "agrees, N not known"
UNPUBLISHED: Final = "nothing published"
SUBMISSION: Final = "submission"
STATUS: dict[Verdict, int] = {MATCH: 0, NO_MATCH: 1, N_DIFFERS: 1, SUBMISSION: 3, N_UNKNOWN: 4, UNPUBLISHED: 5}
"""What the command ends with; 2 is an error. A submission is done here, and judged by the challenge's server."""

TOLERANCE: dict[str, float] = {"released": 0.5, "given": 1.5, "trained": 1.5}
"""In points, of every metric, in both directions: the same weights differ by decoders, precision and re-encoded videos
alone; weights that were trained again differ by as much as two seeds do."""
WITHOUT_INFLUENCE = ("batch_size", "rerank_batch_size", "best_metric")
"""Settings of an evaluation that change neither scores nor ranks."""
GMACS_TOLERANCE = 0.01
SUBMISSION_FILE = "submission.zip"


@dataclass(frozen=True)
class Judgement:
    """The verdict on a row in one word, its reasons, the tolerance in points, and the GMACs counted."""

    verdict: Verdict
    reasons: tuple[str, ...]
    tolerance: float
    gmacs: float


def judge(row: Row, results: dict[str, Any], weights: str, folder: Path) -> Judgement:
    """Judge the `results` of `row`, read from `folder`; `weights` is a key of `TOLERANCE`.

    Nothing is a match where the videos or questions differ from the official ones, or from those the annotations name,
    where nobody says how many the official ones are, or where they were evaluated in another way.
    """
    tolerance = TOLERANCE[weights]
    gmacs = count_gmacs(results)
    differing = count_differences(row, results)
    if differing:
        return Judgement(N_DIFFERS, tuple(differing), tolerance, gmacs)

    reasons = []
    if row.gmacs is not None and abs(gmacs - row.gmacs) > GMACS_TOLERANCE:
        reasons.append(f"{gmacs:.3f} GMACs a video, expected {row.gmacs:.3f}: another encoder or aggregation")
    reasons += protocol_differences(row, results)
    if row.dataset.is_challenge:
        submission = _submission(folder)
        return Judgement(NO_MATCH if reasons else SUBMISSION, (*reasons, submission), tolerance, gmacs)

    misses = {source: _misses(metrics, results["metrics"], tolerance) for source, metrics in row.expected.items()}
    if misses and all(misses.values()):
        reasons += [f"{source}: {', '.join(missed)}" for source, missed in misses.items()]
    if reasons:
        return Judgement(NO_MATCH, tuple(reasons), tolerance, gmacs)

    if not misses:
        return Judgement(UNPUBLISHED, ("no number of this row is published at first or second hand",), tolerance, gmacs)

    met = [source for source, missed in misses.items() if not missed]
    agrees = f"within {tolerance} points of the {' and the '.join(met)}"
    if row.dataset.videos is None:
        unknown = f"but {results['num_videos']} videos may not be those of the row: {row.dataset.counted}"
        return Judgement(N_UNKNOWN, (agrees, unknown), tolerance, gmacs)

    return Judgement(MATCH, (agrees,), tolerance, gmacs)


def protocol_differences(row: Row, results: dict[str, Any]) -> list[str]:
    """Settings of the evaluation that are not the row's and can change what comes out."""
    expected, found = to_dict(read_config(row))["evaluation"], results["config"]["evaluation"]
    return [
        f"evaluation.{line}: another way to evaluate"
        for line in differences(expected, found)
        if line.partition(":")[0] not in WITHOUT_INFLUENCE
    ]


def count_differences(row: Row, results: dict[str, Any]) -> list[str]:
    """In which ways the evaluated videos and texts are not those the row is about; empty if in none."""
    official = row.dataset
    reasons = []
    if results["split"] not in (official.split, official.other_split):
        reasons.append(f"evaluated on {results['split']}; the row is of {official.title} {official.split}")
    if official.is_challenge and results["labelled"]:
        reasons.append(f"{results['source']}: has labels; the row is of the challenge's test set, which has none")
    complete = not results["num_missing"] and results["num_videos"] == results["num_annotated"]
    if not complete:
        reasons.append(
            f"{results['num_videos']} of the {results['num_annotated']} annotated videos were evaluated, "
            f"{results['num_missing']} are missing or unreadable"
        )

    if official.videos is not None and results["num_annotated"] != official.videos:
        reasons.append(
            f"{results['num_annotated']} annotated videos, officially {official.videos} ({official.counted})"
        )

    if complete and official.texts is not None and results["num_texts"] != official.texts:
        reasons.append(f"{results['num_texts']} texts, officially {official.texts} ({official.counted})")

    return reasons


def count_gmacs(results: dict[str, Any]) -> float:
    """GMACs of the encoder as it was evaluated, by the configuration in the results."""
    config = evaluated_config(results)
    return count(config.model, config.video, config.aggregation).gmacs


def evaluated_config(results: dict[str, Any]) -> RunConfig:
    """The configuration of an evaluation, from its results."""
    return from_dict(TASKS[results["task"]].config, results["config"], "results.json")


def _misses(expected: dict[str, float], got: dict[str, float], tolerance: float) -> list[str]:
    return [
        f"{name} {got[name]:.1f} for {value:.1f}"
        for name, value in expected.items()
        if abs(got[name] - value) > tolerance + 1e-9
    ]


def _submission(folder: Path) -> str:
    path = folder / SUBMISSION_FILE
    if not path.is_file():
        raise ValueError(f"{path}: the evaluation wrote no submission")
    return f"labels are not public: hand {path} to the challenge's server, whose numbers the row has"


def report(row: Row, results: dict[str, Any], judgement: Judgement) -> list[str]:
    """The lines that are printed: each source's metrics above what was got, the counts, the GMACs, the verdict."""
    official = row.dataset
    names = list(next(iter(row.expected.values()), results["metrics"]))
    width = max(8, *(len(source) + 2 for source in (*row.expected, "got")))
    lines = [f"{'':<{width}}" + "".join(f"{name:>10}" for name in names)]
    for source, metrics in {**row.expected, "got": results["metrics"]}.items():
        cells = (f"{metrics[name]:10.1f}" if name in metrics else f"{'-':>10}" for name in names)
        lines.append(f"{source:<{width}}" + "".join(cells))

    known = ", ".join(
        f"{number} {what}" for what, number in (("videos", official.videos), ("texts", official.texts)) if number
    )

    expected_gmacs = "whatever it is" if row.gmacs is None else f"{row.gmacs:.3f}"

    return [
        *lines,
        "",
        f"evaluated  {results['dataset']} {results['split']}: {results['num_videos']} of {results['num_annotated']} "
        f"annotated videos, {results['num_texts']} texts",
        f"read from  {results['source']}",
        f"official   {known or 'not known'}: {official.counted}",
        f"GMACs      {judgement.gmacs:.3f}, expected {expected_gmacs} (in the paper: {row.published_gmacs})",
        f"tolerance  {judgement.tolerance} points in every metric",
        f"verdict    {judgement.verdict}: {'; '.join(judgement.reasons)}",
    ]
