"""Losses against loops written out by hand: what is a positive, what a negative, and what the mean is over."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.samples import Clip
from models.parts.losses import selection_noise
from models.parts.momentum import NO_INDEX
from tasks.base import PairTask
from tasks.objectives import momentum as objectives_module
from tasks.objectives.momentum import PRETRAINING_FLOOR
from tasks.pretrain import PretrainTask
from tasks.retrieval import RetrievalTask
from tests.models.tiny import randomise
from tests.tiny_runs import caption, clips, config, write_data

TASKS: dict[str, type[PairTask]] = {"pretrain": PretrainTask, "retrieval": RetrievalTask}
ROWS = 4


def build(kind: str, root: Path, **objective: Any) -> PairTask:
    """A task with large random weights, a twin that is not the model, and a queue of pairs of videos 0, 1, ..."""
    write_data(root, [1, 2, 1, 1, 1, 1], real=False)
    sections: dict[str, Any] = {"objective": objective}
    if kind == "retrieval" and "vtm" not in objective.get("losses", ["vtm"]):
        sections["evaluation"] = {"rerank": 0}
    task = TASKS[kind](config(kind, root, **sections), torch.device("cpu"))
    torch.manual_seed(1)
    randomise(task.model)
    if task.objectives.twin is not None:
        randomise(task.objectives.twin, std=0.1)
    task.objectives.queue.index[:] = torch.arange(len(task.objectives.queue.index)) if kind == "retrieval" else NO_INDEX
    return task


def batch(index: list[int], seed: int = 0) -> dict[str, Any]:
    texts = [caption(video, number) for number, video in enumerate(index)]
    return {"clip": Clip.of_pixels(clips(len(index), seed)), "text": texts, "index": torch.tensor(index)}


def losses(task: PairTask, given: dict[str, Any], step: int = 0, epoch: float = 0.0) -> dict[str, Tensor]:
    task.begin_step(step, epoch, [given])
    return task(given)


def keys_and_queries(task: PairTask, given: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Embeddings of videos and texts, of the twin and of the model, one sample at a time."""
    keys: list[list[Tensor]] = [[], []]
    queries: list[list[Tensor]] = [[], []]
    for row, text in enumerate(given["text"]):
        video, (ids, mask) = given["clip"].pixels[row : row + 1], task.tokenize([text])
        for kind, twin in enumerate(task.objectives.twin.embed(task.model, video, ids, mask)):
            keys[kind].append(twin[0])
        queries[0].append(task.model.encode_video(video).embedding[0])
        queries[1].append(task.model.encode_text(ids, mask).embedding[0])
    return [torch.stack(rows) for rows in keys], [torch.stack(rows) for rows in queries]


@torch.no_grad()
def contrast_by_hand(task: PairTask, given: dict[str, Any], alpha: float) -> float:
    keys, queries = keys_and_queries(task, given)
    queue, temperature, total = task.objectives.queue, float(task.model.temp), 0.0
    stored = [queue.video, queue.text]
    own = given["index"].tolist() if task.objectives.positives == "index" else list(range(len(given["text"])))
    against_index = own + (queue.index.tolist() if task.objectives.positives == "index" else [None] * len(queue.index))
    for kind in (0, 1):
        against = [*keys[1 - kind], *stored[1 - kind]]
        for row, query in enumerate(queries[kind]):
            scores = [float(query @ key) / temperature for key in against]
            soft = [math.exp(float(keys[kind][row] @ key) / temperature) for key in against]
            positive = [index == own[row] for index in against_index]
            normaliser = math.log(sum(map(math.exp, scores)))
            for score, weight, is_positive in zip(scores, soft, positive, strict=True):
                target = alpha * weight / sum(soft) + (1 - alpha) * is_positive / sum(positive)
                total -= target * (score - normaliser) / len(own) / 2
    return total


