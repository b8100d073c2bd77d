"""The collectives of training over processes that torchrun starts: one a GPU with NCCL, two with gloo on a CPU.

    torchrun --standalone --nproc-per-node 2 -m tests.gpu.checks.collectives

Started so, each process does its part, and the first one prints the differences from what is right as JSON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.distributed import (
    all_gather_rows_with_grad,
    all_reduce_max,
    gather_objects,
    is_main,
    local_rank,
    rank,
    start_distributed,
    stop_distributed,
    world_size,
)
from tests.gpu.checks.outcome import Finding, Reading, difference, worst

ROOT = Path(__file__).parents[3]
SECONDS = 120
ROWS, WIDTH = 3, 5
OF_CPU = 2


def over_processes(device: torch.device, size: object) -> Finding:
    """Gathered rows and their gradients, reductions and averaged gradients, over as many GPUs as there are."""
    processes = torch.cuda.device_count() if device.type == "cuda" else OF_CPU
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    if device.type == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    done = subprocess.run(
        (sys.executable, *launcher, "-m", "tests.gpu.checks.collectives"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        said = [line for line in done.stderr.splitlines() if "Error" in line]
        raise RuntimeError(f"status {done.returncode}: {said[0].strip() if said else 'see stderr'}")
    answer = json.loads(done.stdout.splitlines()[-1])
    note = f"{answer.pop('backend')}, processes: {answer.pop('processes')}"
    return Finding([Reading(what, value, 1e-6) for what, value in answer.items()], note)


def differences(device: torch.device) -> dict[str, float]:
    """By how much each collective is off what one process makes of the data of all."""
    ranks = world_size()
    every = torch.arange(ranks * ROWS * WIDTH, dtype=torch.float32, device=device).view(-1, WIDTH)
    own = every[rank() * ROWS : (rank() + 1) * ROWS].clone().requires_grad_()
    gathered = all_gather_rows_with_grad(own)
    (gathered.square().sum() * (rank() + 1)).backward()
    assert own.grad is not None
    expected = 2 * own.detach() * sum(range(1, ranks + 1))
    # Alone, a process needs no collective: these go through the backend all the same.
    summed, parts = own.detach().clone(), [torch.empty_like(own) for _ in range(ranks)]
    dist.all_reduce(summed)
    dist.all_gather(parts, own.detach())
    torch.manual_seed(0)
    layer = nn.Linear(WIDTH, WIDTH).to(device)
    averaged = DistributedDataParallel(layer, device_ids=[device.index] if device.type == "cuda" else None)
    averaged(own.detach()).square().mean().backward()
    alone = torch.autograd.grad(layer(every).square().mean(), [layer.weight])[0]
    assert layer.weight.grad is not None
    pairs = {
        "gathered": (gathered, every),
        "their gradient": (own.grad, expected),
        "sum": (summed, every.view(ranks, ROWS, WIDTH).sum(dim=0)),
        "gathered plainly": (torch.cat(parts), every),
        "maximum": (all_reduce_max(own.max()), every.max()),
        "averaged gradient": (layer.weight.grad, alone),
    }
    return {name: worst(gather_objects(difference(found, right))) for name, (found, right) in pairs.items()}


def main() -> None:
    """The part of one process."""
    start_distributed()
    device = torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    found = differences(device)
    if is_main():
        print(json.dumps({"backend": dist.get_backend(), "processes": world_size(), **found}))
    stop_distributed()


if __name__ == "__main__":
    main()
