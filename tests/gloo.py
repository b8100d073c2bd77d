"""Run a function on several CPU processes that torchrun could have started, and collect what each returns."""

import multiprocessing
import os
import pickle
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tests.forked import forking
from tests.ports import free_port


def run_ranks(world_size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 120.0) -> list[Any]:
    """`function(*arguments)` in `world_size` new processes within one gloo group; what they return, by rank.

    `function` is one at the top level of a module; environment and current folder are the caller's. `RuntimeError` with
    the traceback of the first rank that fails; `TimeoutError` naming the ranks that are not done after `timeout`
    seconds. No process is left behind.
    """
    context = forking()
    port = free_port()
    pipes, processes = [], []
    try:
        for rank in range(world_size):
            receiver, sender = context.Pipe(duplex=False)
            environment = {**os.environ, **_environment(rank, world_size, port)}
            process = context.Process(target=_child, args=(environment, sender, function, arguments))
            process.start()
            sender.close()
            pipes.append(receiver)
            processes.append(process)
        return _collect(pipes, time.monotonic() + timeout)
    finally:
        for process in processes:
            process.join(timeout=0.5)
            if process.is_alive():
                process.kill()
                process.join()


def _collect(pipes: list[Connection], deadline: float) -> list[Any]:
    results: dict[int, Any] = {}
    while len(results) < len(pipes):
        waiting = {pipe: rank for rank, pipe in enumerate(pipes) if rank not in results}
        ready = multiprocessing.connection.wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"ranks {sorted(waiting.values())} are not done in time")
        for pipe in ready:
            rank = waiting[pipe]  # type: ignore[index]
            try:
                succeeded, value = pickle.loads(pipe.recv_bytes())  # type: ignore[union-attr]
            except EOFError:
                raise RuntimeError(f"rank {rank} ended without a word") from None
            if not succeeded:
                raise RuntimeError(f"rank {rank} failed:\n{value}")
            results[rank] = value
    return [results[rank] for rank in range(len(pipes))]


def _environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
    }


def _child(
    environment: dict[str, str], sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    import torch

    from engine.distributed import start_distributed, stop_distributed

    torch.set_num_threads(1)
    try:
        start_distributed()
        # Plain pickle copies tensors; the pipe's own would share memory that ends with this process.
        answer = pickle.dumps((True, function(*arguments)))
    except BaseException:  # whatever it was, the parent raises it
        answer = pickle.dumps((False, traceback.format_exc()))
    sender.send_bytes(answer)
    stop_distributed()
