"""Processes that train together: which one this is, and the few collectives that the project needs.

Without a process group everything works too, as rank 0 of 1. CPU tensors travel over gloo even where GPUs use nccl, so
that agreement between hosts does not wait for a GPU.
"""

import importlib
import os
from collections.abc import Callable
from datetime import timedelta
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
    """Whether this is rank 0, which writes files and prints."""
    return rank() == 0


def local_rank() -> int:
    """The number of this process on its machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def start_distributed(timeout: timedelta = timedelta(minutes=30)) -> None:
    """Join the other processes of torchrun or srun; does nothing if this process has joined or was started alone.

    A collective that waits for a rank longer than `timeout` raises an error.
    """
    if dist.is_initialized() or "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return

    # Import this before there is a group. DDP imports it anyway, and then its functions' default arguments keep the
    # group alive: its threads run until the interpreter ends, where freeing a tensor in one aborts the process.
    importlib.import_module("torch.distributed.nn.functional")

    if torch.cuda.is_available():
        torch.cuda.set_device(torch.device("cuda", local_rank()))
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=timeout, **_store_of_this_start(timeout))
    else:
        dist.init_process_group("gloo", timeout=timeout, **_store_of_this_start(timeout))


def _store_of_this_start(timeout: timedelta) -> dict[str, Any]:
    """Arguments of `init_process_group` for a restart under `torchrun --max-restarts`; none elsewhere.

    torchrun keeps one store for all its restarts, which still holds the addresses of the earlier processes.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not shared or os.environ["TORCHELASTIC_MAX_RESTARTS"] == "0":
        return {}

    if os.environ["GROUP_WORLD_SIZE"] != "1":
        raise ValueError(
            "torchrun --max-restarts on several machines: each machine counts its own restarts; set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment, and use --rdzv_backend=c10d"
        )

    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout)
    own = dist.PrefixStore(f"start_{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    return {"store": own, "rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}


def stop_distributed() -> None:
    """Leave the process group, if there is one, and end its threads."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until every rank is here, but for no GPU."""
    any_rank(False)


def all_gather_rows(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of all ranks in order, (N, ...) to (world * N, ...), without gradient.

    N must be the same on every rank. A single process gets its own tensor back.
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
        # Every rank's loss depends on these rows, so their gradient is the sum over ranks.
        gradient = gradients[0].contiguous()
        own = gradient.new_empty((ctx.num_rows, *gradient.shape[1:]))
        dist.reduce_scatter_tensor(own, gradient)
        return own


def all_gather_rows_with_grad(tensor: torch.Tensor) -> torch.Tensor:
    """As `all_gather_rows`; backward sums all ranks' gradients of the rows that came from this one."""
    if world_size() == 1:
        return tensor
    return _GatherRows.apply(tensor)


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over ranks, as a new tensor without gradient."""
    return _all_reduce(tensor, dist.ReduceOp.SUM)


def all_reduce_max(tensor: torch.Tensor) -> torch.Tensor:
    """The elementwise maximum over ranks, as a new tensor without gradient."""
    return _all_reduce(tensor, dist.ReduceOp.MAX)


def _all_reduce(tensor: torch.Tensor, operation: Any) -> torch.Tensor:
    reduced = tensor.detach().clone(memory_format=torch.contiguous_format)
    if world_size() > 1:
        dist.all_reduce(reduced, operation)
    return reduced


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true on any rank; the same answer on all, without waiting for a device."""
    return bool(all_reduce_max(torch.tensor(int(flag))))


def from_main(value: Any) -> Any:
    """The picklable `value` of rank 0, on every rank."""
    return gather_objects(value if is_main() else None)[0]


def done_by_main(work: Callable[[], Any]) -> Any:
    """Do `work` on rank 0 alone, and return its result on every rank; its ValueError is raised on all of them."""
    result, error = None, None
    if is_main():
        try:
            result = work()
        except ValueError as raised:
            error = raised

    result, error = from_main((result, error))
    if error is not None:
        raise error
    return result


def gather_objects(value: Any) -> list[Any]:
    """The picklable `value` of each rank, in order, on every rank."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered
