"""What every entry script does: read the command line and a configuration, and run one task."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from configs.load import load, load_to_evaluate
from configs.schema import RunConfig
from engine.hub import local_path
from engine.run import run
from engine.task import TaskClass


def main(description: str | None, config_class: type[RunConfig], task_class: TaskClass) -> None:
    """Train, or evaluate, as the command line says; errors of the user's making end in one line and status 2."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="YAML file; optional with --evaluate on a checkpoint folder")
    parser.add_argument("--evaluate", action="store_true", help="evaluate checkpoint=FILE_OR_FOLDER; no training")
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error arose")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over the file's: optim.lr=2e-5")
    arguments = parser.parse_intermixed_args()
    if arguments.config is None and not arguments.evaluate:
        parser.error("--config FILE is needed to train")
    try:
        if arguments.evaluate:
            config = load_to_evaluate(config_class, arguments.config, arguments.overrides, local_path)
        else:
            config = load(config_class, arguments.config, arguments.overrides)
        if config.output_dir is None:
            name = arguments.config.stem if arguments.config is not None else "evaluation"
            config = replace(config, output_dir=f"outputs/{name}")
        run(config, task_class, evaluate_only=arguments.evaluate)
    except (ValueError, FloatingPointError) as error:
        if arguments.traceback:
            raise
        print(f"error: {_what_it_says(error)}", file=sys.stderr)
        sys.exit(2)


def _what_it_says(error: Exception) -> str:
    """The error's text; one of a data loader's worker comes with that process's traceback, which is left out."""
    return str(error).rpartition(f"\n{type(error).__name__}: ")[2].strip()
