"""Matching and captions of a training step against the plain way, which projects the videos in each of their passes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.parts.losses import draw_negatives, matching
from tasks.base import PairTask
from tasks.objectives import momentum as objectives_module
from tests.models.counts import counted_rows
from tests.tasks.test_objectives import TASKS, batch, build, losses
from tests.tiny_runs import caption

WORDS = "one two three four five six seven"


def uneven(index: list[int]) -> dict[str, Any]:
    """A batch whose texts differ in length."""
    given = batch(index)
    texts = [f"{caption(video, row)} {WORDS}"[: 12 + 9 * row] for row, video in enumerate(index)]
    return {**given, "text": texts}


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """What the next step draws: a text for each video and a video for each text, and which rows have any."""
    draws: list[tuple[Tensor, Tensor]] = []

    def recorded(*arguments: Any) -> tuple[Tensor, Tensor]:
        draws.append(draw_negatives(*arguments))
        return draws[-1]

    monkeypatch.setattr(objectives_module, "draw_negatives", recorded)
    return draws


def plain(task: PairTask, given: dict[str, Any], draws: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Three passes of matching over repeated videos and a caption's pass, all of them apart."""
    model, (ids, mask), rows = task.model, task.tokenize(given["text"]), len(given["text"])
    tokens = model.encode_video(given["clip"].pixels).tokens
    (text, has_text), (video, has_video) = draws
    logits = [
        model.itm_head(model.ground_text(tokens[of], ids[about], mask[about])[:, 0])
        for of, about in ((slice(None), slice(None)), (video, slice(None)), (slice(None), text))
    ]
    matches = torch.arange(3 * rows) < rows
    counted = torch.cat([torch.ones_like(has_text), has_video, has_text])
    found = {"vtm": matching(torch.cat(logits), matches.long(), counted) / counted.sum()}
    if "cap" in task.objectives.objective.losses:
        found["cap"] = model.context_loss(tokens, ids, mask).sum() / mask[:, 1:].sum()
    return found


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("index", [[0, 1, 2, 3], [0, 1, 1, 1], [2, 2, 2, 2]])
def test_shared_projections_change_neither_loss_nor_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, index: list[int], training: bool
) -> None:
    task, given = build(kind, tmp_path), uneven(index)
    task.train(training)
    draws = drawn(monkeypatch)
    found = losses(task, given)
    expected = plain(task, given, draws)
    trained = {name: parameter for name, parameter in task.model.named_parameters() if parameter.requires_grad}
    gradients = []
    for of in (found, expected):
        loss = torch.stack([of[name] for name in expected]).sum()
        gradients.append(torch.autograd.grad(loss, list(trained.values()), allow_unused=True))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)
    reached = 0
    for name, ours, theirs in zip(trained, *gradients, strict=True):
        assert (ours is None) == (theirs is None), name
        if ours is not None and theirs is not None:
            reached += int(theirs.abs().max() > 1e-3)
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=lambda text, of=name: f"{of}: {text}")
    assert reached > 60


@pytest.mark.parametrize(
    ("kind", "chosen"), [("pretrain", ["vtc", "vtm", "cap"]), ("pretrain", ["cap"]), ("retrieval", None)]
)
def test_each_video_is_projected_once_a_step(tmp_path: Path, kind: str, chosen: list[str] | None) -> None:
    task, given = build(kind, tmp_path, **({} if chosen is None else {"losses": chosen})), uneven([0, 1, 2, 3])
    tokens = task.model.encode_video(given["clip"].pixels).tokens
    with counted_rows(task.model.text_encoder) as rows:
        losses(task, given)
    projected = [
        count for name, count in rows.items() if name.endswith(("crossattention.self.key", "crossattention.self.value"))
    ]
    assert projected == [tokens.shape[0] * tokens.shape[1]] * (2 * task.config.model.text.depth)


def test_without_matching_and_captions_nothing_is_projected(tmp_path: Path) -> None:
    task = build("pretrain", tmp_path, losses=["vtc"])
    with counted_rows(task.model.text_encoder) as rows:
        losses(task, uneven([0, 1, 2, 3]))
    assert rows and not [name for name in rows if "crossattention" in name]
