"""Reranking with a share of each video's tokens, chosen by the text, against choosing and matching pair by pair."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.aggregation import AggregationConfig
from configs.evaluation import TokenChoice
from engine.loop import evaluate
from tasks.chosen_tokens import TokenShare, match_share, spread_places
from tasks.data import video_text
from tasks.pair_matching import PairMatcher
from tasks.reranking_rules import logit_of
from tasks.retrieval import RetrievalTask
from tasks.tokenized_texts import TokenizedTexts
from tests.gloo import run_ranks
from tests.models import tiny
from tests.models.runs import BY_THRESHOLD, clips_of_runs
from tests.models.test_ragged_models import model_of
from tests.models.tiny import randomise
from tests.tiny_runs import caption, config, write_data

CPU = torch.device("cpu")
CAPTIONS = [1, 2, 1, 3, 1]
LENGTHS = (9, 4, 6, 2, 9, 5)
BY_TEXT = TokenShare(0.25, "text")
MERGED = AggregationConfig(reducer="tome", tokens_per_block=3)
CASES = {
    "testa, divided, ragged": ("testa divided", BY_THRESHOLD),
    "testa, joint, ragged": ("testa joint", BY_THRESHOLD),
    "testa, joint, merged": ("testa joint", MERGED),
    "umt, ragged": ("umt", BY_THRESHOLD),
    "umt, merged": ("umt", MERGED),
}


def matched_by_hand(model: Any, tokens_1ND: Tensor, ids: Tensor, mask: Tensor, some: TokenShare) -> float:
    """The logit of one pair, of a video that has the chosen tokens and no others."""
    kept = chosen_by_hand(model, tokens_1ND, ids, mask, some.share)
    if some.choice == "spread":
        kept = spread_by_hand(tokens_1ND.shape[1], len(kept))
    return float(model.match(tokens_1ND[:, kept], ids, mask)[0, 1])


def spread_by_hand(num_tokens: int, most: int) -> list[int]:
    """One token of each run of neighbours, at a place that turns by 159/256 of the run from one to the next."""
    kept = []
    for run in range(most):
        neighbours = range(run * num_tokens // most, (run + 1) * num_tokens // most)
        kept.append(neighbours[int(len(neighbours) * (run * 159 / 256 % 1))])
    return kept


def chosen_by_hand(model: Any, tokens_1ND: Tensor, ids: Tensor, mask: Tensor, share: float) -> list[int]:
    """The places of the tokens that are most like a text."""
    text = model.encode_text(ids, mask).embedding[0].tolist()
    cosines = []
    for token in tokens_1ND[0]:
        projected = model.project_tokens(token).tolist()
        cosines.append(sum(one * other for one, other in zip(projected, text, strict=True)))
    order = sorted(range(len(cosines)), key=lambda place: (-cosines[place], place))
    return sorted(order[: max(1, round(share * len(order)))])


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_a_share_is_what_a_video_of_the_chosen_tokens_alone_gives(case: str) -> None:
    model, video = model_of(*CASES[case]), clips_of_runs()
    ids, mask = tiny.texts(LENGTHS)
    texts = TokenizedTexts(["a text"] * len(ids), lambda part: (ids, mask), 0)
    embeddings = model.encode_text(ids, mask).embedding.double().numpy()
    stored = model.encode_video(video).tokens
    alone = [model.encode_video(one.unsqueeze(0)).tokens for one in video]
    if "ragged" in case:
        assert len({tokens.shape[1] for tokens in alone}) > 1

    everyone = np.arange(len(ids))
    reads = {row: stored[row].unsqueeze(0).clone for row in range(len(video))}
    for some in (TokenShare(0.01, "text"), BY_TEXT, TokenShare(0.7, "text"), TokenShare(0.01), TokenShare(0.7)):
        rows = [(ids[text : text + 1], mask[text : text + 1]) for text in range(len(ids))]
        expected = [[matched_by_hand(model, tokens, *row, some) for row in rows] for tokens in alone]
        for batch_size in (1, 4, 256):
            matcher = PairMatcher(model, logit_of, texts, CPU, batch_size, some, embeddings)
            found = matcher.match_all(reads, lambda _: everyone)
            np.testing.assert_allclose(found, expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("system", ["testa joint", "umt"])
def test_a_choice_of_all_tokens_is_no_choice(system: str) -> None:
    model = model_of(system, BY_THRESHOLD)
    tokens = model.encode_video(clips_of_runs()).tokens
    ids, mask = tiny.texts(LENGTHS)
    for row in tokens:
        plain = model.match(row[None], ids, mask)
        for some in (TokenShare(0.9999, "text"), TokenShare(0.9999)):
            torch.testing.assert_close(match_share(model, row[None], ids, mask, some), plain, atol=1e-5, rtol=1e-5)
        assert torch.equal(match_share(model, row[None], ids, mask, TokenShare()), plain)


def test_ties_go_to_the_first_tokens_and_padding_is_never_chosen() -> None:
    class Projects(nn.Module):
        def project_tokens(self, tokens: Tensor) -> Tensor:
            return tokens

    tokens = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 0], [0, 1], [1, 0], [0, 0], [0, 0]])
    texts = torch.tensor([[2.0, 0.0], [0.0, 0.5], [-1.0, -1.0], [-1.0, 0.0]])
    places = TokenShare(0.4, "text").of_texts(Projects(), tokens[None], texts)  # type: ignore[arg-type]
    assert places.tolist() == [[1, 3], [2, 4], [1, 2], [2, 4]]
    assert torch.equal(TokenShare(0.4).of_video(tokens[None]), tokens[None, [1, 4]])


@pytest.mark.parametrize("side", [4, 14])
def test_spread_tokens_are_of_every_frame_and_column(side: int) -> None:
    frames = 12
    places = spread_places(frames * side * side, frames * side * side // 8, CPU)
    assert places.tolist() == spread_by_hand(frames * side * side, frames * side * side // 8)
    for groups, least in ((places // side**2, side**2 // 8), (places % side, len(places) // side // 2)):
        assert int(groups.bincount().min()) >= least and len(groups.bincount()) in (frames, side)


def build(root: Path, output_dir: Path, **evaluation: Any) -> RetrievalTask:
    sections = {"rerank": 3, "rerank_tokens": 0.25, "predictions": 3, **evaluation}
    task = RetrievalTask(config("retrieval", root, evaluation=sections, output_dir=str(output_dir)), CPU)
    torch.manual_seed(1)
    randomise(task.model)
    return task


def evaluated(root: Path, output_dir: Path, batch_size: int, choice: str) -> tuple[Any, list[dict[str, Any]]]:
    """The results and the best videos of each text; runs in a rank, too."""
    task = build(root, output_dir, batch_size=batch_size, rerank_batch_size=batch_size, rerank_choice=choice)
    result = evaluate(task, task.config, CPU, final=True)
    path = output_dir / f"predictions_{batch_size}.jsonl"
    result["files"]["predictions.jsonl"](path)
    return {**result, "files": None}, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("choice", ["text", "spread"])
def test_an_evaluation_in_any_batches_and_processes(tmp_path: Path, choice: TokenChoice) -> None:
    root = write_data(tmp_path / "data", CAPTIONS)
    result, rows = evaluated(root, tmp_path, 256, choice)
    assert result["rerank_tokens"] == {"share": 0.25, "choice": choice}

    # Each pair by itself, with the embedding of its own text.
    task, scores = build(root, tmp_path).eval(), {}
    samples = video_text(task.config, task.split("eval").present, training=False)
    texts = [caption(video, n) for video in range(len(CAPTIONS)) for n in range(CAPTIONS[video])]
    with torch.no_grad():
        for (position,), clip in task.each_clip(samples, 1, []):
            video = task.model.encode_video(clip.pixels)
            for text in texts:
                ids, mask = task.tokenize([text])
                cosine = float(video.embedding[0] @ task.model.encode_text(ids, mask).embedding[0])
                logit = float(match_share(task.model, video.tokens, ids, mask, TokenShare(0.25, choice))[0, 1])
                assert abs(logit - float(task.model.match(video.tokens, ids, mask)[0, 1])) > 1e-4
                scores[text, f"{position}.mp4"] = cosine + logit
    check(rows, scores)

    for found, found_rows in run_ranks(2, evaluated, root, tmp_path, 2, choice):
        assert found == result
        check(found_rows, scores)


def check(rows: list[dict[str, Any]], scores: dict[tuple[str, str], float]) -> None:
    """Each text's best videos have the scores of their pairs."""
    assert len(rows) == sum(CAPTIONS)
    for row in rows:
        expected = [scores[row["text"], Path(video).name] for video in row["videos"]]
        np.testing.assert_allclose(row["scores"], expected, atol=1e-5)
