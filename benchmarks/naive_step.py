"""One step of pre-training as TESTA's released code takes it, in plain PyTorch: what `train_step.py` is timed with.

The twin follows one parameter at a time, each negative is drawn by itself and read back, video tokens are repeated for
each pass of matching, and each pass projects them again. Encoder and towers are written as plainly beside this file.
Shapes: B batch, S text tokens, N video tokens, D width, E width of the shared space, Q entries of the queue.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.naive_encoder import NaiveEncoder, has_reference
from benchmarks.naive_text import NaiveDecoder, NaiveText
from configs.models.testa import as_testa
from configs.schema import ObjectiveConfig, PretrainConfig
from engine.precision import autocast, resolve_precision
from models.parts.bert import tie_encoder_to_decoder
from models.parts.tokenizer import with_first
from models.testa.model import VisionLanguageModel

FLOOR = 1e-4
"""Added to the weight of every negative."""
Draw = Callable[[Tensor, str, int], int]
"""A column drawn by weights (B,), for a row, where a "text" or a "video" is looked for."""


def has_reference_step(config: PretrainConfig) -> bool:
    """Whether the released code trains so: all three losses against a twin and a queue, AdamW alike for all weights."""
    objective, optim, train = config.objective, config.optim, config.train
    if not isinstance(objective, ObjectiveConfig):
        return False
    has_all_losses = set(objective.losses) == {"vtc", "vtm", "cap"} and objective.momentum > 0
    queue_fits = objective.queue_size > 0 and objective.queue_size % train.batch_size == 0
    plain = optim.clip_norm is None and optim.layer_decay == 1 and not optim.freeze and train.accumulate == 1
    return has_all_losses and queue_fits and plain and has_reference(as_testa(config.model), config.aggregation)


def multinomial(weights: Tensor, wanted: str, row: int) -> int:
    """A column drawn by weights; the host waits for it."""
    return int(torch.multinomial(weights, 1).item())


class NaivePretraining(nn.Module):
    """The model, its twin and the queue under the project's names; `forward` gives the three losses.

    Args:
        config: see `has_reference_step`.
        enc_token_id, dec_token_id: ids of [ENC] and [DEC].
    """

    video_queue: Tensor
    text_queue: Tensor
    pointer: Tensor

    def __init__(self, config: PretrainConfig, enc_token_id: int, dec_token_id: int) -> None:
        super().__init__()
        model, objective = as_testa(config.model), config.objective
        assert isinstance(objective, ObjectiveConfig), "see has_reference_step"
        self.objective, self.enc_token_id, self.dec_token_id = objective, enc_token_id, dec_token_id

        self.visual_encoder = NaiveEncoder(model, config.video, config.aggregation)
        self.text_encoder = NaiveText(model.text, model.width)
        self.text_decoder = NaiveDecoder(model.text, model.width)
        self.vision_proj = nn.Linear(model.width, model.embed_dim)
        self.text_proj = nn.Linear(model.text.width, model.embed_dim)
        self.itm_head = nn.Linear(model.text.width, 2)
        self.temp = nn.Parameter(torch.tensor(objective.temperature))
        tie_encoder_to_decoder(self.text_encoder, self.text_decoder)  # type: ignore[arg-type]  # of the same names

        self.twins = nn.ModuleDict(
            {name: deepcopy(getattr(self, name)) for name in VisionLanguageModel.twinned}
        ).requires_grad_(False)
        for name in ("video_queue", "text_queue"):
            self.register_buffer(name, F.normalize(torch.randn(model.embed_dim, objective.queue_size), dim=0))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.int64))

    def forward(
        self, video_BTCHW: Tensor, ids: Tensor, mask: Tensor, alpha: float, draw: Draw = multinomial
    ) -> dict[str, Tensor]:
        """The losses by name of normalised pixels and of ids and mask (B, S) that begin with [CLS]."""
        with torch.no_grad():
            self.temp.clamp_(0.001, 0.5)
        tokens = self.visual_encoder(video_BTCHW)
        video = F.normalize(self.vision_proj(tokens.mean(dim=1)), dim=-1)
        text = F.normalize(self.text_proj(self.text_encoder(ids, mask)[:, 0]), dim=-1)
        vtc, video_to_text, text_to_video = self._contrast(video, text, video_BTCHW, ids, mask, alpha)
        return {
            "vtc": vtc,
            "vtm": self._match(tokens, ids, mask, video_to_text, text_to_video, draw),
            "cap": self._caption(tokens, ids, mask),
        }

    def _contrast(
        self, video: Tensor, text: Tensor, video_BTCHW: Tensor, ids: Tensor, mask: Tensor, alpha: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss and the similarities (B, B + Q) of each video with texts and each text with videos."""
        with torch.no_grad():
            self._follow()
            tokens = self.twins["visual_encoder"](video_BTCHW)
            video_twin = F.normalize(self.twins["vision_proj"](tokens.mean(dim=1)), dim=-1)
            first = self.twins["text_encoder"](ids, mask)[:, 0]
            text_twin = F.normalize(self.twins["text_proj"](first), dim=-1)
            videos = torch.cat([video_twin.T, self.video_queue], dim=1)
            texts = torch.cat([text_twin.T, self.text_queue], dim=1)
            own = torch.zeros(len(ids), texts.shape[1], device=ids.device).fill_diagonal_(1)
            text_target = alpha * (video_twin @ texts / self.temp).softmax(dim=1) + (1 - alpha) * own
            video_target = alpha * (text_twin @ videos / self.temp).softmax(dim=1) + (1 - alpha) * own

        video_to_text, text_to_video = video @ texts / self.temp, text @ videos / self.temp
        one = -(video_to_text.log_softmax(dim=1) * text_target).sum(dim=1).mean()
        other = -(text_to_video.log_softmax(dim=1) * video_target).sum(dim=1).mean()
        self._enqueue(video_twin, text_twin)

        return (one + other) / 2, video_to_text, text_to_video

    def _follow(self) -> None:
        for name in VisionLanguageModel.twinned:
            for twin, own in zip(self.twins[name].parameters(), getattr(self, name).parameters(), strict=True):
                twin.data = twin.data * self.objective.momentum + own.data * (1.0 - self.objective.momentum)

    def _enqueue(self, video: Tensor, text: Tensor) -> None:
        first = int(self.pointer)
        end = first + len(video)
        self.video_queue[:, first:end], self.text_queue[:, first:end] = video.T, text.T
        self.pointer[0] = end % self.video_queue.shape[1]

    def _match(
        self, tokens: Tensor, ids: Tensor, mask: Tensor, video_to_text: Tensor, text_to_video: Tensor, draw: Draw
    ) -> Tensor:
        batch, rows = len(ids), range(len(ids))
        ids = with_first(ids, self.enc_token_id)
        matched = self.text_encoder(ids, mask, tokens)[:, 0]
        with torch.no_grad():
            text_weights = (video_to_text[:, :batch].softmax(dim=1) + FLOOR).fill_diagonal_(0)
            video_weights = (text_to_video[:, :batch].softmax(dim=1) + FLOOR).fill_diagonal_(0)

        negative_videos = torch.stack([tokens[draw(video_weights[row], "video", row)] for row in rows])
        negatives = [draw(text_weights[row], "text", row) for row in rows]
        negative_ids, negative_mask = (
            torch.stack([ids[row] for row in negatives]),
            torch.stack([mask[row] for row in negatives]),
        )
        unmatched = self.text_encoder(
            torch.cat([ids, negative_ids]), torch.cat([mask, negative_mask]), torch.cat([negative_videos, tokens])
        )[:, 0]
        target = torch.cat([ids.new_ones(batch), ids.new_zeros(2 * batch)])

        return F.cross_entropy(self.itm_head(torch.cat([matched, unmatched])), target)

    def _caption(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        logits = self.text_decoder(with_first(ids, self.dec_token_id), mask, tokens)[:, :-1]
        target = ids.masked_fill(mask == 0, -100)[:, 1:]
        return F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), label_smoothing=self.objective.label_smoothing, ignore_index=-100
        )


class NaiveStep:
    """Losses, gradients, AdamW; reads the losses back, as the released code does in every step for its log."""

    def __init__(self, config: PretrainConfig, enc_token_id: int, dec_token_id: int, device: torch.device) -> None:
        self.config, self.device = config, device
        self.precision = resolve_precision(config.train.precision, device)
        self.module = NaivePretraining(config, enc_token_id, dec_token_id).to(device).train()
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        optim = config.optim
        self.optimizer = torch.optim.AdamW(
            trained, lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    def __call__(self, batch: dict[str, Any], draw: Draw = multinomial) -> dict[str, float]:
        """One step on a batch of normalised float pixels."""
        video, ids, mask = (batch[name].to(self.device, non_blocking=True) for name in ("video", "ids", "mask"))
        with autocast(self.device, self.precision):
            losses = self.module(video, ids, mask, self.module.objective.alpha, draw)
            total = sum(losses.values())
        self.optimizer.zero_grad()
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {name: loss.item() for name, loss in losses.items()}
