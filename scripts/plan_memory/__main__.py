"""Say what a training step of a configuration needs of each GPU, of which kind, and which ways to save fit.

    python -m scripts.plan_memory --config configs/testa/retrieval/testa_f96.yaml --processes 8
    python -m scripts.plan_memory --config configs/testa/pretrain/testa_f8.yaml --processes 32 train.workers=8

A probe takes no steps: there it is what encodes `evaluation.batch_size` videos, and so it is where videos have options.

The real step is gone through once for each column, on tensors without values: no GPU is needed, nor much memory. A
column is a way to take it, without and with aggregation and recomputation; * marks the configured one. Rows are GiB at
the moment when most is alive, each tensor rounded up to the 512 bytes the allocator rounds to, so `tensors` is what
`torch.cuda.max_memory_allocated` says. Gradients are those made by then: all of them only where the peak is that late.
DDP keeps a second copy of all (`buckets`). The total adds the CUDA context and an allowance for what the allocator
reserves and does not use, both assumed. Texts are taken to be as long as the configuration lets them be.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from configs.load import load_any
from configs.schema import CONFIG_CLASSES, AggregationConfig, RecognitionConfig, RunConfig, VqaConfig
from engine.precision import Precision
from scripts.parts.arguments import at_least, positive
from scripts.plan_memory.live import KINDS
from scripts.plan_memory.recognition import trains_in_steps
from scripts.plan_memory.step import Need, count
from tasks.vqa import question_tokens

GIB = 2**30
CUDA_CONTEXT = GIB // 2
"""Assumed of the driver's part: kernels, and the workspaces of cuBLAS and NCCL."""
ALLOWANCE = 0.05
"""Assumed share of the tensors' bytes that the allocator holds besides, in pieces that fit nothing."""
LARGEST_BATCH = 1 << 14
Checkpointing = Literal["none", "recompute", "offload"]


@dataclass(frozen=True)
class Column:
    """One way to take the step, and what it needs; `largest` is the largest batch a GPU that fits, if asked."""

    name: str
    configured: bool
    need: Need
    total: int
    largest: int | None = None

    def rows(self) -> dict[str, int]:
        """Bytes by row of the table."""
        kinds: dict[str, int] = {kind: self.need.at_peak.get(kind, 0) for kind in KINDS}
        tensors = {**kinds, "buckets": self.need.buckets, "tensors": self.need.total}
        return {**tensors, "allowance": self.total - CUDA_CONTEXT - self.need.total, "context": CUDA_CONTEXT}


def ways(config: RunConfig) -> dict[str, RunConfig]:
    """The configuration without and with its aggregation, each without and with recomputation."""
    train = config.train
    if train.activation_checkpointing == "offload":
        raise ValueError(
            "train.activation_checkpointing: what offload leaves on the GPU is not counted; plan with recompute, which "
            "needs the blocks' inputs more"
        )
    # Without gradients nothing is kept that recomputation could save.
    recomputes: dict[Checkpointing, str] = {"none": "", "recompute": "recompute"}
    if not trains_in_steps(config):
        recomputes = {train.activation_checkpointing: ""}
    found: dict[str, RunConfig] = {}
    for aggregation in dict.fromkeys((AggregationConfig(), config.aggregation)):
        merging = "" if aggregation.reducer == "none" else "aggregation"
        for checkpointing, recompute in recomputes.items():
            name = "+".join(filter(None, (merging, recompute))) or "none"
            way = replace(train, activation_checkpointing=checkpointing)
            found[name] = replace(config, aggregation=aggregation, train=way)
    return found


def rows_a_process(config: RunConfig, processes: int) -> int:
    """Samples of a micro-batch on one GPU; `ValueError` if the batch cannot be shared out evenly.

    Where nothing is trained in steps, videos that are encoded at once.
    """
    if isinstance(config, RecognitionConfig) and not trains_in_steps(config):
        return config.evaluation.batch_size
    batch, parts = config.train.batch_size, config.train.accumulate * processes
    if batch % parts:
        raise ValueError(
            f"train.batch_size: {batch} cannot be shared out evenly over {processes} processes and "
            f"train.accumulate {config.train.accumulate}; give a multiple of {parts}"
        )
    return batch // parts


def longest_text(config: RunConfig) -> int:
    """Tokens of the longest text that the configuration lets through."""
    if isinstance(config, VqaConfig):
        return question_tokens(config)
    limits = (config.data.max_tokens, config.model.most_tokens)
    return min(limit for limit in limits if limit is not None)


def in_all(need: Need) -> int:
    """Bytes of the GPU with what no tensor is."""
    return round(need.total * (1 + ALLOWANCE)) + CUDA_CONTEXT


