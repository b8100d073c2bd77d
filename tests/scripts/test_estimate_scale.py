"""The estimate of a run against runs: what two and four processes send, what their checkpoints weigh."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from datasets.samples import Clip
from engine import checkpoint_folder
from engine.distributed import rank, world_size
from engine.optim import build_optimizer
from scripts.estimate_scale import __main__ as estimate_scale
from scripts.estimate_scale.sizes import sizes_of
from scripts.estimate_scale.traffic import Message, messages
from tasks.caption import CaptionTask
from tasks.pretrain import PretrainTask
from tasks.retrieval import RetrievalTask
from tasks.vqa import VqaTask
from tests.engine.processes import Ranks, lines_of
from tests.gloo import run_ranks
from tests.integration.runs import ROOT, write_config
from tests.tiny_runs import clips, config, write_data, write_questions

TASKS: dict[str, Any] = {
    "pretrain": PretrainTask,
    "retrieval": RetrievalTask,
    "vqa": VqaTask,
    "caption": CaptionTask,
}
CONTRASTING = ("pretrain", "retrieval")
ROWS, TOKENS = 8, 8
FEW = 8
"""Numbers that are left out of an estimate when they are reduced: counts and lengths."""
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "accumulated": {"train": {"batch_size": ROWS, "accumulate": 2}},
    "release": {"objective": {"vtc_keys": "local", "negatives": "same_rank"}},
}
LONG = "a text of more words than the configuration reads of any"
Counted = Counter[tuple[str, int]]


def configured(kind: str, root: Path, way: str, **sections: Any) -> Any:
    settings = {"train": {"batch_size": ROWS}, "data": {"max_tokens": TOKENS}, **WAYS[way], **sections}
    return config(kind, root, **settings)


def parallel_task(configuration: Any) -> DistributedDataParallel:
    """The configured task as the engine trains it."""
    from tasks.pretrain import PretrainTask
    from tasks.retrieval import RetrievalTask

    torch.manual_seed(0)
    task = {"pretrain": PretrainTask, "retrieval": RetrievalTask}[configuration.task](
        configuration, torch.device("cpu")
    )
    return DistributedDataParallel(task, broadcast_buffers=False)


def train_step(model: DistributedDataParallel, configuration: Any) -> None:
    """Forward and backward of one optimizer step of this process."""
    accumulate = configuration.train.accumulate
    rows = configuration.train.batch_size // world_size() // accumulate
    batches = [
        {
            "clip": Clip.of_pixels(clips(rows, seed=rank())),
            "text": [LONG] * rows,
            "index": torch.arange(rows) + part * rows,
        }
        for part in range(accumulate)
    ]
    model.module.begin_step(0, 0.0, batches)
    for part, batch in enumerate(batches):
        with model.no_sync() if part < accumulate - 1 else mock.MagicMock():
            torch.stack(list(model(batch).values())).sum().backward()


@contextmanager
def counted_collectives(model: DistributedDataParallel) -> Iterator[Counted]:
    """Bytes that this process hands to collectives of more than a few numbers; DDP's buckets are told apart."""
    found: Counted = Counter()
    gather, reduce, scatter = dist.all_gather, dist.all_reduce, dist.reduce_scatter_tensor

    def counted_gather(parts: list[Tensor], tensor: Tensor, *rest: Any, **named: Any) -> Any:
        found["all_gather", 0] += tensor.nbytes
        return gather(parts, tensor, *rest, **named)

    def counted_reduce(tensor: Tensor, *rest: Any, **named: Any) -> Any:
        found["all_reduce", 0] += tensor.nbytes if tensor.numel() > FEW else 0
        return reduce(tensor, *rest, **named)

    def counted_scatter(own: Tensor, tensor: Tensor, *rest: Any, **named: Any) -> Any:
        found["reduce_scatter", 0] += tensor.nbytes
        return scatter(own, tensor, *rest, **named)

    def hook(_: None, bucket: dist.GradBucket) -> Future[Tensor]:
        found["all_reduce", 1] += bucket.buffer().nbytes
        done: Future[Tensor] = Future()
        reduce(bucket.buffer().div_(world_size()))
        done.set_result(bucket.buffer())
        return done

    model.register_comm_hook(None, hook)
    counted = {"all_gather": counted_gather, "all_reduce": counted_reduce, "reduce_scatter_tensor": counted_scatter}
    with mock.patch.multiple(dist, **counted):
        yield found


def count_all(root: Path) -> dict[tuple[str, str], Counted]:
    """What one step of each task hands in, in each way."""
    counts = {}
    for kind in CONTRASTING:
        for way in WAYS:
            configuration = configured(kind, root, way)
            model = parallel_task(configuration)
            with counted_collectives(model) as found:
                train_step(model, configuration)
            counts[kind, way] = found
    return counts


