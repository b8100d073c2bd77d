"""Question answering: an encoder reads the question against the video, a decoder ranks or writes the answer.

The decoder attends to the states of the question alone, not to the video (BLIP's and TESTA's way).
Shapes: B questions, S question tokens, A answers of a list, D width.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from configs.schema import RunConfig, VqaConfig
from datasets.annotations import answer_list
from datasets.loaders import TrainLoader
from datasets.records import QuestionRecord
from datasets.remote.addresses import shown
from datasets.video_text import VideoTextDataset
from engine.checkpoint_folder import read_json, write_json, write_lines
from engine.distributed import gather_objects
from models.protocols import FirstTokenAnswerer
from tasks.annotations import Split, read_annotations
from tasks.base import VideoTextTask
from tasks.build import beside_checkpoint
from tasks.clips import clip_tokens
from tasks.data import clean_up, video_text
from tasks.folders import root_folder
from tasks.metrics.answers import accuracies, accuracy_names, are_right, count_answers, coverage, percent
from tasks.outcomes import answer_outcomes, with_intervals
from tasks.step_counts import mean_count

logger = logging.getLogger(__name__)
QUESTION_TOKENS = 35
"""The most word pieces of a question where `data.max_tokens` does not say."""
ANSWERS = "answers.json"
FIRST_TOKEN = "accuracy_first_token"
"""Counts answers whose first token is right: as STOA-VLP's was published, and more than its answers deserve."""
AT_ONCE = 256
"""Questions about one video that are read together, and answers that are tokenized together."""


@dataclass(frozen=True)
class AnswerList:
    """Answers that the tokenizer tells apart: their texts, ids and mask (A, S)."""

    texts: list[str]
    ids: Tensor
    mask: Tensor


class Predicted(NamedTuple):
    """A predicted answer, and its first token where the model predicts that of the whole vocabulary."""

    text: str
    first_token: int | None


def question_tokens(config: RunConfig) -> int:
    """The most word pieces of a question."""
    return config.data.max_tokens or QUESTION_TOKENS


