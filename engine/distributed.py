"""Processes that train together: who this one is, and the few collectives the project needs.

Everything works without a process group too, as one process that is rank 0 of 1.
"""

import os
from typing import Any

import torch
import torch.distributed as dist


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is rank 0, which writes the files and prints."""
    return rank() == 0


def local_rank() -> int:
    """The number of this process on its machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def start_distributed() -> None:
    """Join the other processes of torchrun; does nothing in a process that has, or that torchrun did not start."""
    if dist.is_initialized() or "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")


def stop_distributed() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        dist.barrier()


def all_gather_rows(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of all ranks, those of rank 0 first: (N, ...) becomes (world * N, ...), without gradient.

    N has to be the same on every rank. Alone, a process gets its own tensor back.
    """
    if world_size() == 1:
        return tensor
    tensor = tensor.detach().contiguous()
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor)
    return torch.cat(parts)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        ctx.num_rows = tensor.shape[0]
        return all_gather_rows(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        # Every rank's loss depends on these rows, so what they receive is the sum over ranks.
        gradient = all_reduce_sum(gradients[0])
        return gradient.narrow(0, rank() * ctx.num_rows, ctx.num_rows)


def all_gather_rows_with_grad(tensor: torch.Tensor) -> torch.Tensor:
    """The same as `all_gather_rows`; backward sums all ranks' gradients of the rows that came from this one."""
    if world_size() == 1:
        return tensor
    return _GatherRows.apply(tensor)


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """A new tensor: the sum over ranks, without gradient."""
    return _all_reduce(tensor, dist.ReduceOp.SUM)


def all_reduce_max(tensor: torch.Tensor) -> torch.Tensor:
    """A new tensor: the elementwise maximum over ranks, without gradient."""
    return _all_reduce(tensor, dist.ReduceOp.MAX)


def _all_reduce(tensor: torch.Tensor, operation: Any) -> torch.Tensor:
    reduced = tensor.detach().clone(memory_format=torch.contiguous_format)
    if world_size() > 1:
        dist.all_reduce(reduced, operation)
    return reduced


def gather_objects(value: Any) -> list[Any]:
    """One picklable object of every rank, in the order of ranks, on every rank."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered
