"""Collectives against what plain tensor code gives on one process."""

import multiprocessing
import time

import pytest
import torch

from engine.distributed import (
    all_gather_rows,
    all_gather_rows_with_grad,
    all_reduce_max,
    all_reduce_sum,
    barrier,
    gather_objects,
    is_main,
    rank,
    world_size,
)
from tests.gloo import run_ranks


def own_rows(number: int) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(number))


def weighted_loss(rows: torch.Tensor, number: int) -> torch.Tensor:
    """A loss that differs between ranks and depends on the rows of all."""
    return (rows * own_rows(100 + number).repeat(2, 1)).sin().sum() * (number + 1)


def all_collectives() -> dict:
    rows = own_rows(rank()).requires_grad_()
    weighted_loss(all_gather_rows_with_grad(rows), rank()).backward()
    barrier()
    given = own_rows(rank())
    summed, largest = all_reduce_sum(given), all_reduce_max(given)
    assert torch.equal(given, own_rows(rank())), "a reduction must not write to its input"
    return {
        "who": (rank(), world_size(), is_main()),
        "rows": all_gather_rows(given.T.contiguous().T),  # rows that do not lie one after another in memory
        "flags": all_gather_rows(torch.tensor([rank() == 1])),
        "sum": summed,
        "max": largest,
        "objects": gather_objects({"rank": rank()}),
        "gradient": rows.grad,
    }


def test_two_ranks_equal_plain_tensor_code() -> None:
    both = [own_rows(0), own_rows(1)]
    rows = torch.cat(both).requires_grad_()
    (weighted_loss(rows, 0) + weighted_loss(rows, 1)).backward()
    for number, result in enumerate(run_ranks(2, all_collectives)):
        assert result["who"] == (number, 2, number == 0)
        assert torch.equal(result["rows"], torch.cat(both))
        assert result["flags"].tolist() == [False, True]
        assert torch.equal(result["sum"], both[0] + both[1])
        assert torch.equal(result["max"], torch.maximum(*both))
        assert result["objects"] == [{"rank": 0}, {"rank": 1}]
        assert rows.grad is not None
        torch.testing.assert_close(result["gradient"], rows.grad[3 * number : 3 * number + 3])


def test_one_process_needs_no_group() -> None:
    tensor = own_rows(0).requires_grad_()
    assert (rank(), world_size(), is_main()) == (0, 1, True)
    assert all_gather_rows(tensor) is tensor and all_gather_rows_with_grad(tensor) is tensor
    assert torch.equal(all_reduce_sum(tensor), tensor) and all_reduce_sum(tensor) is not tensor
    assert gather_objects("x") == ["x"]


def fail_on_rank_one() -> None:
    if rank() == 1:
        raise ValueError("the reason")
    barrier()


def test_a_failing_rank_is_reported_with_its_reason() -> None:
    with pytest.raises(RuntimeError, match="(?s)rank 1 failed.*the reason"):
        run_ranks(2, fail_on_rank_one)


def test_ranks_that_are_not_done_in_time_are_named_and_ended() -> None:
    with pytest.raises(TimeoutError, match=r"ranks \[0, 1\] are not done"):
        run_ranks(2, time.sleep, 600.0, timeout=0.1)
    assert multiprocessing.active_children() == []
