"""The models and inputs that the checks are done with, and steps of pre-training with them."""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from configs.aggregation import AggregationConfig
from configs.optim import OptimConfig
from configs.reducers import REDUCER_SETTINGS
from configs.training import ObjectiveConfig
from datasets.samples import Clip
from engine.optim import build_optimizer
from engine.precision import Precision, autocast
from models.testa.model import VisionLanguageModel
from tasks.objectives.momentum import MomentumObjective
from tests.gpu.checks.sizes import Size

Checkpointing = Literal["none", "recompute", "offload"]
SPECIAL_IDS = {"sep_token_id": 102, "cls": 101}
LOSSES: tuple[Literal["vtc", "vtm", "cap"], ...] = ("vtc", "vtm", "cap")


def aggregation(size: Size, reducer: str, attention: str = "divided", **settings: Any) -> AggregationConfig:
    """The reducer with merging along all of its axes that this attention has."""
    amounts = {name: amount for name, amount in size.leaving.items() if name in REDUCER_SETTINGS[reducer]}
    # Tokens of all frames merge in joint attention alone, frames and patches in divided attention alone.
    for name in ("frames_per_block", "patches_per_block") if attention == "joint" else ("tokens_per_block",):
        amounts.pop(name, None)
    if reducer == "run_length" and settings.get("inside", "none") == "none":
        amounts = {}  # tokens leave before the first block, and none inside
    return AggregationConfig(reducer=reducer, **amounts, **settings)  # type: ignore[arg-type]


def build_model(
    size: Size,
    device: torch.device,
    attention: str = "divided",
    merging: AggregationConfig | None = None,
    checkpointing: Checkpointing = "none",
) -> VisionLanguageModel:
    """A model with encoder, heads and a tied decoder, whose weights are the same on every device."""
    torch.manual_seed(0)
    model = VisionLanguageModel(
        replace(size.model, attention=attention),  # type: ignore[arg-type]
        size.video,
        merging if merging is not None else aggregation(size, "geometry"),
        enc_token_id=size.model.text.vocab_size - 1,
        dec_token_id=size.model.text.vocab_size - 2,
        sep_token_id=SPECIAL_IDS["sep_token_id"],
        decoder="tied",
        activation_checkpointing=checkpointing,
    )
    return model.to(device)


def pixels(size: Size, device: torch.device, batch: int | None = None, frames: int | None = None) -> Tensor:
    """Random pixels (B, T, 3, H, W), uint8, the same on every device; all frames differ from each other."""
    shape = (batch or size.batch, frames or size.video.num_frames, 3, size.video.image_size, size.video.image_size)
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)


def clips(size: Size, device: torch.device) -> Tensor:
    """Random normalised clips (B, T, 3, H, W), the same on every device."""
    shape = (size.batch, size.video.num_frames, 3, size.video.image_size, size.video.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)


def texts(size: Size, device: torch.device, batch: int | None = None) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, S) of random texts of different lengths: [CLS], words, [SEP], padding."""
    count = batch or size.batch
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(110, size.model.text.vocab_size - 2, (count, size.words), generator=generator)
    length = (size.words - torch.arange(count) % (size.words - 2))[:, None]
    position = torch.arange(size.words)
    ids = ids.masked_fill(position == length - 1, SPECIAL_IDS["sep_token_id"]).masked_fill(position >= length, 0)
    ids[:, 0] = SPECIAL_IDS["cls"]
    return ids.to(device), (position < length).long().to(device)


class PretrainingStep:
    """Calls make steps of pre-training on one batch: twin, losses, gradients, optimizer, as the training loop does.

    It needs none of what a run needs besides: no files, no tokenizer, no log.
    """

    def __init__(
        self,
        size: Size,
        device: torch.device,
        precision: Precision,
        checkpointing: Checkpointing = "none",
        batch: int | None = None,
        queue_size: int = 64,
        merging: AggregationConfig | None = None,
    ) -> None:
        self.device, self.precision, self.steps = device, precision, 0
        self.model = build_model(size, device, merging=merging, checkpointing=checkpointing).train()
        objective = ObjectiveConfig(losses=LOSSES, queue_size=queue_size, alpha_ramp_epochs=0.0)
        self.objectives = MomentumObjective(self.model, objective, "row", seed=3).to(device).train()
        module = nn.ModuleDict({"model": self.model, "objectives": self.objectives})
        self.optimizer = build_optimizer(module, OptimConfig(lr=1e-3))
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.video = pixels(size, device, batch)
        self.ids, self.mask = texts(size, device, batch)
        self.masks = [self.mask.cpu()]  # as the loop hands them out, before they are sent
        self.index = torch.arange(len(self.ids), device=device)

    def __call__(self) -> Tensor:
        """One optimizer step; its losses (3,), without gradient, in the order of `LOSSES`."""
        batch = {"clip": Clip.of_pixels(self.video), "ids": self.ids, "mask": self.mask, "index": self.index}
        self.objectives.begin_step(self.model, self.steps, 1.0, [batch], self.masks)
        with autocast(self.device, self.precision):
            losses = self.objectives(self.model, batch)
        together = torch.stack([losses[name].float() for name in LOSSES])
        self.scaler.scale(together.sum()).backward()
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.steps += 1
        return together.detach()

    def taken(self) -> int:
        """How many steps the optimizer took; a scaler leaves those out whose gradients overflow."""
        return max((int(state["step"]) for state in self.optimizer.state.values()), default=0)
