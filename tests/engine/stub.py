"""A task of two small layers with all that makes resuming hard: dropout, tied weights, a queue, an own loader."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from configs.schema import DataConfig, OptimConfig, RunConfig, TrainConfig
from engine.distributed import all_gather_rows, rank, world_size

STEPS = 4
WIDTH = 6


class Interrupted(Exception):
    """What stops a run from outside."""


def broken(video: str, reason: str = "is no video", excluded: bool = False) -> dict[str, Any]:
    return {"video": video, "reason": reason, "excluded": excluded}


@dataclass(frozen=True, kw_only=True)
class StubConfig(RunConfig):
    task: ClassVar[str] = "stub"
    dropout: float = 0.2
    drawn_by_loader: int = 1


def stub_config(
    folder: Path, *, optim: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **settings: Any
) -> StubConfig:
    return StubConfig(
        data=DataConfig(root="nowhere"),
        optim=OptimConfig(**{"lr": 0.05, "warmup_steps": 2, "clip_norm": 1.0, "layer_decay": 0.9, **(optim or {})}),
        train=TrainConfig(**{"batch_size": 8, "max_epochs": 3, "accumulate": 2, "log_every": 1, **(train or {})}),
        output_dir=str(folder),
        **settings,
    )


class StubTask(nn.Module):
    """Learns to give back its input; interrupted in the forward of step `stop_at`, in evaluation `stop_evaluation`."""

    steps_per_epoch = STEPS
    data_digest = "rows of a stub"
    best_after = 2 * STEPS * 2  # micro-batches of two epochs
    best_metric: str | None = "likeness"
    folded = False

    def __init__(
        self, config: StubConfig, device: torch.device, stop_at: int | None = None, stop_evaluation: int | None = None
    ) -> None:
        super().__init__()
        self.config, self.stop_at, self.stop_evaluation = config, stop_at, stop_evaluation
        self.blocks = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(2)])
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(WIDTH, WIDTH)
        self.head.weight = self.blocks[0].weight
        self.never_used = nn.Linear(2, 2).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(12, WIDTH))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.long))
        self.evaluations = 0
        self.steps_begun: list[tuple[int, float]] = []

    def train_epoch(self, epoch: int, first_step: int) -> Iterator[dict[str, Any]]:
        torch.rand(self.config.drawn_by_loader)  # as a DataLoader does when it starts
        train = self.config.train
        for step in range(first_step, STEPS):
            generator = torch.Generator().manual_seed(1000 * epoch + step)
            slices = torch.randn(train.batch_size, WIDTH, generator=generator).chunk(train.accumulate)
            for rows in slices:
                failed = [broken(f"broken{epoch}.mp4")] if step == 1 and rank() == 0 else []
                own = rows.chunk(world_size())[rank()]
                names = [f"epoch {epoch}, step {step}, rank {rank()}, row {row}" for row in range(len(own))]
                yield {"rows": own, "names": names, "failed": failed}

    def exclude(self, videos: Iterable[str]) -> None:
        self.excluded = list(videos)

    def begin_step(self, step: int, epoch: float, batches: Sequence[dict[str, Any]]) -> None:
        assert len(batches) == self.config.train.accumulate
        self.step = step
        self.steps_begun.append((step, epoch))

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        assert batch.keys() == {"rows"} and not self.folded
        if self.step == self.stop_at:
            raise Interrupted
        rows = batch["rows"]
        features = self.blocks[1](self.dropout(self.blocks[0](rows))).tanh()
        losses = {
            "rebuild": (self.head(features) - rows).square().mean(),
            "queue": (features @ self.queue.T.clone()).sin().mean(),
        }
        self.batches_seen += 1
        gathered = all_gather_rows(features)
        places = (self.pointer + torch.arange(len(gathered), device=rows.device)) % len(self.queue)
        self.queue[places] = gathered.detach().float()
        self.pointer.add_(len(gathered)).remainder_(len(self.queue))
        return losses

    def evaluate(self, final: bool) -> dict[str, Any]:
        assert not self.training and not torch.is_grad_enabled()
        self.evaluations += 1
        if self.evaluations == self.stop_evaluation:
            raise Interrupted
        torch.rand(7)
        likeness = 50.0 - abs(int(self.batches_seen) - self.best_after)
        return {
            "metrics": {"likeness": likeness, "weight": float(self.head.weight.float().sum())},
            "dataset": "stub",
            "split": "test" if final and self.config.data.test_is_apart else "eval",
            "num_videos": 3,
            "num_texts": 4,
            "num_missing": 1,
            "failed": [broken("broken_test.mp4", "is empty")],
            "files": {"predictions.txt": lambda path: path.write_text(f"evaluation {self.evaluations}")},
        }

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        self.folded = True

    def save_extras(self, folder: Path) -> None:
        (folder / "vocabulary.txt").write_text("words\n")
