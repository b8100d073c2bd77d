"""The processes of a run, as losses of a model that share a batch ask for them."""

from engine.distributed import all_gather_rows_with_grad, all_reduce_sum, rank, world_size
from models.parts.processes import Processes


def all_processes() -> Processes:
    """All processes of the run, which share each micro-batch in equal parts."""
    return Processes(rank(), world_size(), all_gather_rows_with_grad, all_reduce_sum)
