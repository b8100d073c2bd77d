"""UMT's objective (ICCV 2023, stage 2): contrast, matching, masked words, and a teacher's features.

Contrast and matching take the features of the batch itself, with gradient on both sides. By default nothing depends on
how many processes share the batch: keys and negatives come from all processes, and what is drawn follows from the seed,
the step and the row. Contrast and matching do depend on the cut into micro-batches, each of which is a batch to them.

Shapes: B rows of this process, G of all processes, T frames, L patches, V visible patches of a clip, S text tokens.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.unmasked_teacher import UnmaskedTeacherConfig
from engine.distributed import all_gather_rows, all_gather_rows_with_grad, all_reduce_sum, rank, world_size
from models.parts.bert_attention import Memory
from models.parts.clip.teacher import count_visible, draw_visible, visible_features, visible_tokens
from models.parts.losses import contrastive, draw_negatives, matching, selection_noise, similarities
from models.parts.losses_pretraining import feature_distance, mask_words, masked_word_loss
from models.protocols import EmbeddedVideo, ReadText, StateMatcher
from models.trained_protocols import Student, StudentModel, WordGuesser
from tasks.objectives.gathered import gathered_tokens
from tasks.objectives.momentum import by_turns
from tasks.objectives.teacher import FrozenTeacher
from tasks.step_counts import count_texts, mean_count
from tasks.transfer import sent

ABILITIES: dict[str, tuple[type, str]] = {
    "vtc": (StateMatcher, "keeps no states of texts; take objective.name=momentum"),
    "vtm": (StateMatcher, "keeps no states of texts; take objective.name=momentum"),
    "mlm": (WordGuesser, "guesses no masked words; leave it out"),
    "uta": (Student, "has no blocks that learn from a teacher; leave it out"),
}
"""What each loss asks of a model, and what a model without it is told."""
WORDS, PATCHES = 1, 2
"""Numbers that tell apart the draws of one step."""


class UnmaskedTeacherObjective(nn.Module):
    """The losses of a micro-batch, weighted, and scaled so that their mean over processes and micro-batches is right.

    Args:
        positives: with `row` only a video's own text is its positive (pre-training); with `index` all texts of the same
            video are (fine-tuning).
    """

    twin = None

    def __init__(
        self, model: StudentModel, objective: UnmaskedTeacherConfig, positives: Literal["row", "index"], seed: int
    ) -> None:
        super().__init__()
        for loss in objective.losses:
            protocol, lack = ABILITIES[loss]
            if not isinstance(model, protocol):
                raise ValueError(f"objective.losses: {loss!r}: this model {lack}")
        self.objective, self.positives, self.seed, self.step = objective, positives, seed, 0
        self.mask_id, self.num_words = getattr(model, "mask_id", -1), getattr(model, "num_words", 0)
        self.teacher = FrozenTeacher(objective.teacher) if "uta" in objective.losses else None
        model.freeze_unused(objective.losses)

    def holds(self) -> dict[str, nn.Module]:
        """The frozen teacher where there is one; it is no part of this module."""
        return {} if self.teacher is None else {"teacher": self.teacher.tower}

    def begin_step(
        self,
        model: StudentModel,
        step: int,
        epoch: float,
        batches: Sequence[dict[str, Any]],
        masks: Sequence[Tensor],
    ) -> None:
        """Prepare an optimizer step: clamp the temperature, count the texts, choose the words to guess.

        `masks` (B, S), on the CPU, are the text masks of the micro-batches. Counts, noise and the numbers of captions
        are added to the batches.
        """
        objective = self.objective
        if min(len(mask) for mask in masks) < 2 and "vtm" in objective.losses and objective.negatives == "same_rank":
            raise ValueError(
                "objective.negatives: same_rank leaves a micro-batch of one row a process no negative; make "
                "train.batch_size larger or train.accumulate smaller, or set objective.negatives=all"
            )
        model.clamp_temperature()
        self.step = step
        count_texts(batches, masks)

        if objective.same_captions == "together":
            for batch in batches:
                batch["caption"] = torch.tensor([number_of(text) for text in batch["text"]])

        if all("mlm" in batch.get("losses", objective.losses) for batch in batches):
            asked = []
            for batch, mask in zip(batches, masks, strict=True):
                shape = (len(mask) * world_size(), batch["longest_text"])
                noise = self._noise(WORDS, batch["part"], 3, *shape)[:, self._own(len(mask)), : mask.shape[1]]
                # Neither padding nor [CLS], which every text begins with, is ever chosen.
                allowed = mask.bool().clone()
                allowed[:, 0] = False
                asked.append(int(((noise[0] < objective.word_ratio) & allowed).sum()))
                batch["word_noise"], batch["allowed"] = noise, allowed
            mean_asked = max(mean_count(asked), 1 / len(batches))  # a step may ask for no word at all
            for batch in batches:
                batch["mean_asked"] = mean_asked

    def forward(self, model: StudentModel, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Compute the weighted losses, by name.

        `batch` holds `clip` with uint8 pixels (B, T, 3, H, W), `ids` and `mask` (B, S), `index` (B,), the video of each
        row, and what `begin_step` added. Its `losses`, if present, choose some of the objective's.
        """
        chosen = batch.get("losses", self.objective.losses)
        ids, mask = batch["ids"], batch["mask"]
        losses: dict[str, Tensor] = {}

        if "uta" in chosen:
            video, losses["uta"] = self._taught(model, batch)
        else:
            video = model.encode_video(batch["clip"].pixels)

        memory = Memory([])
        if {"vtm", "mlm"} & set(chosen):
            # Texts to match and texts to complete attend to the same keys and values: project them once.
            memory = model.project(video.tokens)

        if "vtc" in chosen:
            text = model.encode_text(ids, mask)
            positives_BG = self._positives(batch)
            keys = [all_gather_rows_with_grad(feature.embedding) for feature in (text, video)]
            similarity_BG = [
                similarities(query.embedding, key) / model.temp for query, key in zip((video, text), keys, strict=True)
            ]
            directions = [contrastive(one, one.detach(), positives_BG, alpha=0.0).mean() for one in similarity_BG]
            losses["vtc"] = (directions[0] + directions[1]) / 2
            if "vtm" in chosen:
                losses["vtm"] = self._matching(model, video, text, memory, similarity_BG, positives_BG, batch)

        if "mlm" in chosen:
            losses["mlm"] = self._masked_words(model, memory, batch)

        return {name: losses[name] * getattr(self.objective.weights, name) for name in losses}

    def _taught(self, model: StudentModel, batch: dict[str, Any]) -> tuple[EmbeddedVideo, Tensor]:
        """UTA: the video's features, of its visible patches alone, and how far they are from the teacher's."""
        assert self.teacher is not None, "there is a teacher where uta is a loss"
        pixels, settings = batch["clip"].pixels, self.objective.teacher
        teaching = self.teacher(pixels)
        ratio = settings.image_mask_ratio if pixels.shape[1] == 1 else settings.mask_ratio

        rows = self._own(len(pixels))
        shape = (len(pixels) * world_size(), *teaching.attention.shape[1:])
        noise = sent(self._noise(PATCHES, batch["part"], *shape)[rows], pixels.device)
        hidden_BTL = draw_visible(teaching.attention, ratio, noise)
        num_visible = count_visible(hidden_BTL.shape[-1], ratio)
        video, student = model.encode_visible(pixels, visible_tokens(hidden_BTL, num_visible))
        return video, feature_distance(student, visible_features(teaching.features, hidden_BTL, num_visible))

    def _positives(self, batch: dict[str, Any]) -> Tensor:
        """Which of the rows of all processes are of the same video, or have the same caption, (B, G) bool."""
        rows = len(batch["ids"])
        own = batch["index"]
        if self.positives == "row":
            own = torch.arange(rows, device=own.device) + rank() * rows
        positives = own[:, None] == all_gather_rows(own)[None]
        if self.objective.same_captions == "together":
            positives = positives | (batch["caption"][:, None] == all_gather_rows(batch["caption"])[None])
        return positives

    def _matching(
        self,
        model: StudentModel,
        video: EmbeddedVideo,
        text: ReadText,
        memory: Memory,
        similarity_BG: list[Tensor],
        positives_BG: Tensor,
        batch: dict[str, Any],
    ) -> Tensor:
        """VTM: match each pair, each video with a negative text, and each text with a negative video."""
        rows, mask, count = self._own(len(batch["ids"])), batch["mask"], len(batch["ids"])
        noise = sent(selection_noise(self.seed, self.step, batch["part"], count * world_size())[:, rows], mask.device)

        # Choose where negatives come from: all processes, or this one alone.
        tokens, states, masks = video.tokens, text.states, mask
        if self.objective.negatives == "same_rank":
            positives_BG, noise = positives_BG[:, rows], noise[:, :, rows]
            similarity_BG = [direction[:, rows] for direction in similarity_BG]
        elif world_size() > 1:
            padding = batch["longest_text"] - mask.shape[1]
            tokens = gathered_tokens(video)
            states = all_gather_rows_with_grad(F.pad(states, (0, 0, 0, padding)))
            masks = all_gather_rows(F.pad(mask, (0, padding)))

        # Draw hard negatives: the more similar, the likelier. Logarithms of weights never underflow, and a row without
        # any negative is not counted.
        text_row, has_text = draw_negatives(similarity_BG[0].detach(), positives_BG, noise[0], floor=0.0)
        video_row, has_video = draw_negatives(similarity_BG[1].detach(), positives_BG, noise[1], floor=0.0)
        if len(tokens) > count:
            drawn = model.project_once(tokens.index_select(0, video_row))
            own_states, own_mask = states[rows], masks[rows]
        else:
            drawn, own_states, own_mask = memory.rows(video_row), states, masks

        # One pass for 3B pairs: each own video with its own text and its negative text, then negative videos.
        logits = model.match_states(
            [(2 * count, memory), (count, drawn)],
            torch.cat([by_turns(own_states, states[text_row]), own_states]),
            torch.cat([by_turns(own_mask, masks[text_row]), own_mask]),
        )
        always, never = torch.ones_like(has_text), torch.zeros_like(has_text)
        matches = torch.cat([by_turns(always, never), never]).long()
        counted = torch.cat([by_turns(always, has_text), has_video])
        return matching(logits, matches, counted) * world_size() / all_reduce_sum(counted.sum())

    def _masked_words(self, model: StudentModel, memory: Memory, batch: dict[str, Any]) -> Tensor:
        """MLM: guess masked words given the others and the video; the mean over all words asked for in the step."""
        hidden, labels = mask_words(
            batch["ids"],
            batch["word_noise"],
            self.objective.word_ratio,
            batch["allowed"],
            self.mask_id,
            self.num_words,
        )
        logits = model.guess_words(memory, hidden, batch["mask"])
        return masked_word_loss(logits, labels, reduction="sum") / batch["mean_asked"]

    def _own(self, count: int) -> slice:
        """This process's rows among those of all, each process having `count`."""
        return slice(rank() * count, (rank() + 1) * count)

    def _noise(self, kind: int, part: int, *shape: int) -> Tensor:
        """Uniform noise on the CPU, a function of the seed, the step, its part and the kind of draw alone."""
        mixed = ((self.seed * 1_000_003 + self.step) * 1_009 + part) * 7 + kind
        return torch.rand(shape, generator=torch.Generator().manual_seed(mixed % 2**63))


def number_of(text: str) -> int:
    """A number that equal texts share, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)