def sent_over_loopback(root: Path, steps: int) -> tuple[int, int]:
    """Bytes that all processes of this machine send in so many steps of pre-training, and those of no step at all."""
    configuration = configured("pretrain", root, "default", **LARGE)
    model = parallel_task(configuration)
    train_step(model, configuration)  # connections are made by the first
    readings = []
    for count in (steps, 0):
        dist.barrier()
        before = loopback_bytes()
        dist.barrier()
        for _ in range(count):
            train_step(model, configuration)
        dist.barrier()
        readings.append(loopback_bytes() - before)
        dist.barrier()
    return readings[0], readings[1]


LARGE: dict[str, Any] = {"model": {"width": 128, "depth": 2, "heads": 2, "embed_dim": 8, "text": {
    "tokenizer": "from_data", "vocab_size": 20000, "depth": 2, "width": 128, "heads": 2, "intermediate": 256,
    "max_positions": 24, "dropout": 0.0,
}}}  # fmt: skip


def loopback_bytes() -> int:
    """What the loopback device has sent since the machine's start."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), [2] * ROWS, real=False)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.soak)])
def test_what_processes_hand_to_each_other_is_what_is_said(data: Path, processes: int) -> None:
    for counts in run_ranks(processes, count_all, data):
        for (kind, way), found in counts.items():
            configuration = configured(kind, data, way)
            said: Counted = Counter()
            for message in messages(configuration, sizes_of(configuration, processes), processes):
                said[message.collective, int(message.what == "gradients")] += message.payload
            assert min(found.values()) >= 0 and found["all_reduce", 1] > 0
            assert +found == +said, (kind, way)


@pytest.mark.soak
@pytest.mark.parametrize("processes", [2, 4])
def test_what_goes_over_the_wire_is_what_is_said(data: Path, processes: int) -> None:
    """Of all that the machine sends meanwhile; others' traffic makes it more."""
    steps = 20
    configuration = configured("pretrain", data, "default", **LARGE)
    sent = sum(m.sent(processes) for m in messages(configuration, sizes_of(configuration, processes), processes))
    found = run_ranks(processes, sent_over_loopback, data, steps)[0]
    assert found[0] - found[1] == pytest.approx(sent * processes * steps, rel=0.2)


def test_a_ring_sends_what_it_has_to() -> None:
    assert [Message("", "all_reduce", 1000).sent(processes) for processes in (1, 2, 4, 32)] == [0, 1000, 1500, 1938]
    assert [Message("", "all_gather", 1000).sent(processes) for processes in (1, 2, 4, 32)] == [0, 1000, 3000, 31000]
    assert [Message("", "reduce_scatter", 1000).sent(processes) for processes in (1, 2, 4)] == [0, 500, 750]


@pytest.mark.parametrize("kind", TASKS)
def test_checkpoints_weigh_what_is_said(tmp_path: Path, kind: str) -> None:
    """Tensors alone: a safetensors file begins with 8 bytes that say how long its list of names is."""
    write_questions(write_data(tmp_path, [1] * 4, real=False), [1] * 4)
    configuration = config(kind, tmp_path, optim={"freeze": ["visual_encoder.blocks.0"]})
    task = TASKS[kind](configuration, torch.device("cpu"))
    optimizer = build_optimizer(task, configuration.optim)
    for parameter in task.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    checkpoint_folder.save_weights(task.state_dict(), tmp_path / "weights")
    checkpoint_folder.save_weights(checkpoint_folder.optimizer_tensors(optimizer), tmp_path / "optimizer")
    sizes = sizes_of(configuration, 1)
    assert (sizes.weight_bytes, sizes.optimizer_bytes) == tuple(
        len(raw) - 8 - int.from_bytes(raw[:8], "little")
        for raw in ((tmp_path / name).read_bytes() for name in ("weights", "optimizer"))
    )
    assert sizes.parameters == sum(p.numel() for p in task.parameters() if p.requires_grad)


def run(*words: object) -> dict[str, Any]:
    """What the script prints as JSON."""
    with (
        mock.patch.object(sys, "argv", ["estimate_scale", *map(str, words), "--json"]),
        mock.patch("builtins.print") as out,
    ):
        estimate_scale.main()
    return json.loads(out.call_args.args[0])