@pytest.mark.parametrize("epoch", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("kind", TASKS)
def test_contrast_is_that_of_a_loop_over_pairs(tmp_path: Path, kind: str, epoch: float) -> None:
    task = build(kind, tmp_path, losses=["vtc"], alpha_ramp_epochs=2.0)
    given = batch([0, 1, 2, 1])
    task.begin_step(0, epoch, [given])
    expected = contrast_by_hand(task, given, alpha=0.4 * min(1.0, epoch / 2))
    assert task(given)["vtc"].item() == pytest.approx(expected, abs=1e-5)


def test_pairs_of_one_video_are_positives_in_the_batch_and_in_the_queue_of_fine_tuning_only(tmp_path: Path) -> None:
    values: dict[Any, float] = {}
    for kind in TASKS:
        for index in ([0, 1, 2, 3], [0, 1, 2, 1], [9, 8, 7, 6]):  # the queue holds 0 to 5
            task = build(kind, tmp_path, losses=["vtc"])
            given = {**batch([0, 1, 2, 3]), "index": torch.tensor(index)}
            values[kind, *index] = losses(task, given)["vtc"].item()
    assert len({round(value, 4) for (kind, *_), value in values.items() if kind == "retrieval"}) == 3
    assert len({value for (kind, *_), value in values.items() if kind == "pretrain"}) == 1


def test_the_batch_is_in_the_queue_afterwards_and_the_next_step_is_scored_against_it(tmp_path: Path) -> None:
    task = build("retrieval", tmp_path, losses=["vtc"])
    first = batch([3, 1, 4, 1])
    task.begin_step(0, 0.0, [first])
    keys, _ = keys_and_queries(task, first)
    task(first)
    queue = task.objectives.queue
    assert queue.index.tolist() == [3, 1, 4, 1, 4, 5] and int(queue.pointer) == 4
    assert torch.allclose(queue.video[:4], keys[0], atol=1e-6) and torch.allclose(queue.text[:4], keys[1], atol=1e-6)
    second = batch([4, 5, 2, 0], seed=1)
    task.begin_step(1, 0.5, [second])
    expected = contrast_by_hand(task, second, alpha=0.2)
    assert task(second)["vtc"].item() == pytest.approx(expected, abs=1e-5)
    assert queue.index.tolist() == [2, 0, 4, 1, 4, 5]


@pytest.mark.parametrize("ramp", [0.0, 2.0])
def test_alpha_ramps_up_and_stays(tmp_path: Path, ramp: float) -> None:
    task = build("pretrain", tmp_path, alpha_ramp_epochs=ramp)
    found = []
    for epoch in (0.0, 0.5, 1.0, 2.0, 7.0):
        task.begin_step(0, epoch, [batch([0, 1])])
        found.append(task.objectives.alpha)
    assert found == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.4] if ramp else [0.4] * 5)


@torch.no_grad()
def matching_by_hand(task: PairTask, given: dict[str, Any], noise: Tensor) -> tuple[float, int]:
    """The loss and how many pairs it is of."""
    keys, queries = keys_and_queries(task, given)
    rows = range(len(given["text"]))
    own = given["index"].tolist() if task.objectives.positives == "index" else list(rows)
    floor = PRETRAINING_FLOOR if task.objectives.positives == "row" else 0.0
    temperature = float(task.model.temp)

    def loss(video: int, text: int, label: int) -> float:
        ids, mask = task.tokenize([given["text"][text]])
        logits = task.model.match(task.model.encode_video(given["clip"].pixels[video : video + 1]).tokens, ids, mask)[0]
        return float(torch.logsumexp(logits, 0) - logits[label])

    values = [loss(row, row, 1) for row in rows]
    for kind in (0, 1):  # a text for each video, a video for each text
        for row in rows:
            scores = [float(queries[kind][row] @ key) / temperature for key in keys[1 - kind]]
            weights = [math.exp(score) / sum(map(math.exp, scores)) + floor for score in scores]
            allowed = [other for other in rows if own[other] != own[row]]
            if allowed:
                drawn = max(allowed, key=lambda other: math.log(weights[other]) + float(noise[kind, row, other]))
                values.append(loss(row, drawn, 0) if kind == 0 else loss(drawn, row, 0))
    return sum(values) / len(values), len(values)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize(("index", "pairs"), [([0, 1, 2, 3], 12), ([0, 1, 1, 1], 12), ([2, 2, 2, 2], 4)])
def test_matching_is_that_of_a_loop_and_rows_without_a_negative_contribute_none(
    tmp_path: Path, kind: str, index: list[int], pairs: int
) -> None:
    task = build(kind, tmp_path, losses=["vtc", "vtm"])
    given = batch(index)
    for step in (0, 3):
        task.begin_step(step, 0.0, [given])
        noise = selection_noise(task.config.seed, step, 0, ROWS)
        expected, count = matching_by_hand(task, given, noise)
        assert count == (pairs if kind == "retrieval" else 12)
        assert task(given)["vtm"].item() == pytest.approx(expected, abs=1e-5)


def test_the_noise_is_of_the_seed_the_step_and_the_part_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []

    def recorded(*key: int) -> Tensor:
        asked.append(key)
        return selection_noise(*key)

    monkeypatch.setattr(objectives_module, "selection_noise", recorded)
    task = build("retrieval", tmp_path)
    for step in (5, 6):
        micro_batches = [batch([0, 1, 2, 3]), batch([4, 5, 0, 1])]
        task.begin_step(step, 0.0, micro_batches)
        for given in micro_batches:
            task(given)
    assert asked == [(42, 5, 0, ROWS), (42, 5, 1, ROWS), (42, 6, 0, ROWS), (42, 6, 1, ROWS)]


