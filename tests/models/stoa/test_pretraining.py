"""What is drawn, and that two processes train as one."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.distributed import all_gather_rows_with_grad, all_reduce_sum, rank, world_size
from models.parts.processes import Processes
from models.stoa.draws import draw_masked, draw_starts, uniform_noise
from models.stoa.objectives import Tags, contrastive_loss
from models.stoa.objects import ClipObjects
from models.stoa.pretraining import Pairs, PretrainingObjective, contrast_over_all
from tests.gloo import run_ranks
from tests.models.stoa.tiny import frames, objects, texts, tiny_model

LOSSES = ("vtc", "vtm", "mlm", "plm", "align")
# One rank's texts are shorter than the other's, and one clip has no object.
COUNTS, LENGTHS = [2, 3, 0, 1], [4, 5, 7, 3]


def train(
    losses: tuple[str, ...] = LOSSES,
    reference_form: bool = False,
    tagged: bool = True,
    shown: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Losses and gradients of this process' share of one batch, averaged; `shown` is each row's video."""
    model = tiny_model()
    rows = torch.arange(4).chunk(world_size())[rank()]
    ids, mask = (part[rows] for part in texts(LENGTHS))
    longest = int(mask.sum(dim=1).max())
    ids, mask = ids[:, :longest], mask[:, :longest]
    noun = torch.rand(4, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    tags = Tags(noun[rows, :longest], ~noun[rows, :longest]) if tagged else None
    video = model.encode_video(frames(4)[rows], ClipObjects(*(part[rows] for part in objects(COUNTS))))

    processes = Processes(rank(), world_size(), all_gather_rows_with_grad, all_reduce_sum)
    objective = PretrainingObjective(losses, reference_form, seed=5, contrast_reaches_frames=not reference_form)
    videos = None if shown is None else torch.tensor(shown)[rows]
    found = objective(model, video, ids, mask, tags, step=3, videos_of_rows=videos, processes=processes)
    torch.stack(list(found.values())).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    reached = sorted(gradients)
    for name, parameter in model.named_parameters():
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        gradients[name] = all_reduce_sum(gradient) / world_size()
    losses_of_all = {name: float(all_reduce_sum(loss.detach()) / world_size()) for name, loss in found.items()}
    return {"losses": losses_of_all, "gradients": gradients, "reached": reached}


def test_two_processes_train_as_one() -> None:
    # One video has a text on either process.
    arguments = (LOSSES, False, True, (0, 1, 2, 0))
    alone = train(*arguments)
    assert alone["losses"] != train()["losses"]
    for result in run_ranks(2, train, *arguments):
        assert result["losses"] == pytest.approx(alone["losses"], abs=1e-5)
        for name, gradient in alone["gradients"].items():
            torch.testing.assert_close(result["gradients"][name], gradient, atol=2e-5, rtol=1e-4, msg=name)


def test_only_contrast_reaches_the_towers_features() -> None:
    without = train(("vtm", "mlm", "plm", "align"))["reached"]
    assert "visual.proj" not in without and "text.ln_final.weight" not in without
    assert "visual.conv1.weight" in without and "text.token_embedding.weight" in without
    assert "visual.proj" in train(("vtc",))["reached"]
    reference = train(("vtc",), reference_form=True)["reached"]
    assert "visual.proj" not in reference and "text.ln_final.weight" in reference


def test_alignment_without_tags_and_matching_without_a_negative_are_refused() -> None:
    with pytest.raises(ValueError, match="scripts.tag_captions"):
        train(tagged=False)
    model = tiny_model(objects="none")
    ids, mask = texts([5])
    with pytest.raises(ValueError, match="no negative to match"):
        PretrainingObjective(("vtm",))(model, model.encode_video(frames(1)), ids, mask, None, step=0)


def test_texts_of_one_video_are_no_negatives_of_each_other() -> None:
    model = tiny_model()
    ids, mask = texts([5, 4, 6])
    video, read = model.encode_video(frames(3), objects([2, 1, 3])), model.encode_text(ids, mask)
    shown, processes = torch.tensor([7, 9, 7]), Processes()
    pairs = Pairs.of(3, shown, processes, ids.device)
    found = contrast_over_all(model, video, read, pairs, processes).mean

    # By hand: the first and third rows share their targets.
    similarity = model.similarity(read.embedding, video.embedding)
    target = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    by_text, by_video = (-(target * part.log_softmax(dim=1)).sum(dim=1).mean() for part in (similarity, similarity.T))
    torch.testing.assert_close(found, (by_text + by_video) / 2)
    # Own pairs alone: the plain symmetric cross-entropy.
    own = contrast_over_all(model, video, read, Pairs.of(3, None, processes, ids.device), processes).mean
    torch.testing.assert_close(own, contrastive_loss(similarity))

    # Rows without a negative count for matching as pairs alone, so they change nothing but their own term.
    objective = PretrainingObjective(("vtm",))
    same = torch.tensor([7, 7, 7])
    alone = objective(model, video, ids, mask, None, step=0, videos_of_rows=same)["vtm"]
    expected = F.cross_entropy(model.match_memory(video.memory, read.states, read.mask), torch.ones(3).long())
    torch.testing.assert_close(alone, expected)


def drawn(mask: Tensor, times: int) -> Tensor:
    return torch.stack([draw_masked(mask, uniform_noise(0, step, 0, *mask.shape)) for step in range(times)])


def test_masks_fall_on_words_as_often_as_they_should_and_on_one_at_least() -> None:
    _, mask = texts([7, 3, 2])
    masked = drawn(mask, 4000)
    assert bool((masked.sum(dim=2) >= 1).all())
    # Five words: each is masked with 0.15, and when none is (0.85^5) one of the five instead.
    expected = 0.15 + 0.85**5 / 5
    assert masked[:, 0, 1:6].float().mean(dim=0).sub(expected).abs().max() < 0.03
    assert not masked[:, 0, [0, 6]].any()
    # One word is always masked; without words the end is.
    assert bool(masked[:, 1, 1].all()) and bool(masked[:, 2, 1].all()) and not masked[:, 1:, 2:].any()


def test_writing_starts_anywhere_from_the_first_word_to_the_end() -> None:
    _, mask = texts([7, 2])
    starts = torch.stack([draw_starts(mask, uniform_noise(0, step, 0, 2, 1)[:, 0]) for step in range(3000)])
    counts = torch.bincount(starts[:, 0], minlength=8)
    assert counts[0] == 0 and counts[7] == 0
    assert (counts[1:7] / 3000 - 1 / 6).abs().max() < 0.03
    assert bool((starts[:, 1] == 1).all())
    assert draw_starts(mask, torch.tensor([0.9999999, 0.9999999])).tolist() == [6, 1]
