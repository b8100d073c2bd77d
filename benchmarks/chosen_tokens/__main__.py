"""Reranking with a share of each video's tokens: milliseconds at full size, and recall of checkpoints.

    python -m benchmarks.chosen_tokens --times
    python -m benchmarks.chosen_tokens CHECKPOINT... [--out FILE.json]

Checkpoints are of retrieval with matching, of the same recipe and several seeds, each evaluated on its own test set.
Prints a table in Markdown: means over the checkpoints, with their standard deviations.
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.chosen_tokens import quality, times
from configs.evaluation import TokenChoice
from engine.checkpoint_folder import write_json
from engine.command_line import exit_status
from tasks.chosen_tokens import TokenShare

SHARES = (0.5, 0.25, 0.125)
CHOICES = get_args(TokenChoice)
RULES = ["logit", "logit_plus_cosine"]
METRICS = ("t2v_r1", "t2v_mean_recall", "v2t_mean_recall")


def print_times(num_texts: int, rounds: int) -> list[dict[str, Any]]:
    """Measure all videos, and print a row for each share."""
    ways = [TokenShare(), *(TokenShare(share, choice) for share in SHARES for choice in CHOICES)]
    titles = ("video", "tokens", "share", "chosen by", "ms a pair", "least to most", "times as fast")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)
    found: list[dict[str, Any]] = []
    for name, video in times.VIDEOS.items():
        rows = times.measure(video, ways, num_texts, rounds)
        for row in rows:
            choice = row["choice"] if row["share"] < 1 else "all"
            spread, faster = f"{row['least']:.1f} to {row['most']:.1f}", f"{rows[0]['ms'] / row['ms']:.2f}"
            cells = (name, video.tokens, f"{row['share']:g}", choice, f"{row['ms']:.1f}", spread, faster)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
            found.append({"video": name, "tokens": video.tokens, **row})
    return found


def print_quality(checkpoints: list[Path], overrides: list[str]) -> list[dict[str, Any]]:
    """Evaluate all checkpoints in every way, and print a row for each way and share."""
    ways = [("all", 1.0), *((way, share) for share in SHARES for way in (*CHOICES, *quality.CONTROLS))]
    found: list[dict[str, Any]] = []
    for checkpoint in checkpoints:
        task = quality.load(checkpoint, overrides)
        encoded = quality.encode(task)
        cosine = {"checkpoint": str(checkpoint), "way": "cosine alone", "share": 0.0, "ms": 0.0, "pairs": 0}
        found.append({**cosine, **dict.fromkeys(RULES, quality.by_cosine(encoded))})
        for way, share in ways:
            measured = quality.measure(task, encoded, way, share, RULES)
            found.append({"checkpoint": str(checkpoint), "way": way, "share": share, **measured})

    titles = [f"{rule}: {metric}" for rule in RULES for metric in METRICS]
    print(f"| chosen by | share | ms a pair | {' | '.join(titles)} |\n|{'---|' * (3 + len(titles))}")
    for way, share in [("cosine alone", 0.0), *ways]:
        rows = [row for row in found if (row["way"], row["share"]) == (way, share)]
        cells = [f"{statistics.mean(row['ms'] for row in rows):.2f}"]
        cells += [spread([row[rule][metric] for row in rows]) for rule in RULES for metric in METRICS]
        print(f"| {way} | {share:g} | {' | '.join(cells)} |")
    return found


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, help="checkpoint folders of retrieval with matching")
    parser.add_argument("--times", action="store_true", help="measure milliseconds at full size instead")
    parser.add_argument("--texts", type=int, default=64, help="texts of a video, for --times (default: 64)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, for --times (default: 3)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings over the checkpoints' own")
    parser.add_argument("--out", type=Path, help="write all numbers to this JSON file")
    options = parser.parse_args()
    if options.times == bool(options.checkpoints):
        parser.error("give checkpoints, or --times")

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if options.times:
        found = print_times(options.texts, options.rounds)
    else:
        found = print_quality(options.checkpoints, options.set)
    if options.out is not None:
        write_json(options.out, found)


if __name__ == "__main__":
    with exit_status():
        main()