class VqaTask(VideoTextTask):
    """TESTA's fine-tuning for question answering: the weighted cross-entropy of the annotators' answers."""

    config: VqaConfig
    mean_questions: float
    """The mean number of questions per micro-batch in the current step."""

    def __init__(self, config: VqaConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.best_metric: str | None = config.evaluation.best_metric
        self.evaluation = config.evaluation
        self.question_tokens = question_tokens(config)
        self.model.freeze_unused(("vqa",))
        self.start_from_checkpoint()
        # Read it now: checkpoint rotation may delete the folder we resume from.
        known = beside_checkpoint(config, ANSWERS)
        self._known: dict[str, int] | None = None if known is None else read_json(known)

    def training_texts(self) -> Iterable[str]:
        """The cleaned questions, and the answers."""
        records, clean = self.split("train").present, clean_up(self.config)
        for record in records:
            yield clean(record.question)
            yield from record.answers

    def build_train_loader(self) -> TrainLoader:
        """The questions in batches; their answers replace the answer list of any checkpoint the run started from."""
        self._known = count_answers(self.split("train").present)
        loader = super().build_train_loader()
        names = accuracy_names(self.evaluated(final=False).present)
        names += [FIRST_TOKEN] if isinstance(self.model, FirstTokenAnswerer) else []
        if self.best_metric not in names:  # fail now, not after the first epoch
            raise ValueError(
                f"evaluation.best_metric: no metric is named {self.best_metric}, as no evaluated question is of that "
                f"type; there are {', '.join(names)}"
            )
        return loader

    def training_samples(self) -> VideoTextDataset:
        """A sample for each question, or one for each video with all of its questions."""
        return video_text(
            self.config, self.split("train").present, training=True, texts=self.config.objective.questions
        )

    def train_epoch(self, epoch: int, first_step: int) -> Iterator[dict[str, Any]]:
        """The micro-batches: their texts are questions, and all answers to them are added."""
        records: list[QuestionRecord] = self.split("train").present
        for batch in super().train_epoch(epoch, first_step):
            asked = [records[row] for row in batch["row"].tolist()]
            yield {**batch, **answers_of(asked, self.config.objective.weights == "shares")}

    def begin_step(self, step: int, epoch: float, batches: Sequence[dict[str, Any]]) -> None:
        """Count the questions of an optimizer step before its first forward pass."""
        super().begin_step(step, epoch, batches)
        self.mean_questions = mean_count([len(batch["text"]) for batch in batches])

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The weighted cross-entropy of all answers, summed over tokens, divided by the step's number of questions."""
        ids, mask = self.tokenize(batch["text"], self.question_tokens)
        # With one question a video, question i belongs to video i, and no keys and values need to be copied.
        about = None if self.config.objective.questions == "one" else batch["text_sample"]
        states = self.model.ground_text(clip_tokens(self.model, batch["clip"]), ids, mask, about)

        answer_ids, answer_mask = self.tokenize(batch["answers"])
        asked = batch["asked"]
        # Not `states[asked]`: with several CPU threads its gradient sums rows in no fixed order.
        states_of_answers = states.index_select(0, asked)
        losses = self.model.context_loss(states_of_answers, answer_ids, answer_mask, mask[asked])
        return {"vqa": (batch["weights"] * losses).sum() / self.mean_questions}

    def evaluate(self, final: bool) -> dict[str, Any]:
        """Accuracy, the accuracy of always giving the commonest training answer, and the coverage of the answer list.

        A ranked answer must equal an annotator's letter for letter; for a written answer both are compared as the
        tokenizer spells them. Questions about missing or unreadable videos are skipped.
        """
        split, known = self.evaluated(final), self.known_answers()
        ranking = self.evaluation.inference == "rank"
        listed = self.answer_list(self.closed_list(split)) if ranking else None

        data = video_text(self.config, split.present, training=False)
        failed: list[dict[str, str]] = []
        predicted = self._predict(data, listed, failed)
        texts = {row: answer.text for row, answer in predicted.items()}

        answered = [split.present[row] for row in sorted(predicted)]
        clips = {(record.video, record.start, record.end) for record in answered}
        description = self.described(final, len(clips), len(answered), failed)

        given = [texts[row] for row in sorted(texts)]
        spelling = str if ranking else self.as_spelled
        majority = [next(iter(known))] * len(answered)
        metrics = accuracies(answered, given, spelling)
        metrics["majority_accuracy"] = accuracies(answered, majority, spelling)["accuracy"]
        if listed is not None:
            metrics["answer_list_coverage"] = coverage(answered, listed.texts, spelling)

        right = {"accuracy": are_right(answered, given, spelling)}
        if isinstance(self.model, FirstTokenAnswerer):
            tokens = [predicted[row].first_token for row in sorted(predicted)]
            right[FIRST_TOKEN] = [
                token in self._first_tokens(record) for token, record in zip(tokens, answered, strict=True)
            ]
            metrics[FIRST_TOKEN] = percent(right[FIRST_TOKEN])

        result = {
            "metrics": metrics,
            **description,
            "answers": self.evaluation.answers if ranking else "generated",
            "num_answers": None if listed is None else len(listed.texts),
            "files": {"predictions.jsonl": partial(write_lines, predictions(answered, given))},
        }
        return with_intervals(result, {"questions": answer_outcomes(answered, right, self.config.data.root)})

    def _first_tokens(self, record: QuestionRecord) -> set[int]:
        """The tokens that the annotators' answers begin with."""
        return set(self.tokenizer(list(record.answers))[0][:, 1].tolist())

    def closed_list(self, split: Split) -> list[str]:
        """The answers to rank, as `evaluation.answers` says."""
        if self.evaluation.answer_file is not None:
            return answer_list.read(root_folder(self.config), self.evaluation.answer_file)
        own = self.evaluation.answers == "evaluated_split"
        return list(count_answers(split.annotations.records) if own else self.known_answers())

    def known_answers(self) -> dict[str, int]:
        """The answers that the model was trained on, with their counts, commonest first.

        They come from this run's training set or from the checkpoint's list. A checkpoint made elsewhere has no list;
        then the answers of the configured training set are counted.
        """
        if self._known is None:
            self._known = count_answers(read_annotations(self.config, "train").records)
        return self._known

    def answer_list(self, texts: list[str]) -> AnswerList:
        """The texts in their order; a text with the same token ids as an earlier one is dropped."""
        rows: dict[tuple[int, ...], str] = {}
        for first in range(0, len(texts), AT_ONCE):
            part = texts[first : first + AT_ONCE]
            for text, ids, mask in zip(part, *(tensor.tolist() for tensor in self.tokenize(part)), strict=True):
                rows.setdefault(tuple(ids[: sum(mask)]), text)
        ids, mask = self.tokenize(list(rows.values()))
        return AnswerList(list(rows.values()), ids, mask)

    def as_spelled(self, text: str) -> str:
        """The text in lower case with the tokenizer's spacing: `ice-cream` becomes `ice - cream`."""
        return self.tokenizer.decode(self.tokenize([text.lower()])[0])[0]

    def save_extras(self, folder: Path) -> None:
        """Save the tokenizer, and the answers with their counts, beside the weights."""
        super().save_extras(folder)
        write_json(folder / ANSWERS, self.known_answers())

    def _predict(
        self, data: VideoTextDataset, listed: AnswerList | None, failed: list[dict[str, str]]
    ) -> dict[int, "Predicted"]:
        """The predicted answer to each question, by row, from all processes; each video is encoded once."""
        questions = data.captions
        rows_of: list[list[int]] = [[] for _ in range(len(data))]
        for row, video in enumerate(data.caption_video):
            rows_of[video].append(row)

        predicted: dict[int, Predicted] = {}
        for positions, clips in self.each_clip(data, self.evaluation.batch_size, failed):
            tokens = clip_tokens(self.model, clips)
            rows = [row for position in positions for row in rows_of[position]]

            states, masks = [], []
            for place, position in enumerate(positions):
                for first in range(0, len(rows_of[position]), AT_ONCE):
                    asked = [questions[row] for row in rows_of[position][first : first + AT_ONCE]]
                    ids, mask = self.tokenize(asked, self.question_tokens)
                    # All questions about a video attend to the same keys and values, which are computed once.
                    states.append(self.model.ground_text(tokens[place : place + 1], ids, mask))
                    masks.append(mask)

            read, seen = padded(states), padded(masks)
            tokens_of: list[int | None] = [None] * len(rows)
            if isinstance(self.model, FirstTokenAnswerer):
                tokens_of = [token for part in read.split(AT_ONCE) for token in self.model.first_tokens(part).tolist()]
            answers = map(Predicted, self.answers_to(read, seen, listed), tokens_of)
            predicted.update(zip(rows, answers, strict=True))

        return {row: answer for part in gather_objects(predicted) for row, answer in part.items()}

    def answers_to(self, states: Tensor, mask: Tensor, listed: AnswerList | None) -> list[str]:
        """The answer to each question, from its states (B, S, D): ranked from the list, or written without one."""
        settings = self.evaluation
        answers: list[str] = []
        for part, seen in zip(states.split(AT_ONCE), mask.split(AT_ONCE), strict=True):
            if listed is None:
                ids = self.model.generate(part, seen, num_beams=settings.num_beams, max_tokens=settings.max_tokens)
                answers += self.tokenizer.decode(ids)
            else:
                best = self.model.answer(part, seen, listed.ids, listed.mask, settings.shortlist)
                answers += [listed.texts[place] for place in best.tolist()]
        return answers


def answers_of(questions: Sequence[QuestionRecord], as_shares: bool = False) -> dict[str, Any]:
    """All answers to the questions with their weights; `asked` holds the question that each answer belongs to.

    The weights of a question's answers are the records', or, `as_shares`, sum to 1.
    """
    weights = []
    for question in questions:
        total = sum(question.weights) if as_shares else 1.0
        weights += [weight / total for weight in question.weights]
    return {
        "answers": [answer for question in questions for answer in question.answers],
        "weights": torch.tensor(weights),
        "asked": torch.tensor([place for place, question in enumerate(questions) for _ in question.answers]),
    }


def padded(parts: list[Tensor]) -> Tensor:
    """Concatenate tensors (B, S, ...) of several lengths S along B, padding the shorter ones with zeros."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, 0) * (part.dim() - 2) + (0, longest - part.shape[1])) for part in parts])


def predictions(records: list[QuestionRecord], given: list[str]) -> list[dict[str, Any]]:
    """The rows of predictions.jsonl."""
    return [
        {
            "question_id": record.question_id,
            "video": shown(record.video),
            "question": record.question,
            "answers": list(record.answers),
            "predicted": text,
        }
        for record, text in zip(records, given, strict=True)
    ]
