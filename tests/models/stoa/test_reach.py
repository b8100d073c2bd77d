"""What is said to be reached by a loss is what gets a gradient from it, in every form of the model."""

import itertools
from typing import Any

import pytest
import torch

from models.stoa.fusion import ClipMemory
from models.stoa.objectives import Tags, answer_loss, writing_loss
from models.stoa.pretraining import PretrainingObjective
from models.stoa.reach import reached
from tests.models.stoa.tiny import frames, objects, texts, tiny_model

LOSSES = [
    *((loss,) for loss in ("vtc", "vtm", "mlm", "plm", "align", "cap", "qa")),
    ("vtm", "mlm", "plm", "align"),
    ("vtc", "vtm"),
]
FORMS: list[dict[str, Any]] = [
    *({"objects": kind, "actions": actions} for kind, actions in itertools.product(("none", "fusion"), (False, True))),
    *({"objects": "attention", "actions": actions, "object_layer": 2} for actions in (False, True)),
    {"objects": "attention", "actions": True, "object_layer": -2},
]


def with_gradient(form: dict[str, Any], losses: tuple[str, ...], reference_form: bool) -> tuple[set[str], set[str]]:
    """The weights that a gradient reaches, and those said to be reached."""
    model = tiny_model(**form)
    ids, mask = texts([7, 4, 5])
    video = model.encode_video(frames(3), objects([2, 3, 1]) if form["objects"] != "none" else None)
    encoded = model.encode_text(ids, mask)
    own = tuple(loss for loss in losses if loss not in ("cap", "qa"))
    noun = torch.arange(7) % 2 == 0
    tags = Tags(noun.expand(3, -1), ~noun.expand(3, -1))
    found = list(
        PretrainingObjective(own, reference_form, contrast_reaches_frames=not reference_form)(
            model, video, ids, mask, tags, step=0
        ).values()
    )
    if "cap" in losses:
        found.append(writing_loss(model, video.memory, encoded.states, ids, mask, torch.ones(3).long()).mean)
    if "qa" in losses:
        found.append(answer_loss(model, video.memory, encoded, torch.tensor([3, 4, 5]))[0].mean)
    total = torch.stack([loss for loss in found if loss.requires_grad] or [model.logit_scale * 0]).sum()
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    got = {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    if not any(loss.requires_grad for loss in found):
        got = set()
    return got, reached(parameters, model.sizes, losses, not reference_form)


@pytest.mark.parametrize("losses", LOSSES, ids="+".join)
def test_what_is_reached_gets_a_gradient_and_nothing_else(losses: tuple[str, ...]) -> None:
    for form in FORMS:
        got, said = with_gradient(form, losses, reference_form=False)
        assert got == said, form
    got, said = with_gradient(FORMS[3], losses, reference_form=True)
    assert got == said


def test_a_frozen_model_trains_what_is_reached_alone() -> None:
    model = tiny_model()
    model.freeze_unused(("vtm", "plm"))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == reached(dict(model.named_parameters()), model.sizes, ("vtm", "plm"))
    assert "visual.proj" not in trained and "text.ln_final.weight" not in trained
    with pytest.raises(ValueError, match="'itm' is none of"):
        model.freeze_unused(("itm",))


@torch.no_grad()
def test_a_memory_comes_back_from_its_tokens() -> None:
    for form in FORMS:
        model = tiny_model(**form)
        given = objects([2, 0, 1]) if form["objects"] != "none" else None
        video = model.encode_video((frames(3) * 50 + 128).clamp(0, 255).byte(), given)
        for part, other in zip(video.memory, ClipMemory.of_tokens(video.tokens, model.sizes), strict=True):
            assert (part is None) == (other is None)
            if part is not None and other is not None:
                assert torch.equal(part, other)