def test_captions_are_scored_per_token_of_the_whole_batch_with_smoothed_labels(tmp_path: Path) -> None:
    task = build("pretrain", tmp_path, losses=["cap"], label_smoothing=0.2)
    given = batch([0, 1, 2, 4])
    total, count = 0.0, 0
    with torch.no_grad():
        for row, text in enumerate(given["text"]):
            ids, mask = task.tokenize([text])
            decoder = task.model.text_decoder
            assert decoder is not None
            tokens = task.model.encode_video(given["clip"].pixels[row : row + 1]).tokens
            first = torch.cat([torch.tensor([[task.tokenizer.dec_id]]), ids[:, 1:]], dim=1)
            log_likelihood = F.log_softmax(decoder(first, mask, decoder.bert.project(tokens))[0], dim=-1)
            for place, target in enumerate(ids[0, 1:]):
                total -= 0.8 * float(log_likelihood[place, target]) + 0.2 * float(log_likelihood[place].mean())
                count += 1
    found = losses(task, given)
    assert set(found) == {"cap"} and found["cap"].item() == pytest.approx(total / count, abs=1e-5)


def test_only_what_the_losses_reach_is_trained(tmp_path: Path) -> None:
    for kind, chosen in (("pretrain", ["vtc", "vtm", "cap"]), ("retrieval", ["vtc", "vtm"]), ("retrieval", ["vtc"])):
        task = build(kind, tmp_path, losses=chosen)
        torch.stack(list(losses(task, batch([0, 1, 2, 3])).values())).sum().backward()
        for name, parameter in task.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, (kind, chosen, name)
        assert not any(parameter.requires_grad for parameter in task.objectives.parameters())


@pytest.mark.parametrize("checkpointing", ["none", "recompute", "offload"])
def test_the_twin_runs_its_own_weights(tmp_path: Path, checkpointing: str) -> None:
    """Also below fairscale's checkpoint wrapper, whose copy would run the model that is trained."""
    write_data(tmp_path, [1, 1], real=False)
    task = RetrievalTask(
        config("retrieval", tmp_path, train={"batch_size": 2, "activation_checkpointing": checkpointing}),
        torch.device("cpu"),
    )
    given = batch([0, 1])
    ids, mask = task.tokenize(given["text"])
    before = task.objectives.twin.embed(task.model, given["clip"].pixels, ids, mask)[0]
    randomise(task.model)
    assert torch.equal(task.objectives.twin.embed(task.model, given["clip"].pixels, ids, mask)[0], before)
    randomise(task.objectives.twin)
    assert not torch.allclose(
        task.objectives.twin.embed(task.model, given["clip"].pixels, ids, mask)[0], before, atol=1e-2
    )


def test_without_momentum_the_model_is_its_own_twin(tmp_path: Path) -> None:
    """The same losses and gradients as of a twin that follows at once, without the cost of one."""
    gradients, found = [], []
    for momentum in (0.0, 1e-12):
        task = build_fresh(tmp_path, momentum)
        assert (task.objectives.twin is None) == (momentum == 0)
        for step in range(3):
            taken = losses(task, batch([0, 1, 2, 3], seed=step), step=step, epoch=1.0)
            task.zero_grad()
            sum(taken.values()).backward()
            found.append({name: loss.item() for name, loss in taken.items()})
            with torch.no_grad():
                for parameter in task.model.parameters():
                    parameter -= 0.1 * (0 if parameter.grad is None else parameter.grad)
        gradients.append(torch.cat([p.grad.flatten() for p in task.model.parameters() if p.grad is not None]))
    assert found[:3] == [pytest.approx(losses_of, abs=1e-5) for losses_of in found[3:]]
    assert found[0] != found[1]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def build_fresh(root: Path, momentum: float) -> PairTask:
    write_data(root, [1, 2, 1, 1, 1, 1], real=False)
    torch.manual_seed(1)
    task = PretrainTask(config("pretrain", root, objective={"momentum": momentum}), torch.device("cpu"))
    torch.manual_seed(1)
    randomise(task.model)
    return task


def test_captions_alone_need_no_twin(tmp_path: Path) -> None:
    task = build("pretrain", tmp_path, losses=("cap",), momentum=0.995, queue_size=0)
    assert task.objectives.twin is None


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"negatives": "same_rank"}, "objective.negatives: same_rank leaves"),
        (
            {"losses": ("vtc",), "vtc_keys": "local", "queue_size": 0},
            "objective.vtc_keys: local, with no queue, leaves",
        ),
    ],
)
def test_one_row_a_process_is_refused_where_it_is_all_there_is(
    tmp_path: Path, objective: dict[str, Any], message: str
) -> None:
    task = build("pretrain", tmp_path, **objective)
    with pytest.raises(ValueError, match=message):
        task.objectives.begin_step(task.model, 0, 0.0, [{}], [torch.ones(1, 3)])
    task.objectives.begin_step(task.model, 0, 0.0, [{}], [torch.ones(2, 3)])
