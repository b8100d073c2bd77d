"""Reproduce a published row: print its commands, run them, and hold what comes out against what was published.

    python -m scripts.reproduce                                    lists the rows of every system
    python -m scripts.reproduce --system umt                       lists one system's
    python -m scripts.reproduce queryd_f32 --data DATA --dry-run   prints the commands of one
    python -m scripts.reproduce queryd_f32 --data DATA             runs them, and compares

DATA holds a folder for each dataset, laid out as docs/DATASETS.md says. It is read, and weights are fetched, before
anything runs; without a network see docs/OFFLINE.md. Where weights were released they are evaluated; where none were,
they are trained first, and an interrupted run resumes. Ends with status 0 for a match, 1 where numbers or videos
differ, 3 where only a submission can be written, 4 where nobody says how many videos there are, 5 where no number is
published, and 2 for an error. OUT/ROW/reproduce.json says all.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.parts.arguments import at_least
from scripts.parts.commands import run_command
from scripts.parts.rows.row import Row
from scripts.parts.rows.table import PUBLICATIONS, ROWS, UNOBTAINABLE
from scripts.reproduce.plan import Plan, Request, make_plan
from scripts.reproduce.preparation import prepare
from scripts.reproduce.table import listing, markdown

# What imports torch, which takes seconds, is imported when the commands have run: missing data are named at once.
if TYPE_CHECKING:
    from scripts.reproduce.verdict import Judgement

SUMMARY = "reproduce.json"
OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""For the commands: what they need of the hub has been fetched before, so none of their processes asks it."""


def reproduce(row: Row, request: Request) -> int:
    """Run the commands of `row`, judge what came out, print it and write reproduce.json; the status to end with."""
    plan = make_plan(row, request)
    prepare(row, request, plan)
    for warning in plan.warnings:
        print(f"note: {warning}")
    for words, line in zip(plan.commands, plan.lines(), strict=True):
        print(f"\n$ {line}", flush=True)
        run_command(words, OFFLINE)

    from engine.checkpoint_folder import read_json, write_json
    from engine.results import RESULTS
    from scripts.reproduce.verdict import STATUS, judge, report

    results = read_json(plan.results / RESULTS)
    judgement = judge(row, results, plan.weights, plan.results)
    print("\n" + "\n".join((*heading(row), "", *report(row, results, judgement))))
    write_json(request.out / row.name / SUMMARY, summary(row, request, plan, results, judgement))
    print(f"\n{request.out / row.name / SUMMARY} written")
    return STATUS[judgement.verdict]


def heading(row: Row) -> list[str]:
    """What the row is, and what one has to know of it."""
    return [
        f"{row.name}: {row.place}, {row.label}, {row.dataset.title} {row.dataset.split}",
        *([f"note: {row.note}"] if row.note is not None else []),
    ]


def summary(row: Row, request: Request, plan: Plan, results: dict[str, Any], judgement: "Judgement") -> dict[str, Any]:
    """All of it as plain values."""
    from engine.results import RESULTS, git_revision

    counts = ("dataset", "split", "source", "labelled", "num_videos", "num_annotated", "num_texts", "num_missing")
    return {
        "row": row.name,
        "tables": row.tables,
        **asdict(judgement),
        "expected": row.expected,
        "got": results["metrics"],
        "evaluated": {name: results[name] for name in counts},
        "official": asdict(row.dataset),
        "gmacs": {"expected": row.gmacs, "published": row.published_gmacs, "got": judgement.gmacs},
        "weights": plan.weights,
        "recipe": request.recipe,
        "overrides": request.overrides,
        "commands": plan.lines(),
        "warnings": plan.warnings,
        "results": str(plan.results / RESULTS),
        "revision": git_revision(),
    }


def find_row(name: str) -> Row:
    """The row of that name; ValueError where there is none, or none that can be run."""
    if name in UNOBTAINABLE:
        raise ValueError(f"{name}: {UNOBTAINABLE[name].reason}")
    if name not in ROWS:
        raise ValueError(f"{name}: no such row; without arguments this command lists them")
    return ROWS[name]


def listed(system: str | None, as_markdown: bool) -> list[str]:
    """The rows of one system, or of each below its title; the first system has none."""
    lines: list[str] = []
    for name, publication in PUBLICATIONS.items():
        if system in (None, name):
            lines += ["", f"{publication.title}:"] if lines else []
            lines += markdown(publication) if as_markdown else listing(publication)
    return lines


def _recipes() -> tuple[str, ...]:
    return tuple(dict.fromkeys(recipe for publication in PUBLICATIONS.values() for recipe in publication.recipes))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="?", help="its name in the list")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings for every command of the row")
    parser.add_argument("--list", action="store_true", help="list the rows, as without arguments")
    parser.add_argument("--system", choices=tuple(PUBLICATIONS), help="list the rows of this one alone")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the documents")
    parser.add_argument("--data", type=Path, help="the folder that holds one folder a dataset")
    parser.add_argument("--out", type=Path, help="where runs go, a folder a row; outputs/reproduce/RECIPE by default")
    parser.add_argument("--checkpoint", help="weights to evaluate, a file, folder or hf://...; nothing is trained")
    parser.add_argument(
        "--start", help="weights to train from in place of the configuration's: TESTA's, in Table 6 BLIP's"
    )
    parser.add_argument("--train", action="store_true", help="train although weights were released")
    parser.add_argument("--recipe", choices=_recipes(), default="release", help="where paper and release disagree")
    parser.add_argument("--nproc", type=at_least(1), default=1, help="processes, one a GPU, on this machine")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")

    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; the status to end with."""
    options = parse(arguments)
    if options.row is None or options.list or options.markdown or options.system:
        for line in listed(options.system, options.markdown):
            print(line)
        return 0

    try:
        row = find_row(options.row)
        if options.data is None:
            raise ValueError(f"--data: {row.name} needs the folder that holds the datasets; see docs/DATASETS.md")

        request = Request(
            data=options.data,
            out=options.out or Path("outputs/reproduce") / options.recipe,  # one recipe's training is not the other's
            checkpoint=options.checkpoint,
            start=options.start,
            retrain=options.train,
            recipe=options.recipe,
            processes=options.nproc,
            overrides=tuple(options.overrides),
        )
        if options.dry_run:
            plan = make_plan(row, request)
            print("\n".join((*(f"# {line}" for line in (*heading(row), *plan.warnings)), *plan.lines())))
            return 0

        return reproduce(row, request)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
