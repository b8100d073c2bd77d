"""Two processes of four rows train as one of eight: losses, gradients, twin, queue, temperature."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from datasets.samples import Clip
from engine.distributed import all_reduce_sum, rank, world_size
from tasks.base import PairTask
from tasks.objectives import momentum as objectives_module
from tests.gloo import run_ranks
from tests.models.counts import counted_rows
from tests.models.tiny import randomise
from tests.tasks.test_objectives import TASKS
from tests.tiny_runs import caption, clips, config, write_data

ROWS, STEPS = 8, 3
OBJECTIVES: dict[str, dict[str, Any]] = {
    "default": {},
    "local keys": {"vtc_keys": "local"},
    "negatives of the same rank": {"negatives": "same_rank"},
}
Results = dict[tuple[str, str], dict[str, Any]]
LONG = "a very much longer text than any other of them all"


def global_batch(step: int) -> dict[str, Any]:
    """Rows 0 to 3 have short texts, one of the others has a long one; some rows show the same video."""
    index = [(step + place) % 5 for place in (0, 1, 2, 0, 1, 3, 4, 2)]
    texts = [caption(video, number) for number, video in enumerate(index)]
    texts[5] = f"{texts[5]} {LONG}"
    return {"clip": Clip.of_pixels(clips(ROWS, seed=step)), "text": texts, "index": torch.tensor(index)}


def rows_of(batch: dict[str, Any], rows: slice) -> dict[str, Any]:
    """The part of a batch that one process has."""
    return {
        name: Clip.of_pixels(value.pixels[rows]) if isinstance(value, Clip) else value[rows]
        for name, value in batch.items()
    }


def train_all(root: Path) -> Results:
    """Each kind of task with each objective; the variants train one step."""
    return {
        (kind, name): train(kind, root, objective, steps=STEPS if name == "default" else 1)
        for kind in TASKS
        for name, objective in OBJECTIVES.items()
    }


def build(kind: str, root: Path, objective: dict[str, Any]) -> PairTask:
    """A task with large random weights, a twin with others, and so mild a temperature that every key counts."""
    torch.manual_seed(1)
    sections = {"objective": {"temperature": 0.4, **objective}, "train": {"batch_size": ROWS}}
    task = TASKS[kind](config(kind, root, **sections), torch.device("cpu"))
    randomise(task.model)
    randomise(task.objectives.twin)
    return task


def train(kind: str, root: Path, objective: dict[str, Any], steps: int) -> dict[str, Any]:
    """Of how many columns negatives were drawn, what was projected, losses and gradients, the state at the end."""
    task = build(kind, root, objective)
    model = task if world_size() == 1 else DistributedDataParallel(task)
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.02)
    rows = slice(rank() * ROWS // world_size(), (rank() + 1) * ROWS // world_size())
    found: dict[str, Any] = {}
    for step in range(steps):
        given = rows_of(global_batch(step), rows)
        task.begin_step(step, step / 2, [given])
        with recorded_columns() as found["columns"], counted_rows(task.model.text_encoder) as found["rows"]:
            losses = model(given)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        for name, loss in losses.items():
            found[f"{step} {name}"] = all_reduce_sum(loss) / world_size()
        for name, parameter in task.named_parameters():
            if parameter.grad is not None:
                found[f"{step} gradient of {name}"] = parameter.grad.clone()
        optimizer.step()
    return {**found, **{f"state {name}": tensor.clone() for name, tensor in task.state_dict().items()}}


@contextmanager
def recorded_columns() -> Iterator[list[int]]:
    """Among how many texts or videos each negative is drawn, call by call."""
    columns: list[int] = []
    original = objectives_module.draw_negatives

    def recorded(similarity: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
        columns.append(similarity.shape[1])
        return original(similarity, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives_module, "draw_negatives", recorded)
        yield columns


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), [2] * 8, real=False)


@pytest.fixture(scope="module")
def alone(data: Path) -> Results:
    return train_all(data)


@pytest.fixture(scope="module")
def ranks(data: Path) -> list[Results]:
    return run_ranks(2, train_all, data)


@pytest.mark.parametrize("kind", TASKS)
def test_two_ranks_of_four_equal_one_of_eight(alone: Results, ranks: list[Results], kind: str) -> None:
    expected = alone[kind, "default"]
    for found in (result[kind, "default"] for result in ranks):
        assert found.keys() == expected.keys()
        assert found["columns"] == expected["columns"] == [ROWS] * 2
        for name in expected.keys() - {"columns", "rows"}:
            torch.testing.assert_close(
                found[name], expected[name], rtol=1e-5, atol=1e-5, msg=lambda text, of=name: f"{of}: {text}"
            )


@pytest.mark.parametrize("kind", TASKS)
def test_each_process_projects_its_own_videos_and_those_drawn_from_others(
    alone: Results, ranks: list[Results], kind: str
) -> None:
    """Half of the batch is its own, and as many are drawn from all: of its own alone, none more."""
    key = "encoder.layer.0.crossattention.self.key"
    for name, of_own in (("default", 2), ("negatives of the same rank", 1)):
        whole = alone[kind, name]["rows"][key]
        assert whole > 0 and whole % ROWS == 0
        assert [found[kind, name]["rows"][key] for found in ranks] == [whole // 2 * of_own] * 2


@pytest.mark.parametrize("kind", TASKS)
def test_what_is_compared_is_not_nothing(alone: Results, kind: str) -> None:
    """Every loss is there and moves, nearly all gradients are large, and the queue has wrapped."""
    found = alone[kind, "default"]
    names = [name for name in found if name.startswith("0 ") and "gradient" not in name]
    assert names == [f"0 {name}" for name in (("vtc", "vtm", "cap") if kind == "pretrain" else ("vtc", "vtm"))]
    assert all(abs(found[name] - found[name.replace("0 ", "2 ")]) > 1e-3 for name in names)
    gradients = [tensor.abs().max() for name, tensor in found.items() if name.startswith("2 gradient of")]
    assert len(gradients) > 80 and sum(bool(largest > 1e-3) for largest in gradients) > 0.8 * len(gradients)
    size = len(found["state objectives.queue.index"])
    assert size < ROWS * STEPS and int(found["state objectives.queue.pointer"]) == ROWS * STEPS % size


@pytest.mark.parametrize("kind", TASKS)
def test_local_keys_are_those_of_one_rank(data: Path, alone: Results, ranks: list[Results], kind: str) -> None:
    one, two = alone[kind, "local keys"], ranks[0][kind, "local keys"]
    assert one["0 vtc"] == alone[kind, "default"]["0 vtc"]
    assert abs(two["0 vtc"] - one["0 vtc"]) > 1e-2  # it depends on the number of processes
    halves = []
    for rows in (slice(0, 4), slice(4, 8)):
        task = build(kind, data, {})
        given = rows_of(global_batch(0), rows)
        task.begin_step(0, 0.0, [given])
        halves.append(task(given)["vtc"].detach())
    torch.testing.assert_close(two["0 vtc"], torch.stack(halves).mean(), rtol=0, atol=1e-5)
    # Negatives and queue are still everyone's.
    torch.testing.assert_close(two["0 vtm"], one["0 vtm"], rtol=0, atol=1e-5)
    for name in ("index", "video", "text"):
        name = f"state objectives.queue.{name}"
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", TASKS)
def test_negatives_of_the_same_rank(alone: Results, ranks: list[Results], kind: str) -> None:
    name = "negatives of the same rank"
    one, two = alone[kind, name], ranks[0][kind, name]
    assert one["columns"] == [ROWS] * 2 and one["0 vtm"] == alone[kind, "default"]["0 vtm"]
    assert [result[kind, name]["columns"] for result in ranks] == [[ROWS // 2] * 2] * 2
    assert abs(two["0 vtm"] - one["0 vtm"]) > 1e-4  # it depends on the number of processes
    torch.testing.assert_close(two["0 vtc"], one["0 vtc"], rtol=0, atol=1e-5)
