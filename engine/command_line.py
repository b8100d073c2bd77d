"""The main function of every entry script: read the command line and a configuration, and run one task.

Torch takes seconds to import. It is imported only once the command line, the configuration and the data are checked, so
that `--help`, a typo or a bad line of a manifest is answered at once.
"""

import argparse
import json
import os
import pkgutil
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from configs.load import checkpoint_to_evaluate, load, load_to_evaluate, to_dict
from configs.names import run_name
from configs.origins import checkpoint_layer, command_line_layer, file_layers, flattened, origins
from configs.schema import RunConfig
from configs.version import VERSION
from engine.checkpoint_files import LAST, STEP
from engine.interruption import SAVED, SIGNALS, Interrupted, exit_by_ctrl_c, is_first_rank
from engine.watchdog import RankFailed

if TYPE_CHECKING:
    from engine.fetching import Obtained
    from engine.hub import Checkpoint

SETTING_WIDTH = 60
"""Columns of a printed setting before its source; longer ones stick out."""
LISTEN_SECONDS = 10.0
"""How long rank 0 of this machine may take to report an error before this rank does."""


def main(
    description: str | None,
    config_class: type[RunConfig],
    task_class: str,
    check_data: Callable[[RunConfig, bool], None],
) -> None:
    """Train or evaluate, as the command line asks; errors end in one line and an `exit_status`.

    Args:
        task_class: the `engine.task.TaskClass`, as "package.module:Name".
        check_data: reads the data that the configuration names (only those to evaluate on, if its second argument is
            true), and raises `ValueError` for what the run could not read; it imports no torch.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="YAML file; optional with --evaluate on a checkpoint folder")
    parser.add_argument("--evaluate", action="store_true", help="evaluate checkpoint=FILE_OR_FOLDER; no training")
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("--print", action="store_true", help="print every setting and where it comes from; no run")
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error arose")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over the file's: optim.lr=2e-5")
    arguments = parser.parse_intermixed_args()
    if arguments.config is None and not arguments.evaluate:
        parser.error("--config FILE is needed to train")

    with exit_status(arguments.traceback, starting=True):
        checkpoint = None
        if arguments.evaluate:
            checkpoint = find_checkpoint(checkpoint_to_evaluate(config_class, arguments.config, arguments.overrides))
            config = load_to_evaluate(config_class, arguments.config, arguments.overrides, checkpoint.path)
        else:
            config = load(config_class, arguments.config, arguments.overrides)

        if arguments.print:
            print_settings(config, arguments.config, arguments.overrides, checkpoint)
            return

        if config.output_dir is None:
            name = run_name(arguments.config) if arguments.config is not None else "evaluation"
            config = replace(config, output_dir=f"outputs/{name}")

        check_data(config, arguments.evaluate)
        obtained = fetch_what_is_needed(config, arguments.config, arguments.overrides, checkpoint)

    with exit_status(arguments.traceback):
        from engine.run import run

        run(config, pkgutil.resolve_name(task_class), evaluate_only=arguments.evaluate, obtained=obtained)


def find_checkpoint(source: str) -> "Checkpoint":
    """The checkpoint at a path or an address; imports the hub's library only here."""
    from engine.hub import Checkpoint

    return Checkpoint.find(source)


def print_settings(config: RunConfig, path: Path | None, overrides: list[str], evaluated: "Checkpoint | None") -> None:
    """Print every setting of a run, a line each, with the file that it comes from."""
    layers = file_layers(path) if path is not None else []
    if evaluated is not None:
        trained = checkpoint_layer(evaluated.path, path)
        layers += [trained] if trained is not None else []
    layers.append(command_line_layer(overrides))

    settings = to_dict(config)
    lines = {f"{key}: {json.dumps(value)}": key for key, value in flattened(settings).items()}
    width = min(max(map(len, lines)), SETTING_WIDTH)
    sources = origins(settings, layers)
    for line, key in lines.items():
        print(f"{line:{width}}  # {sources[key]}")


def fetch_what_is_needed(
    config: RunConfig, path: Path | None, overrides: list[str], evaluated: "Checkpoint | None"
) -> "Obtained | None":
    """Fetch the weights and vocabularies that `config` names; `ValueError` lists all that cannot be had.

    Returns what the run starts from or evaluates. None for a run that resumes: its own folder has everything.
    """
    folder = Path(config.output_dir or "")
    if evaluated is None and ((folder / LAST).exists() or any(folder.glob(STEP))):
        return None

    from engine.fetching import require_all

    if path is not None:
        return require_all(config, shlex.join((*overrides, "--config", str(path))), evaluated)
    return require_all(config, shlex.join(("--checkpoint", str(config.checkpoint))), evaluated)


@contextmanager
def exit_status(traceback: bool = False, starting: bool = False) -> Iterator[None]:
    """If the block fails, end the process with one line on stderr and a status that a batch script understands.

    The status is 75 for a run that was told to stop and is saved, 130 for anything else that Ctrl-C ended, 2 for a
    user's error, and 1 for a rank whose run ended because other ranks failed. With `traceback`, errors are raised as
    they are. While a run is `starting`, all ranks meet the same error, and only the first of each machine reports it.
    """
    try:
        yield
    except Interrupted as interrupted:
        # As soon as one process has ended, srun sends signals to the others. Ignore them, so that all end with this
        # status. A second Ctrl-C still ends the process.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN)
        if is_first_rank():
            print(f"{interrupted}; the same command resumes it", file=sys.stderr)
        sys.exit(SAVED)
    except KeyboardInterrupt:
        exit_by_ctrl_c()
    except RankFailed:
        if traceback:
            raise
        sys.exit(1)
    except (ValueError, FloatingPointError) as error:
        if traceback:
            raise
        if starting and os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(LISTEN_SECONDS)  # the launcher ends this process as soon as the first has ended
        print(f"error: {_message_of(error)}", file=sys.stderr)
        sys.exit(2)


def _message_of(error: Exception) -> str:
    """The error's text, without the traceback that an error from a data loader's worker begins with."""
    return str(error).rpartition(f"\n{type(error).__name__}: ")[2].strip()
