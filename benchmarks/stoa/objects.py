"""Are captions, answers and retrieval better with objects than without? A small STOA-VLP on stories, in several seeds.

    python -m benchmarks.stoa.objects --out outputs/stoa_objects
    python -m benchmarks.stoa.objects train.max_epochs=2 --out outputs/short --seeds 1 --forms without
    python -m benchmarks.stoa.objects --out outputs/stoa_objects --report-only

For every seed a model with objects and one without (`model.objects=none data.objects=null`) are pre-trained and
fine-tuned by the same commands, which are printed, on one set of stories; held-out stories judge them. The same command
resumes; several processes may share OUT if each has another seed or form. OUT then holds objects.md, objects.json, the
stories and the runs.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reducers.runs import Run, run_all
from datasets.stories.story_set import StorySet
from engine.checkpoint_folder import replacing_file, write_json
from engine.checkpoint_rotation import LAST
from engine.command_line import exit_status
from engine.folder_lock import only_writer
from engine.logging import start_logging
from scripts.parts.arguments import at_least
from scripts.parts.commands import run_printed

FORMS: dict[str, tuple[str, ...]] = {"with": (), "without": ("model.objects=none", "data.objects=null")}
"""Settings of the models that are compared."""
PRETRAINING = {
    "scenes": "configs/debug/stoa_scenes_stories.yaml",
    "stories": "configs/debug/stoa_pretrain_stories.yaml",
}
"""The stages, each from the weights of the one before."""
TASKS = {
    "caption": ("train_caption.py", "configs/debug/stoa_caption_stories.yaml"),
    "vqa": ("train_vqa.py", "configs/debug/stoa_vqa_stories.yaml"),
    "retrieval": ("train_retrieval.py", "configs/debug/stoa_retrieval_stories.yaml"),
}
METRICS = {
    "captions: CIDEr": ("caption", ("cider", "cider_plain")),
    "captions: BLEU-4": ("caption", ("bleu4", "bleu4_plain")),
    "answers: accuracy": ("vqa", ("accuracy",)),
    "text to video: R@1": ("retrieval", ("t2v_r1",)),
    "text to video: R@10": ("retrieval", ("t2v_r10",)),
    "video to text: R@1": ("retrieval", ("v2t_r1",)),
    "text to video: R@1, not reranked": ("retrieval", ("t2v_r1_cosine",)),
}
"""The row of each metric, and its names in results.json, of which a run has one."""
REPORT, TABLE = "objects.json", "objects.md"


def parse_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/stoa_objects"), help="folder to write (%(default)s)")
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2], help="of training (%(default)s)")
    parser.add_argument("--forms", choices=tuple(FORMS), nargs="+", default=list(FORMS), help="to run (all)")
    parser.add_argument("--tasks", choices=tuple(TASKS), nargs="+", default=list(TASKS), help="to run (all)")
    parser.add_argument("--train", type=at_least(2), default=StorySet.train, help="stories to train on (%(default)s)")
    parser.add_argument("--test", type=at_least(2), default=StorySet.test, help="held-out stories (%(default)s)")
    parser.add_argument("--report-only", action="store_true", help="write the report of what is there, run nothing")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of all runs, before the options")
    return parser.parse_intermixed_args(words)


def runs_of(out: Path, seed: int, form: str, tasks: Sequence[str], overrides: Sequence[str]) -> dict[str, Run]:
    """The runs of a model by name, pre-training and tasks, each after the one whose weights it takes."""
    folder = out / f"seed{seed}" / form
    runs: dict[str, Run] = {}
    start: tuple[str, ...] = ()

    def add(name: str, script: str, config: str) -> None:
        own = (f"seed={seed}", f"data.root={out / 'stories'}", *FORMS[form], f"output_dir={folder / name}", *start)
        runs[name] = Run(folder / name, (script, "--config", config, *overrides, *own))

    for stage, config in PRETRAINING.items():
        add(f"pretrain_{stage}", "pretrain.py", config)
        start = (f"checkpoint={folder / f'pretrain_{stage}' / LAST}",)
    for task in tasks:
        add(task, *TASKS[task])
    return runs


def report(finished: Mapping[str, Mapping[int, Mapping[str, Run]]]) -> dict[str, dict[str, dict[int, float]]]:
    """Each metric of each form by seed, where its run is done; `finished` has runs by form, seed and name."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row, (task, names) in METRICS.items():
        found[row] = {}
        for form, of_seeds in finished.items():
            metrics = {seed: runs[task].results()["metrics"] for seed, runs in of_seeds.items() if task in runs}
            found[row][form] = {seed: value_of(own, names) for seed, own in metrics.items()}
    return found


def value_of(metrics: Mapping[str, float], names: Sequence[str]) -> float:
    """The first of some metrics that there is; ValueError if there is none."""
    present = [name for name in names if name in metrics]
    if not present:
        raise ValueError(f"results.json: has none of {', '.join(names)}; it has {', '.join(metrics)}")
    return metrics[present[0]]


def table(found: Mapping[str, Mapping[str, Mapping[int, float]]]) -> list[str]:
    """Markdown: the mean of each metric, least and most, and how much objects add in each seed."""
    lines = ["| | with objects | without | difference, seed by seed |", "|---|---|---|---|"]
    for row, by_form in found.items():
        both = sorted(by_form["with"].keys() & by_form["without"].keys())
        gains = [by_form["with"][seed] - by_form["without"][seed] for seed in both]
        cells = [described(list(by_form[form].values())) for form in FORMS]
        lines.append(f"| {row} | {' | '.join(cells)} | {', '.join(f'{gain:+.3g}' for gain in gains)} |")
    return lines


def described(values: list[float]) -> str:
    """The mean, and least and most."""
    if not values:
        return ""
    return f"{statistics.mean(values):.3g} ({min(values):.3g} .. {max(values):.3g})"


def finished_runs(out: Path, overrides: Sequence[str]) -> dict[str, dict[int, dict[str, Run]]]:
    """All tasks that are done, by form, seed and name, whichever process ran them."""
    found: dict[str, dict[int, dict[str, Run]]] = {form: {} for form in FORMS}
    for form in FORMS:
        for folder in sorted(out.glob("seed*")):
            seed = int(folder.name.removeprefix("seed"))
            runs = runs_of(out, seed, form, list(TASKS), overrides)
            found[form][seed] = {name: run for name, run in runs.items() if run.is_done}
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = parse_arguments(words)
    out: Path = options.out
    with exit_status():
        start_logging()
        if not options.report_only:
            boxes = ("--objects", 6, "--scene-objects", 2, "--workers", 1)
            stories = (out / "stories", "--train", options.train, "--test", options.test)
            with only_writer(out, wait=True):
                run_printed(("-m", "scripts.make_story_videos", *map(str, (*stories, *boxes))))
            for seed in options.seeds:
                for form in options.forms:
                    with only_writer(out / f"seed{seed}" / form):
                        run_all(list(runs_of(out, seed, form, options.tasks, options.overrides).values()), run_printed)

        finished = finished_runs(out, options.overrides)
        found = report(finished)
        lines = table(found)
        seconds = sum(run.seconds for seeds in finished.values() for runs in seeds.values() for run in runs.values())
        with only_writer(out, wait=True):
            answer: dict[str, Any] = {"metrics": found, "overrides": options.overrides, "seconds": seconds}
            write_json(out / REPORT, answer)
            with replacing_file(out / TABLE) as temporary:
                temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
