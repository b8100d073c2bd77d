"""Captioning: a decoder attends to the video's tokens and describes what is seen."""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.schema import CaptionConfig
from datasets.loaders import TrainLoader
from datasets.records import VideoTextRecord
from datasets.remote.addresses import shown
from datasets.sampling import generator
from datasets.video_text import VideoTextDataset
from engine.checkpoint_folder import BEST, STATE, find_folder, read_json, write_json, write_lines
from engine.distributed import done_by_main, gather_objects
from models.trained_protocols import TakesLosses
from tasks.annotations import Split, read_annotations
from tasks.base import VideoTextTask
from tasks.build import beside_checkpoint
from tasks.clips import clip_tokens, encode_clip
from tasks.data import clean_up, video_text
from tasks.metrics.captions import PLAIN, CaptionScorer, CaptionScores, JavaError
from tasks.outcomes import caption_outcomes, with_intervals
from tasks.processes import all_processes
from tasks.step_counts import count_texts

logger = logging.getLogger(__name__)
LENGTH = "captions.json"
TEXTS_AT_ONCE = 256


class CaptionTask(VideoTextTask):
    """Fine-tuning to write captions, with the same cross-entropy per token as pre-training."""

    config: CaptionConfig

    def __init__(self, config: CaptionConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.best_metric: str | None = config.evaluation.best_metric
        self.evaluation = config.evaluation
        self.contrasts = config.objective.contrast
        if self.contrasts and not isinstance(self.model, TakesLosses):
            raise ValueError(
                f"objective.contrast: {config.model.name} has no text tower beside the one that writes; set it to false"
            )
        self.model.freeze_unused(("cap", "vtc") if self.contrasts else ("cap",))
        self.start_from_checkpoint()
        self.scorer: CaptionScorer | None = None
        # Read it now: checkpoint rotation may delete the folder we resume from.
        known = beside_checkpoint(config, LENGTH)
        self._longest: int | None = None if known is None else read_json(known)["max_tokens"]

        most, asked = config.model.most_tokens, config.evaluation.max_tokens
        if asked is not None and asked > most:
            raise ValueError(f"evaluation.max_tokens: {asked} is more than the {most} tokens of the model's texts")

    def build_train_loader(self) -> TrainLoader:
        """The captions in batches; from now on `longest_caption` is measured on them."""
        self._longest = self._longest_of(self.training_texts())
        loader = super().build_train_loader()
        self._check_labelled(self.evaluated(final=False))
        self._check_labelled(self.evaluated(final=True))  # fail now, not after training
        self._choose_scorer(self._best_so_far())
        return loader

    def _choose_scorer(self, best_so_far: str | None) -> None:
        """Decide, once for all evaluations and processes, whether captions are scored with Java.

        `best_so_far` is the metric that chose the best weights before the run resumed; a resumed run keeps that choice.
        """
        self.scorer = CaptionScorer()
        self.scorer.plain = done_by_main(partial(scores_plainly, self.scorer, self.evaluation.best_metric, best_so_far))
        name = self.evaluation.best_metric.removesuffix(PLAIN)
        self.best_metric = f"{name}{PLAIN}" if self.scorer.plain else name

    def _best_so_far(self) -> str | None:
        """The metric that chose `checkpoint_best` of the output folder, if there is one."""
        best = find_folder(Path(self.config.output_dir) / BEST) if self.config.output_dir is not None else None
        return None if best is None else read_json(best / STATE)["best_metric"]

    @staticmethod
    def _check_labelled(split: Split) -> None:
        if not split.annotations.labelled:
            raise ValueError(
                f"{split.annotations.source}: which text is of which video is not public, so nothing can be scored; "
                "name another data.eval_split or data.test_split"
            )

    def begin_step(self, step: int, epoch: float, batches: Sequence[dict[str, Any]]) -> None:
        """Prepare an optimizer step before its first forward pass: tokenize the captions and count their tokens."""
        super().begin_step(step, epoch, batches)
        count_texts(batches, self.tokenize_step(batches))
        self.step = step
        if self.contrasts:
            self.model.clamp_temperature()

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The mean loss of a token over all captions of the step, on all processes, and perhaps contrast."""
        if not self.contrasts:
            losses = self.model.context_loss(clip_tokens(self.model, batch["clip"]), batch["ids"], batch["mask"])
            return {"cap": losses.sum() / batch["mean_tokens"]}

        video = encode_clip(self.model, batch["clip"])
        losses = self.model.context_loss(video.tokens, batch["ids"], batch["mask"])
        contrast = self.model.take_losses(
            ("vtc",),
            video,
            batch["ids"],
            batch["mask"],
            None,
            seed=self.config.seed,
            step=self.step,
            part=batch["part"],
            contrast_reaches_frames=True,
            videos_of_rows=batch["index"],
            processes=all_processes(),
        )
        return {"cap": losses.sum() / batch["mean_tokens"], **contrast}

    def evaluate(self, final: bool) -> dict[str, Any]:
        """Caption every readable video and score each caption against all captions of its video."""
        split = self.evaluated(final)
        self._check_labelled(split)
        if self.scorer is None:
            self._choose_scorer(best_so_far=None)

        data = video_text(self.config, split.present, training=False)
        failed: list[dict[str, str]] = []
        settings = self.generation()
        written = self._write(data, settings, failed)

        shown = [split.present[position] for position in sorted(written)]
        description = self.described(final, len(shown), sum(len(record.captions) for record in shown), failed)
        texts = [written[position] for position in sorted(written)]

        # Score on the main process alone, so that only one Java machine starts, and share the result.
        scores = done_by_main(partial(self._score, texts, [record.captions for record in shown]))

        result = {
            "metrics": scores.metrics,
            **description,
            "generation": settings,
            "files": {"predictions.jsonl": partial(write_lines, predictions(shown, texts))},
        }
        return with_intervals(result, {"videos": caption_outcomes(shown, scores.each, self.config.data.root)})

    def _score(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
        """The metrics; ValueError if Java worked when the run began and now fails."""
        assert self.scorer is not None
        try:
            return self.scorer.score(texts, references)
        except JavaError as error:
            name = self.evaluation.best_metric
            without = "cider" if name == "meteor" else name
            raise ValueError(
                f"{error}, although Java ran when this began; mend it and give the same command, which evaluates "
                f"again, or score without Java: evaluation.best_metric={without}{PLAIN}"
            ) from error

    def longest_caption(self) -> int:
        """The length of the longest training caption in word pieces, including the end token.

        It comes from this run's training set or from the checkpoint. A checkpoint made elsewhere does not record it;
        then the configured training set is read.
        """
        if self._longest is None:
            self._longest = self._longest_of(self.annotated_texts())
        return self._longest

    def save_extras(self, folder: Path) -> None:
        """Save the tokenizer and the length of the longest caption beside the weights."""
        super().save_extras(folder)
        write_json(folder / LENGTH, {"max_tokens": self.longest_caption()})

    def annotated_texts(self) -> list[str]:
        """All training captions, cleaned, including captions of missing videos."""
        clean = clean_up(self.config)
        return [clean(text) for record in read_annotations(self.config, "train").records for text in record.captions]

    def _longest_of(self, texts: Iterable[str]) -> int:
        texts = list(texts)
        parts = (texts[first : first + TEXTS_AT_ONCE] for first in range(0, len(texts), TEXTS_AT_ONCE))
        return max(self.tokenize(part)[0].shape[1] for part in parts) - 1  # [CLS] is not written

    def generation(self) -> dict[str, Any]:
        """All generation settings, as results.json records them."""
        asked = self.evaluation
        most = self.longest_caption() if asked.max_tokens is None else asked.max_tokens
        way = {"num_beams": asked.num_beams} if asked.method == "beam" else {"top_p": asked.top_p}
        return {"method": asked.method, **way, "min_tokens": asked.min_tokens, "max_tokens": most}

    def _write(self, data: VideoTextDataset, settings: dict[str, Any], failed: list[dict[str, str]]) -> dict[int, str]:
        """The captions that all processes wrote, by video position."""
        arguments = {name: value for name, value in settings.items() if name != "method"}
        written: dict[int, str] = {}
        for positions, clips in self.each_clip(data, self.evaluation.batch_size, failed):
            tokens = clip_tokens(self.model, clips)
            noise = self.noise(positions, settings["max_tokens"]) if settings["method"] == "nucleus" else None
            ids = self.model.generate(tokens, noise=noise, **arguments)
            written.update(zip(positions, self.tokenizer.written(ids), strict=True))
        return {position: text for part in gather_objects(written) for position, text in part.items()}

    def noise(self, positions: list[int], max_tokens: int) -> Tensor:
        """Random numbers (B, max_tokens) that choose the words; fixed by the seed and the video's position."""
        rows = [generator("words", self.config.seed, 0, position).random(max_tokens) for position in positions]
        return torch.from_numpy(np.stack(rows)).to(self.device)


def scores_plainly(scorer: CaptionScorer, best_metric: str, best_so_far: str | None) -> bool:
    """Whether to score without Java: because the user asks, because the resumed run did, or because Java fails.

    ValueError if Java fails and the run needs it: it chose the best weights so far, or `best_metric` is METEOR.
    """
    if best_metric.endswith(PLAIN):
        return True
    if best_so_far == f"{best_metric}{PLAIN}":
        logger.info("%s chose checkpoint_best before: captions are still scored without Java", best_so_far)
        return True

    trouble = scorer.why_not_java()
    if trouble is None:
        return False

    # Java fails: fall back to the plain metrics, unless that would change what chooses the best weights.
    if best_metric == "meteor":
        raise ValueError(f"evaluation.best_metric: meteor needs Java: {trouble}; mend that or take cider")
    if best_so_far == best_metric:
        raise ValueError(
            f"evaluation.best_metric: {best_metric}, which chose checkpoint_best before, needs Java: {trouble}; mend "
            f"that, or choose by evaluation.best_metric={best_metric}{PLAIN} from now on"
        )

    logger.warning(
        "%s: captions are split into words plainly, METEOR is left out, and metrics end in %s", trouble, PLAIN
    )
    return True


def predictions(records: list[VideoTextRecord], texts: list[str]) -> list[dict[str, Any]]:
    """The rows of predictions.jsonl."""
    return [
        {"video": shown(record.video), "captions": list(record.captions), "predicted": text}
        for record, text in zip(records, texts, strict=True)
    ]
