"""The `evaluation` section of each task that has one."""

import re
from dataclasses import dataclass
from typing import Literal

SameCaptions = Literal["apart", "together"]
TokenChoice = Literal["spread", "text"]
BY_QUERY = "_by_query"
"""The end of the names of rules that match all candidates of a query in one call."""
HIGHER_IS_BETTER = ("r1", "r5", "r10", "r50", "mean_recall", "geometric_mean")
"""Metrics of retrieval by which the best weights can be chosen."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Retrieval evaluation: matching rescores the `rerank` best candidates of each query (0: rank by cosine alone).

    `rerank_rule` names a rule in `tasks.reranking_rules.RULES`; `logit_plus_cosine` is TESTA's. A video is matched with
    `rerank_batch_size` texts at a time, and rarely with more than twice `rerank` in all; a rule whose name ends in
    `_by_query` matches all candidates of a query in one call, as STOA-VLP's published weights need.

    With `rerank_tokens` below 1 texts are matched with that share of a video's tokens alone, which takes less time and
    changes scores. By `rerank_choice` they are `spread` over the video, the same for all texts, or those most like each
    `text`, by cosine in the shared space; docs/REDUCERS.md tells what either loses.

    `same_captions` is for captions that several videos share word for word: `apart` makes each a query for its own
    video; `together` makes them one query that may find any of these videos (Something-Something V2's protocol).
    `predictions` is how many of the best videos of each text predictions.jsonl lists; 0 writes none.

    `dual_softmax` adds metrics that end in `_dual_softmax`: each similarity times its softmax over all queries, at
    `dual_softmax_temperature`. It looks at all queries at once, so it is no search for one text.

    With `windows` above 1 a video's embedding is the mean over sliding windows: clips whose frames begin at the start
    of each of `video.num_frames` intervals, and then lie further on. Windows lie `window_stride` frames apart, as many
    as fit and at most `windows`; without a stride they spread evenly. A worker reads all windows of a video at once.
    """

    batch_size: int = 8
    rerank: int = 128
    rerank_rule: str = "logit_plus_cosine"
    rerank_batch_size: int = 256
    rerank_tokens: float = 1.0
    rerank_choice: TokenChoice = "spread"
    same_captions: SameCaptions = "apart"
    dual_softmax: bool = False
    dual_softmax_temperature: float = 0.01
    windows: int = 1
    window_stride: int | None = None
    predictions: int = 0
    best_metric: str = "t2v_mean_recall"

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1), ("rerank", 0), ("rerank_batch_size", 1), ("windows", 1), ("predictions", 0)
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"evaluation.{name}: {getattr(self, name)} is less than {least}")
        if not 0 < self.rerank_tokens <= 1:
            raise ValueError(f"evaluation.rerank_tokens: {self.rerank_tokens} is not a share in (0, 1]")
        for name in ("rerank_batch_size", "rerank_rule", "rerank_tokens"):
            if not self.rerank and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"evaluation.{name}: has no effect with evaluation.rerank 0")
        if self.rerank_tokens == 1 and self.rerank_choice != type(self).rerank_choice:
            raise ValueError("evaluation.rerank_choice: has no effect with all tokens; set evaluation.rerank_tokens")
        self._check_dual_softmax()
        self._check_windows()

        # Higher must be better, so neither the median nor the mean rank can choose a checkpoint.
        if not re.fullmatch(f"(t2v|v2t)_({'|'.join(HIGHER_IS_BETTER)})(_cosine|_dual_softmax)?", self.best_metric):
            known = ", ".join(f"t2v_{name}" for name in HIGHER_IS_BETTER)
            raise ValueError(
                f"evaluation.best_metric: {self.best_metric!r} is none of {known}, "
                "the same with v2t, and each of them with _cosine or _dual_softmax at its end"
            )
        if self.best_metric.endswith("_dual_softmax") and not self.dual_softmax:
            raise ValueError(f"evaluation.best_metric: {self.best_metric!r} needs evaluation.dual_softmax=true")

    def _check_dual_softmax(self) -> None:
        """Refuse a temperature without effect or meaning, and reranking, whose logits belong to the cosine's best."""
        if not self.dual_softmax and self.dual_softmax_temperature != type(self).dual_softmax_temperature:
            raise ValueError("evaluation.dual_softmax_temperature: has no effect without evaluation.dual_softmax")
        if self.dual_softmax_temperature <= 0:
            raise ValueError(f"evaluation.dual_softmax_temperature: {self.dual_softmax_temperature} is not above 0")
        if self.dual_softmax and self.rerank:
            raise ValueError(
                "evaluation.dual_softmax: ranks by cosine alone, so it does not go with reranking; set "
                "evaluation.rerank=0"
            )

    def check_rule(self, objective: str, by_query: bool) -> None:
        """Refuse a rule that matches pair by pair what an objective trains to match by query, or the reverse."""
        rule = self.rerank_rule
        if self.rerank and by_query != rule.endswith(BY_QUERY):
            remedy = "take scaled_probability_by_query" if by_query else f"take {rule.removesuffix(BY_QUERY)}"
            raise ValueError(
                f"evaluation.rerank_rule: {rule} matches {'pair by pair' if by_query else 'query by query'}, and "
                f"objective {objective} trains a match of {'a whole batch' if by_query else 'each pair'}; {remedy}, or "
                "set evaluation.rerank=0"
            )

    def _check_windows(self) -> None:
        """Refuse a stride without effect, and reranking, which matches a text with the tokens of one clip."""
        if self.window_stride is not None and self.window_stride < 1:
            raise ValueError(f"evaluation.window_stride: {self.window_stride} is less than 1 frame")
        if self.window_stride is not None and self.windows == 1:
            raise ValueError(
                "evaluation.window_stride: has no effect with a single window; set evaluation.windows to the most "
                "that a video may have"
            )
        if self.windows > 1 and self.rerank:
            raise ValueError(
                "evaluation.windows: averages embeddings, and matching needs the tokens of one clip; set "
                "evaluation.rerank=0, or evaluation.windows=1"
            )


