"""Pairs matched once for both directions equal pairs matched one by one."""

import pytest
import torch

from models.stoa.objectives import candidate_probabilities
from models.stoa.reranking import match_candidates
from tests.models.stoa.tiny import frames, objects, texts, tiny_model


@pytest.mark.parametrize("reference_form", [False, True])
@torch.no_grad()
def test_both_directions_equal_each_query_alone(reference_form: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    memory = model.encode_video(frames(5), objects([2, 3, 0, 1, 2])).memory
    encoded = model.encode_text(*texts([7, 4, 5, 3]))
    torch.manual_seed(0)
    t2v = torch.stack([torch.randperm(5)[:3] for _ in range(4)])
    v2t = torch.stack([torch.randperm(4)[:2] for _ in range(5)])

    fused: list[int] = []
    read_pair = model.fusion.read_pair
    monkeypatch.setattr(
        model.fusion, "read_pair", lambda memory, *rest: fused.append(len(memory.frames)) or read_pair(memory, *rest)
    )
    found = match_candidates(model, memory, encoded, t2v, v2t, reference_form=reference_form, pairs_at_once=4)
    distinct = {(clip, text) for text, row in enumerate(t2v.tolist()) for clip in row}
    distinct |= {(clip, text) for clip, row in enumerate(v2t.tolist()) for text in row}
    assert sum(fused) == (t2v.numel() + v2t.numel() if reference_form else len(distinct))

    for text, clips in enumerate(t2v):
        about = torch.full_like(clips, text)
        alone = candidate_probabilities(model, memory, encoded, clips, about, reference_form)
        torch.testing.assert_close(found.t2v[text], alone, atol=1e-5, rtol=1e-5)
    for clip, about in enumerate(v2t):
        clips = torch.full_like(about, clip)
        alone = candidate_probabilities(model, memory, encoded, clips, about, reference_form)
        torch.testing.assert_close(found.v2t[clip], alone, atol=1e-5, rtol=1e-5)