def largest_batch(need_of: Callable[[int], Need], rows: int, available: int) -> int:
    """The most samples that need no more than the `available` bytes in all, at most LARGEST_BATCH.

    The step grows linearly but for a square of the batch in matching and contrast. A line through two counts is mostly
    right to one sample; from there the search is by halves.
    """
    small, twice = in_all(need_of(rows)), in_all(need_of(2 * rows))
    guess = rows + (available - small) // max(1, (twice - small) // rows)
    fits, too_many, samples = 0, LARGEST_BATCH + 1, guess
    while too_many - fits > 1:
        samples = min(max(samples, fits + 1), too_many - 1)
        if in_all(need_of(samples)) <= available:
            fits = samples
        else:
            too_many = samples
        samples = fits + 1 if fits == guess else too_many - 1 if too_many == guess else (fits + too_many) // 2
    return fits


def plan(config: RunConfig, processes: int, text_tokens: int | None, gpu_memory: float | None) -> list[Column]:
    """A column for each of the `ways`."""
    if text_tokens is not None and isinstance(config, VqaConfig):
        raise ValueError("--text-tokens: has no effect on questions, which are padded to one length")
    if text_tokens is not None and config.reads_labels:
        raise ValueError("--text-tokens: has no effect on recognition, which trains on videos alone")
    rows, tokens = rows_a_process(config, processes), text_tokens or longest_text(config)
    if tokens < 3:
        raise ValueError(f"--text-tokens: {tokens} leave no word between [CLS] and [SEP]")
    found = ways(config)
    # How many steps the search for the largest batch goes through is not known before.
    known = len(found) if gpu_memory is None else None
    with tqdm(total=known, desc="going through steps", unit="step", disable=None) as bar:
        columns = []
        for name, way in found.items():

            @cache
            def need_of(samples: int, way: RunConfig = way) -> Need:
                need = count(way, samples, processes, tokens)
                bar.update()
                return need

            total = in_all(need_of(rows))
            largest = None if gpu_memory is None else largest_batch(need_of, rows, int(gpu_memory * GIB))
            columns.append(Column(name, way == config, need_of(rows), total, largest))
    return columns


def table(columns: list[Column], gpu_memory: float | None) -> str:
    """The columns side by side, in GiB."""
    names = [f"{column.name}{'*' if column.configured else ''}" for column in columns]
    lines = [f"{'GiB':12}" + "".join(f"{name:>23}" for name in names)]
    for row in columns[0].rows():
        lines.append(f"{row:12}" + "".join(f"{column.rows()[row] / GIB:23.2f}" for column in columns))
    lines.append(f"{'total':12}" + "".join(f"{column.total / GIB:23.2f}" for column in columns))
    if gpu_memory is not None:
        fits = ("yes" if column.total <= gpu_memory * GIB else "no" for column in columns)
        lines.append(f"{'fits':12}" + "".join(f"{word:>23}" for word in fits))
        lines.append(f"{'largest':12}" + "".join(f"{column.largest or 0:23d}" for column in columns))
    return "\n".join(lines)


def as_json(columns: list[Column], gpu_memory: float | None) -> str:
    """The same in bytes, as a JSON object by name of the column."""
    found: dict[str, dict[str, int | None]] = {}
    for column in columns:
        found[column.name] = {**column.rows(), "total": column.total, "configured": column.configured}
        if gpu_memory is not None:
            found[column.name] |= {"fits": column.total <= gpu_memory * GIB, "largest": column.largest}
    return json.dumps(found, indent=1)


def main() -> None:
    """Parse the command line, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", help="of the configuration, such as train.batch_size=64")
    parser.add_argument("--processes", type=at_least(1), default=1, help="GPUs that share train.batch_size (default 1)")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: the configured, auto as bf16")
    parser.add_argument("--text-tokens", type=at_least(1), help="of each text; default: as many as configured")
    parser.add_argument("--gpu-memory", type=positive, metavar="GIB", help="say what fits, and the largest batch")
    parser.add_argument("--json", action="store_true", help="print one JSON object, in bytes")
    arguments = parser.parse_args()

    try:
        config = load_any(CONFIG_CLASSES, arguments.config, arguments.overrides)
        precision = arguments.precision or config.train.precision
        # A GPU's 16-bit formats take equally much; a CPU's autocast, which counts, has bf16.
        counted: Precision = "fp32" if precision == "fp32" else "bf16"
        config = replace(config, train=replace(config.train, precision=counted, compile=False))
        columns = plan(config, arguments.processes, arguments.text_tokens, arguments.gpu_memory)
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")

    show = as_json if arguments.json else table
    if not arguments.json:
        rows = rows_a_process(config, arguments.processes)
        print(f"{arguments.config}: {rows} samples a GPU, {arguments.processes} GPUs, {counted}")
    print(show(columns, arguments.gpu_memory))


if __name__ == "__main__":
    main()