def test_the_command_line_says_what_follows_from_measured_times(tmp_path: Path) -> None:
    root = write_data(tmp_path, [1])
    path = write_config("pretrain", root, train={"batch_size": 8, "max_epochs": 3, "keep_checkpoints": 2})
    lines = [{"kind": "train", "step": n, "seconds_per_step": s} for n, s in enumerate((9.0, 0.5, 0.25, 1.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("--config", path, "--processes", 4, "--processes-per-machine", 2, "--pairs", 803)
    said = run(*words, "--measured", tmp_path, "--clip-seconds", 0.25)
    found, sizes = said["estimate"], said["sizes"]
    assert (found["steps_per_epoch"], found["steps"], found["step_seconds"]) == (100, 300, 0.5)
    assert found["hours"] == pytest.approx(300 * 0.5 / 3600) and found["gpu_hours"] == pytest.approx(found["hours"] * 4)
    assert (found["clips_per_second"], found["cores"]) == (8.0, 2.0)  # two of four processes read 2 clips each 0.5 s
    assert found["checkpoint_bytes"] == sizes["weight_bytes"] + sizes["optimizer_bytes"]
    assert found["disk_bytes"] == 2 * found["checkpoint_bytes"]  # pre-training has no best one
    assert found["sent"]["gradients"] == round(1.5 * sizes["gradient_bytes"])
    read = run(*words, "--teraflops", 1e-6, "--videos", root / "videos")["estimate"]
    assert read["step_seconds"] == pytest.approx(sizes["flops"] / 1e6) and read["cores"] > 0


@pytest.mark.soak
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_run_takes_the_hours_that_are_said(tmp_path: Path, processes: int) -> None:
    """By the clock, of an epoch's beginning and end too; the step was measured by a shorter run."""
    root = write_data(tmp_path, [1] * 64)

    def seconds(name: str, epochs: int) -> tuple[Path, float]:
        """From the report of the second step to that of the last."""
        train = {"batch_size": 4, "max_epochs": epochs, "log_every": 1}
        path = write_config("pretrain", root, f"{name}.yaml", output_dir=str(tmp_path / name), train=train)
        reports = tmp_path / name / "metrics.jsonl"
        with Ranks(processes, "pretrain.py", "--config", str(path), log=tmp_path / f"{name}.log") as ranks:
            assert ranks.until(lambda: lines_of(reports) >= 2, 100), ranks.output()
            begun = time.monotonic()
            assert ranks.until(lambda: lines_of(reports) >= 16 * epochs, 300), ranks.output()
            taken = time.monotonic() - begun
            assert ranks.wait(60) == [0] * processes, ranks.output()
        return path, taken

    seconds("short", 2)
    path, taken = seconds("long", 12)
    words = ("--config", path, "--processes", processes, "--pairs", 64, "--measured", tmp_path / "short")
    found = run(*words)["estimate"]
    assert found["steps"] == 12 * 16
    print(
        f"{processes} processes: {found['hours'] * 3600 * 190 / 192:.2f} s are said of 190 steps, {taken:.2f} s taken"
    )
    assert found["hours"] * 3600 * 190 / 192 == pytest.approx(taken, rel=0.25)


def test_a_process_alone_sends_nothing(tmp_path: Path) -> None:
    path = write_config("retrieval", write_data(tmp_path, [1], real=False))
    found = run("--config", path, "--processes", 1, "--pairs", 4, "--step-seconds", 1)["estimate"]
    assert found["sent"] == {} and found["network_seconds"] == 0 and found["cores"] is None


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--processes", "3", "--pairs", "9", "--step-seconds", "1"], "train.batch_size: 4 is not a multiple of 3"),
        (["--processes", "2", "--pairs", "3", "--step-seconds", "1"], "--pairs: 3 do not fill one batch of 4"),
        (["--processes", "2", "--pairs", "9", "--measured", "/nowhere"], "--measured: /nowhere holds no metrics.jsonl"),
        (
            ["--processes", "2", "--pairs", "9"],
            "one of the arguments --step-seconds --measured --teraflops is required",
        ),
    ],
)
def test_what_cannot_be_estimated_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    path = write_config("retrieval", write_data(tmp_path, [1], real=False))
    with pytest.raises(SystemExit, match="2"):
        run("--config", path, *words)
    assert error in capsys.readouterr().err


def test_sources_with_batches_of_their_own_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"root": str(tmp_path), "mixing": "batch", "sources": [{"file": "a.jsonl", "batch_size": 8}]}
    path = write_config("pretrain", tmp_path, data=data)
    with pytest.raises(SystemExit, match="2"):
        run("--config", path, "--processes", 1, "--pairs", 9, "--step-seconds", 1)
    assert "data.sources[0].batch_size: an estimate is of batches that are alike" in capsys.readouterr().err


def test_the_documented_example_runs() -> None:
    path = ROOT / "configs" / "testa" / "pretrain" / "testa_f8.yaml"
    said = run("--config", path, "--processes", 32, "--pairs", 5_000_000, "--step-seconds", 1)
    assert said["estimate"]["steps"] == 5 * (5_000_000 // 384)
    assert said["sizes"]["video_bytes"] == 1569 * 768 * 4  # 8 frames of 14 x 14 patches, and a class token
