"""The three objectives of TESTA over a model, its momentum twin and the feature queue.

Contrastive (VTC), matching with hard negatives (VTM) and captioning (CAP), as in ALBEF, BLIP and TESTA, section 3.4.
By default nothing depends on how many processes share the batch: VTC contrasts with the momentum features of all
processes, negatives come from all processes, and VTM and CAP divide by global counts. CAP does not depend on the cut
into micro-batches either. VTC and VTM do: they take keys and negatives from one micro-batch.

Shapes: B rows of this process, G of all processes, E width of the shared space, S text tokens.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.schema import ObjectiveConfig
from engine.distributed import (
    all_gather_rows,
    all_reduce_sum,
    rank,
    world_size,
)
from models.parts.bert_attention import Memory
from models.parts.losses import contrastive, draw_negatives, matching, selection_noise, similarities
from models.parts.momentum import NO_INDEX, FeatureQueue, MomentumTwin
from models.protocols import EmbeddedVideo
from models.trained_protocols import ContrastiveModel
from tasks.objectives.gathered import gathered_tokens
from tasks.step_counts import count_texts
from tasks.transfer import sent

PRETRAINING_FLOOR = 1e-4
"""The reference adds this to every negative's sampling weight in pre-training, and nothing in fine-tuning."""


class MomentumObjective(nn.Module):
    """The losses of a micro-batch, scaled so that their mean over processes and micro-batches is the step's loss.

    Args:
        positives: with `row` only a video's own text is its positive (pre-training); with `index` all pairs of the
            same video are, in the batch and in the queue (fine-tuning).
    """

    def __init__(
        self, model: ContrastiveModel, objective: ObjectiveConfig, positives: Literal["row", "index"], seed: int
    ) -> None:
        super().__init__()
        self.objective, self.positives, self.seed = objective, positives, seed
        # The twin computes the contrastive keys. With momentum 0 it would equal the model itself.
        needed = "vtc" in objective.losses and objective.momentum > 0
        self.twin = MomentumTwin(model, objective.momentum) if needed else None
        self.queue = FeatureQueue(model.embed_dim, objective.queue_size, seed)
        self.alpha, self.step = objective.alpha, 0
        assert "cap" not in objective.losses or model.is_tied, "captions are written by a decoder tied to the encoder"
        model.freeze_unused(objective.losses)

    def holds(self) -> dict[str, nn.Module]:
        """The queue, and the twin where there is one."""
        return {"queue": self.queue} if self.twin is None else {"twin": self.twin, "queue": self.queue}

    def _check_rows(self, rows: int) -> None:
        """Refuse micro-batches of one row per process if that row has no negative or nothing to contrast with."""
        objective = self.objective
        if rows > 1:
            return

        if "vtm" in objective.losses and objective.negatives == "same_rank":
            raise ValueError(
                "objective.negatives: same_rank leaves a micro-batch of one row a process no negative; make "
                "train.batch_size larger or train.accumulate smaller, or set objective.negatives=all"
            )
        if "vtc" in objective.losses and objective.vtc_keys == "local" and not objective.queue_size:
            raise ValueError(
                "objective.vtc_keys: local, with no queue, leaves a micro-batch of one row a process nothing to "
                "contrast; make train.batch_size larger or train.accumulate smaller, or set objective.vtc_keys=all"
            )

    def begin_step(
        self,
        model: ContrastiveModel,
        step: int,
        epoch: float,
        batches: Sequence[dict[str, Any]],
        masks: Sequence[Tensor],
    ) -> None:
        """Prepare an optimizer step: update the twin, clamp the temperature, ramp alpha up from 0, count the texts.

        `masks` (B, S), on the CPU, are the text masks of the micro-batches; the counts are added to the batches.
        """
        self._check_rows(min(len(mask) for mask in masks))
        if self.twin is not None:
            self.twin.update(model)
        model.clamp_temperature()

        ramp = self.objective.alpha_ramp_epochs
        self.alpha = self.objective.alpha * (min(1.0, epoch / ramp) if ramp > 0 else 1.0)
        self.step = step
        count_texts(batches, masks)

    def forward(self, model: ContrastiveModel, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Compute the losses, by name, and push the batch's keys to the queue.

        `batch` holds `clip` with uint8 pixels (B, T, 3, H, W), `ids` and `mask` (B, S), `index` (B,), the video of each
        row, and the counts from `begin_step`. Its `losses`, if present, choose some of the objective's.
        """
        chosen = batch.get("losses", self.objective.losses)
        video_BTCHW = batch["clip"].pixels
        ids, mask, index = (batch[name] for name in ("ids", "mask", "index"))
        losses: dict[str, Tensor] = {}

        texts = ids, mask
        if "vtm" in chosen and self.objective.negatives == "all":
            texts = gather_texts(ids, mask, batch["longest_text"])

        video, text = model.encode_video(video_BTCHW), model.encode_text(ids, mask)
        memory = Memory([])
        if {"vtm", "cap"} & set(chosen):
            # Matching and the decoder, which share weights, attend to the same keys and values: project them once.
            memory = model.project(video.tokens)

        if "vtc" in chosen:
            own_keys = (video.embedding.detach(), text.embedding.detach())
            if self.twin is not None:
                own_keys = self.twin.embed(model, video_BTCHW, ids, mask)
            keys = [all_gather_rows(feature) for feature in own_keys]

            # Two rows are positives if their numbers are equal: global row numbers, or video numbers.
            row = torch.arange(len(ids), device=ids.device) + rank() * len(ids)
            own_numbers = row if self.positives == "row" else index
            all_numbers = all_gather_rows(own_numbers)

            queries = (video.embedding, text.embedding)
            losses["vtc"] = self._contrastive(queries, keys, own_numbers, all_numbers, model.temp)

            if "vtm" in chosen:
                similarity = [
                    similarities(query.detach(), key) / model.temp.detach()
                    for query, key in zip(queries, reversed(keys), strict=True)
                ]
                losses["vtm"] = self._matching(
                    model, video, memory, texts, similarity, own_numbers, all_numbers, batch["part"]
                )

            # Pre-training stores no video numbers, so that nothing in the queue is ever a positive.
            queued_numbers = all_numbers
            if self.positives == "row":
                queued_numbers = torch.full_like(all_numbers, NO_INDEX)
            self.queue.push(keys[0], keys[1], queued_numbers)

        if "cap" in chosen:
            losses["cap"] = model.text_loss(memory, ids, mask).sum() / batch["mean_tokens"]

        return losses

    def _contrastive(
        self,
        queries: tuple[Tensor, Tensor],
        keys: list[Tensor],
        own_numbers: Tensor,
        all_numbers: Tensor,
        temperature: Tensor,
    ) -> Tensor:
        """VTC: the mean of video-to-text and text-to-video, against this batch's keys and the queue.

        Rows are positives if their numbers are equal: `own_numbers` (B,) of this process, `all_numbers` (G,) of all.
        """
        rows = slice(rank() * len(own_numbers), (rank() + 1) * len(own_numbers))
        if self.objective.vtc_keys == "local":
            all_numbers = all_numbers[rows]
        positives = own_numbers[:, None] == torch.cat([all_numbers, self.queue.index])[None]

        # Each direction contrasts the model's features with the other side's keys; the similarities of its own key
        # with the same keys give the soft targets.
        loss = torch.zeros((), device=own_numbers.device)
        for query, own_key, other, queued in (
            (queries[0], keys[0][rows], keys[1], self.queue.text),
            (queries[1], keys[1][rows], keys[0], self.queue.video),
        ):
            candidates = torch.cat([other[rows] if self.objective.vtc_keys == "local" else other, queued])
            similarity = similarities(query, candidates) / temperature
            soft_similarity = similarities(own_key, candidates) / temperature.detach()
            loss = loss + contrastive(similarity, soft_similarity, positives, self.alpha).mean() / 2
        return loss

    def _matching(
        self,
        model: ContrastiveModel,
        video: EmbeddedVideo,
        memory: Memory,
        texts: tuple[Tensor, Tensor],
        similarity: list[Tensor],
        own_numbers: Tensor,
        all_numbers: Tensor,
        part: int,
    ) -> Tensor:
        """VTM: match each pair, each video with a negative text, and each text with a negative video.

        Each own video's `memory` is projected once and serves both of its texts. Negative videos reuse it too, unless
        they may come from other processes.
        """
        batch, rows = len(own_numbers), slice(rank() * len(own_numbers), (rank() + 1) * len(own_numbers))
        noise = sent(selection_noise(self.seed, self.step, part, len(all_numbers))[:, rows], own_numbers.device)

        # Choose where negatives come from: all processes, or this one alone.
        all_ids, all_mask = ids, mask = texts
        all_tokens = video.tokens
        if self.objective.negatives == "all":
            all_tokens = gathered_tokens(video)
            ids, mask = all_ids[rows], all_mask[rows]
        else:
            all_numbers, noise = all_numbers[rows], noise[:, :, rows]
            similarity = [direction[:, rows] for direction in similarity]

        # Draw hard negatives: the more similar, the likelier. A row without any negative is not counted.
        positives = own_numbers[:, None] == all_numbers[None]
        floor = PRETRAINING_FLOOR if self.positives == "row" else 0.0
        text, has_text = draw_negatives(similarity[0], positives, noise[0], floor)
        video_row, has_video = draw_negatives(similarity[1], positives, noise[1], floor)

        # Videos of this process are projected already; videos of other processes are not.
        is_shared = len(all_tokens) > batch
        negatives = model.project_once(all_tokens.index_select(0, video_row)) if is_shared else memory.rows(video_row)

        # One forward pass for 3B pairs: each own video with its own text and its negative text, then negative videos.
        logits = model.match_groups(
            [(2 * batch, memory), (batch, negatives)],
            torch.cat([by_turns(ids, all_ids[text]), ids]),
            torch.cat([by_turns(mask, all_mask[text]), mask]),
        )

        always, never = torch.ones_like(has_text), torch.zeros_like(has_text)
        matches = torch.cat([by_turns(always, never), never]).long()
        counted = torch.cat([by_turns(always, has_text), has_video])
        return matching(logits, matches, counted) * world_size() / all_reduce_sum(counted.sum())


def by_turns(first: Tensor, second: Tensor) -> Tensor:
    """Interleave the rows of two tensors (B, ...) to (2B, ...)."""
    return torch.stack([first, second], dim=1).flatten(0, 1)


def gather_texts(ids: Tensor, mask: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Ids and mask (G, S) of all processes, padded to the `longest` text on any process."""
    assert ids.shape[1] <= longest, "begin_step counts the longest text of each micro-batch"
    padding = (0, longest - ids.shape[1])
    return all_gather_rows(F.pad(ids, padding)), all_gather_rows(F.pad(mask, padding))
