"""A module, its optimizer and their snapshots, for tests of what a run keeps; as a program, a writer under a limit.

`python tests/engine/saved_run.py limit FOLDER BYTES` writes two checkpoints, the second one where no file may be larger
than BYTES; `... kills FOLDER KEEP` kills a writer before every call that makes, moves or removes a file.
"""

import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs.load import dump
from engine.checkpoint_folder import CONFIG, QUARANTINE, RANDOM, STATE, WEIGHTS, read_json, read_weights
from engine.checkpoint_rotation import CheckpointError, CheckpointWriter, Snapshot, take_snapshot
from engine.resume import find_last
from tests.engine.stub import stub_config


def trained(width: int = 3) -> tuple[nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))
    module[1].weight = module[0].weight
    module.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)
    optimizer = torch.optim.AdamW([{"params": list(module.named_parameters())}], lr=0.1)
    module(torch.ones(1, width)).square().sum().backward()
    optimizer.step()
    return module, optimizer


def snapshot_of(folder: Path, step: int, width: int = 3) -> Snapshot:
    """Of a run in `folder` whose first bias says the step."""
    module, optimizer = trained(width)
    nn.init.constant_(module[0].bias, step)
    state = {"task": "stub", "step": step}
    documents = {STATE: state, RANDOM: [], QUARANTINE: [{"video": "a.mp4", "reason": "is no video", "excluded": False}]}
    return take_snapshot(module, optimizer, documents, stub_config(folder), write_words)


def write_words(folder: Path) -> None:
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("words\n")


def write_steps(folder: Path, keep: int, *steps: int) -> None:
    writer = CheckpointWriter(folder, keep)
    for step in steps:
        writer.write_last(snapshot_of(folder, step), step)
    writer.close()


def step_to_go_on_from(folder: Path) -> int:
    """The step of the checkpoint that would be resumed from, its weights and its state of that step alike."""
    last = find_last(stub_config(folder), folder)
    assert last is not None
    step = read_json(last / STATE)["step"]
    assert read_weights(last)["0.bias"].eq(step).all()
    return step


def write_under_a_limit(folder: Path, largest: int) -> None:
    write_steps(folder, 2, 1)
    # One that Python ignores the signal of: the write fails instead.
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    writer = CheckpointWriter(folder, 2)
    writer.write_last(snapshot_of(folder, 2, width=64), 2)
    try:
        writer.close()
    except CheckpointError as error:
        print(error)


def kill_at_every_call(folder: Path, keep: int) -> None:
    """Print the step found after each kill in the write of step 30, which comes after 10 and 20."""
    os.fsync = lambda descriptor: None  # takes most of the time, and a kill loses nothing of what was handed over
    write_steps(folder / "before", keep, 10, 20)
    call = 0
    ended = False
    seen: set[tuple[str, ...]] = set()
    while not ended:
        call += 1
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(folder / "before", run)
        child = os.fork()
        if child == 0:
            die_at(call, run)
            write_steps(run, keep, 30)
            os._exit(0)
        ended = os.waitpid(child, 0)[1] == 0
        dump(stub_config(run), run / CONFIG)
        print(step_to_go_on_from(run), end=" ")
        standing = tuple(sorted(path.name for path in run.iterdir()))
        if standing in seen:
            continue
        seen.add(standing)
        write_steps(run, keep, 40)
        left = sorted(path.name for path in run.iterdir() if path.name != CONFIG)
        assert step_to_go_on_from(run) == 40 and len(left) == keep, left
        if keep > 1:  # the one before is whole too
            (run / "checkpoint_last" / WEIGHTS).write_bytes(b"")
            assert step_to_go_on_from(run) in (10, 20, 30)


def die_at(call: int, folder: Path) -> None:
    """Kill this process, as the system would, before its `call`-th call that makes, moves or removes in the folder."""
    left = call

    def count(event: str, arguments: tuple) -> None:
        nonlocal left
        if event.startswith(("os.", "shutil.")) and any(str(folder) in str(one) for one in arguments):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


if __name__ == "__main__":
    what, target, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    {"limit": write_under_a_limit, "kills": kill_at_every_call}[what](target, number)