@dataclass(frozen=True, kw_only=True)
class SortingEvaluationConfig:
    """Evaluation of pre-training by the sorting of held-out transcripts.

    `segments: permuted` shows each clip's segments in another order and keeps the labels: a model that looks at the
    video then falls below chance. `batch_size` is of one process.
    """

    batch_size: int = 8
    segments: Literal["in_order", "permuted"] = "in_order"
    best_metric: Literal["sort_all", "sort_accuracy"] = "sort_all"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"evaluation.batch_size: {self.batch_size} is less than 1")


RANKING, GENERATING = ("answers", "answer_file", "shortlist"), ("num_beams", "max_tokens")
"""Settings of `AnsweringConfig` that apply to only one kind of inference."""


@dataclass(frozen=True, kw_only=True)
class AnsweringConfig:
    """Evaluation of question answering: `rank` a list of answers, or `generate` one by beam search.

    `answers: train` ranks the answers of the training split. `answers: evaluated_split` ranks the answers of the
    evaluated questions, which is the release's protocol and gives the answers away. `answers: file` ranks those of
    `answer_file`, a JSON list below `data.root` (UMT's). The first word preselects the `shortlist` likeliest answers.
    `batch_size` counts videos.
    """

    batch_size: int = 8
    inference: Literal["rank", "generate"] = "rank"
    answers: Literal["train", "evaluated_split", "file"] = "train"
    answer_file: str | None = None
    shortlist: int = 128
    num_beams: int = 3
    max_tokens: int = 10
    best_metric: str = "accuracy"

    def __post_init__(self) -> None:
        for name in ("batch_size", "shortlist", "num_beams", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name}: {getattr(self, name)} is less than 1")
        if not re.fullmatch("accuracy(_[a-z0-9_]+)?", self.best_metric):
            raise ValueError(
                f"evaluation.best_metric: {self.best_metric!r} is neither accuracy nor accuracy_ and a type of question"
            )
        for name in RANKING if self.inference == "generate" else GENERATING:
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"evaluation.{name}: has no effect with evaluation.inference {self.inference}")
        if (self.answers == "file") != (self.answer_file is not None):
            raise ValueError("evaluation.answer_file: goes with evaluation.answers file, and that with it; give both")

    @staticmethod
    def inherited(lower: dict, higher: dict) -> dict:
        """The settings of a lower layer that survive a higher one: those that its kind of inference uses."""
        inference = higher.get("inference", lower.get("inference", "rank"))
        dropped = RANKING if inference == "generate" else GENERATING
        return {name: value for name, value in lower.items() if name not in dropped}


@dataclass(frozen=True, kw_only=True)
class CaptioningConfig:
    """Evaluation of captioning: `beam` search, or `nucleus` sampling from the likeliest words with total mass `top_p`.

    A caption has at most `max_tokens` word pieces, by default as many as the longest training caption. `best_metric`
    chooses the checkpoint. A `_plain` metric needs no Java. If Java does not run when training begins, the other
    metrics fall back to their `_plain` form.
    """

    batch_size: int = 8
    method: Literal["beam", "nucleus"] = "beam"
    num_beams: int = 3
    top_p: float = 0.9
    min_tokens: int = 1
    max_tokens: int | None = None
    best_metric: Literal[
        "bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider",
        "bleu1_plain", "bleu2_plain", "bleu3_plain", "bleu4_plain", "rouge_l_plain", "cider_plain",
    ] = "cider"  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_beams", "min_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name}: {getattr(self, name)} is less than 1")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"evaluation.top_p: {self.top_p} is not in (0, 1]")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise ValueError(
                f"evaluation.max_tokens: {self.max_tokens} is less than evaluation.min_tokens {self.min_tokens}"
            )
        other = "num_beams" if self.method == "nucleus" else "top_p"
        if getattr(self, other) != getattr(type(self), other):
            raise ValueError(f"evaluation.{other}: has no effect with evaluation.method {self.method}")


@dataclass(frozen=True, kw_only=True)
class ChoosingConfig:
    """Evaluation of multiple choice: each video's options are scored, and the best one is the answer.

    The score is `matching` times the probability that the option matches the video, plus 1 - `matching` times its share
    of the softmax over the options' similarities. With 0 nothing is matched, with 1 nothing is compared; UMT takes 0.7.
    """

    batch_size: int = 8
    matching: float = 0.7

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"evaluation.batch_size: {self.batch_size} is less than 1")
        if not 0 <= self.matching <= 1:
            raise ValueError(f"evaluation.matching: {self.matching} is not a share from 0 to 1")
