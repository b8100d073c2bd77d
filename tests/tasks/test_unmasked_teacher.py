"""UMT's objective against plain loops, two processes against one, and what a teacher leaves no trace of."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from configs.load import from_dict
from configs.schema import PretrainConfig, RetrievalConfig
from datasets.samples import Clip
from engine.distributed import all_reduce_sum, rank, world_size
from models.parts.clip.image_tower import ImageTower
from models.parts.clip.sizes import ImageTowerSizes
from models.parts.clip.teacher import draw_visible, visible_features, visible_tokens
from models.parts.losses import selection_noise
from models.parts.losses_pretraining import NOT_ASKED, feature_distance
from tasks.base import PairTask
from tasks.objectives import unmasked_teacher
from tasks.pretrain import PretrainTask
from tasks.retrieval import RetrievalTask
from tests.gloo import run_ranks
from tests.models.tiny import randomise
from tests.tiny_runs import FRAMES, IMAGE, caption, clips, write_data

ROWS, BLOCKS, WIDTH = 4, 2, 10
MODEL: dict[str, Any] = {
    "name": "umt", "depth": 3, "width": 24, "heads": 2, "patch_size": 8, "embed_dim": 16,
    "text": {
        "tokenizer": "from_data", "vocab_size": 120, "depth": 3, "width": 16, "heads": 2, "intermediate": 32,
        "max_positions": 32, "dropout": 0.0, "fusion_layer": 2,
    },
}  # fmt: skip
ALL = ["vtc", "vtm", "mlm", "uta"]
WORDS = "one two three four five six seven"


def write_teacher(root: Path) -> dict[str, Any]:
    """A small CLIP image tower of 16-pixel patches, and its section."""
    torch.manual_seed(5)
    tower = ImageTower(ImageTowerSizes(32, 3, 4, 16, 64, WIDTH))
    randomise(tower)
    save_file({f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}, root / "teacher.safetensors")
    weights = str(root / "teacher.safetensors")
    return {"weights": weights, "image_size": 64, "patch_size": 16, "width": WIDTH, "blocks": BLOCKS}


def settings(root: Path, kind: str, **objective: Any) -> dict[str, Any]:
    objective = {"name": "unmasked_teacher", **objective}
    if "uta" in objective.get("losses", ()):
        objective["teacher"] = {**write_teacher(root), "mask_ratio": 0.6, **objective.get("teacher", {})}
    return {
        "task": kind,
        "data": {"root": str(root)},
        "model": MODEL,
        "objective": objective,
        "video": {"num_frames": FRAMES, "image_size": IMAGE},
        "optim": {"lr": 1e-3},
        "train": {"batch_size": 4, "max_epochs": 1, "workers": 0},
        "output_dir": str(root / "run"),
    }


def build(root: Path, kind: str, **objective: Any) -> PairTask:
    """A task with large random weights, without dropout."""
    write_data(root, [1, 2, 1, 1, 1, 1], real=False)
    task_class, config_class = {
        "pretrain": (PretrainTask, PretrainConfig),
        "retrieval": (RetrievalTask, RetrievalConfig),
    }[kind]
    task = task_class(from_dict(config_class, settings(root, kind, **objective), "test"), torch.device("cpu"))
    torch.manual_seed(1)
    randomise(task.model)
    return task


def batch(index: list[int], frames: int = FRAMES) -> dict[str, Any]:
    texts = [f"{caption(video, row)} {WORDS}"[: 14 + 9 * row] for row, video in enumerate(index)]
    pixels = clips(len(index))[:, :frames]
    return {"clip": Clip.of_pixels(pixels), "text": texts, "index": torch.tensor(index)}


def losses(task: PairTask, given: dict[str, Any], step: int = 0) -> dict[str, Tensor]:
    task.begin_step(step, 0.0, [given])
    return task(given)


def expected_contrast(task: PairTask, given: dict[str, Any], same: Tensor) -> Tensor:
    """InfoNCE of both directions with targets that are spread over the positives."""
    video = task.model.encode_video(given["clip"].pixels).embedding
    text = task.model.encode_text(*task.tokenize(given["text"])).embedding
    similarity, target = video @ text.T / task.model.temp, same / same.sum(dim=1, keepdim=True)
    return sum(F.cross_entropy(one, target) for one in (similarity, similarity.T)) / 2


@pytest.mark.parametrize(
    ("kind", "index", "captions", "same"),
    [
        ("pretrain", [0, 1, 1, 2], "apart", [(1, 2)][:0]),
        ("retrieval", [0, 1, 1, 2], "apart", [(1, 2)]),
        ("retrieval", [0, 1, 2, 2], "together", [(2, 3), (0, 1)]),
    ],
)
def test_contrast_has_gradient_on_both_sides_and_positives_by_video_and_caption(
    tmp_path: Path, kind: str, index: list[int], captions: str, same: list[tuple[int, int]]
) -> None:
    task, given = build(tmp_path, kind, same_captions=captions), batch(index)
    if captions == "together":
        given["text"][1] = given["text"][0]
    is_same = torch.eye(ROWS)
    for one, other in same:
        is_same[one, other] = is_same[other, one] = 1
    found, expected = losses(task, given)["vtc"], expected_contrast(task, given, is_same)
    assert_close(found, expected)
    trained = [task.model.vision_proj.weight, task.model.text_proj.weight, task.model.temp]
    for ours, plain in zip(torch.autograd.grad(found, trained), torch.autograd.grad(expected, trained), strict=True):
        assert_close(ours, plain)


@torch.no_grad()
@pytest.mark.parametrize(
    ("index", "temperature", "pairs"), [([0, 1, 2, 3], 0.07, 12), ([0, 1, 1, 1], 1e-9, 12), ([2, 2, 2, 2], 0.07, 4)]
)
def test_matching_is_that_of_a_loop(tmp_path: Path, index: list[int], temperature: float, pairs: int) -> None:
    """Also where all negatives underflow, and where a batch is of one video: the reference fails at both."""
    task, given = build(tmp_path, "retrieval"), batch(index)
    task.model.temp.fill_(temperature)
    found = losses(task, given, step=3)["vtm"]
    noise = selection_noise(task.config.seed, 3, 0, ROWS)

    tokens = task.model.encode_video(given["clip"].pixels)
    ids, mask = task.tokenize(given["text"])
    similarity = tokens.embedding @ task.model.encode_text(ids, mask).embedding.T / task.model.temp
    values = []

    def loss(video: int, text: int, label: int) -> None:
        logits = task.model.match(tokens.tokens[video : video + 1], ids[text : text + 1], mask[text : text + 1])
        values.append(F.cross_entropy(logits, torch.tensor([label])))

    for row in range(ROWS):
        loss(row, row, 1)
        for kind, scores in enumerate((similarity[row], similarity[:, row])):
            allowed = [other for other in range(ROWS) if index[other] != index[row]]
            if allowed:
                drawn = max(allowed, key=lambda other: float(scores.log_softmax(0)[other] + noise[kind, row, other]))
                loss(*((row, drawn) if kind == 0 else (drawn, row)), 0)
    assert len(values) == pairs
    assert_close(found, torch.stack(values).mean(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_masked_words_are_those_of_all_micro_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = build(tmp_path, "pretrain", losses=["vtc", "mlm"], weights={"mlm": 2.0})
    given, seen = [batch([0, 1, 2, 3]), batch([4, 5])], []
    mask_words = unmasked_teacher.mask_words

    def recorded(*arguments: Any) -> tuple[Tensor, Tensor]:
        seen.append(mask_words(*arguments))
        return seen[-1]

    monkeypatch.setattr(unmasked_teacher, "mask_words", recorded)
    task.begin_step(7, 0.0, given)
    found = [task(part)["mlm"] for part in given]

    total, count = torch.zeros(()), 0
    for part, (hidden, labels) in zip(given, seen, strict=True):
        assert not (labels[:, 0] != NOT_ASKED).any() and not (labels[part["mask"] == 0] != NOT_ASKED).any()
        assert torch.equal(part["ids"], torch.where(labels == NOT_ASKED, hidden, labels))
        for row, place in (labels != NOT_ASKED).nonzero().tolist():
            memory = task.model.project(task.model.encode_video(part["clip"].pixels[row : row + 1]).tokens)
            logits = task.model.guess_words(memory, hidden[row : row + 1], part["mask"][row : row + 1])[0, place]
            total -= logits.log_softmax(0)[labels[row, place]]
            count += 1
    assert count > 5 and not torch.equal(seen[0][0][:2], seen[1][0])
    assert_close(torch.stack(found).mean(), 2 * total / count, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("frames", "ratio"), [(FRAMES, 0.6), (1, 0.5)])
def test_the_student_sees_and_learns_the_patches_that_the_teacher_attends_to(
    tmp_path: Path, frames: int, ratio: float
) -> None:
    task, given = build(tmp_path, "pretrain", losses=ALL), batch([0, 1, 2, 3], frames)
    found = losses(task, given)
    teaching = task.objectives.teacher(given["clip"].pixels)
    noise = task.objectives._noise(unmasked_teacher.PATCHES, 0, *teaching.attention.shape)
    hidden = draw_visible(teaching.attention, ratio, noise)
    assert int((~hidden[0, 0]).sum()) == 16 - int(16 * ratio)

    keep = visible_tokens(hidden)
    video, student = task.model.encode_visible(given["clip"].pixels, keep)
    assert video.tokens.shape[1] == keep.shape[1] == frames * (16 - int(16 * ratio))
    assert_close(found["uta"], feature_distance(student, visible_features(teaching.features, hidden)))


def test_the_teacher_is_in_no_checkpoint_and_is_not_trained(tmp_path: Path) -> None:
    task = build(tmp_path, "pretrain", losses=ALL)
    assert {name.partition(".")[0] for name in task.state_dict()} == {"model"}
    sum(losses(task, batch([0, 1, 2, 3])).values()).backward()
    for name, parameter in task.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert all(parameter.grad is None for parameter in task.objectives.teacher.tower.parameters())


@pytest.mark.parametrize("chosen", [c for n in (1, 2, 3) for c in itertools.combinations(ALL, n)], ids="-".join)
def test_whatever_losses_are_chosen_all_that_is_trained_has_a_gradient(tmp_path: Path, chosen: tuple[str]) -> None:
    if "vtm" in chosen and "vtc" not in chosen:
        pytest.skip("refused, see test_what_cannot_be_is_refused")
    task = build(tmp_path, "pretrain", losses=list(chosen))
    found = losses(task, batch([0, 1, 2, 3]))
    assert set(found) == set(chosen)
    sum(found.values()).backward()
    for name, parameter in task.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


def gradients_of_share(root: Path, negatives: str, precision: str = "fp32") -> tuple[dict[str, float], list[Tensor]]:
    """Losses and gradients of six pairs, shared out over the processes and averaged."""
    task, given = build(root, "pretrain", losses=ALL, negatives=negatives), batch([0, 1, 2, 3, 4, 5])
    rows = slice(rank() * 6 // world_size(), (rank() + 1) * 6 // world_size())
    own = {
        "clip": Clip.of_pixels(given["clip"].pixels[rows]),
        "text": given["text"][rows],
        "index": given["index"][rows],
    }
    task.begin_step(2, 0.0, [own])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        found = task(own)
    assert all(loss.dtype == torch.float32 for loss in found.values())
    sum(found.values()).backward()
    gradients = [parameter.grad for parameter in task.model.parameters() if parameter.requires_grad]
    values = {name: float(all_reduce_sum(loss) / world_size()) for name, loss in found.items()}
    return values, [all_reduce_sum(gradient) / world_size() for gradient in gradients]


def test_two_processes_give_losses_and_gradients_of_one(tmp_path: Path) -> None:
    values, gradients = gradients_of_share(tmp_path, "all")
    for other_values, other_gradients in run_ranks(2, gradients_of_share, tmp_path, "all"):
        assert other_values == pytest.approx(values, abs=1e-5)
        for ours, theirs in zip(gradients, other_gradients, strict=True):
            assert_close(theirs, ours, atol=2e-5, rtol=1e-4)
    # The reference's negatives are each process's own.
    apart = run_ranks(2, gradients_of_share, tmp_path, "same_rank")[0][0]
    assert apart["vtm"] != pytest.approx(values["vtm"], abs=1e-4) and apart["uta"] == pytest.approx(values["uta"])


def test_losses_in_bfloat16_are_close(tmp_path: Path) -> None:
    exact, rounded = (gradients_of_share(tmp_path, "all", precision)[0] for precision in ("fp32", "bf16"))
    assert rounded != exact and rounded == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "sections", "message"),
    [
        ("pretrain", {"objective": {"losses": ["vtm"]}}, "'vtm' draws its negatives by the similarities of 'vtc'"),
        ("pretrain", {"objective": {"losses": ["uta"]}}, "objective.teacher.weights: 'uta' learns from"),
        ("pretrain", {"objective": {"word_ratio": 0.2}}, "objective.word_ratio: has no effect without 'mlm'"),
        ("pretrain", {"objective": {"weights": {"uta": 2.0}}}, "objective.weights.uta: has no effect without 'uta'"),
        ("pretrain", {"objective": {"weights": {"vtc": 0.0}}}, "objective.weights.vtc: 0.0 is not above 0"),
        ("pretrain", {"objective": {"teacher": {"blocks": 3}}}, "objective.teacher.blocks: has no effect without"),
        ("pretrain", {"train": {"batch_size": 1, "max_epochs": 1}}, "train.batch_size: matching needs a second"),
        ("retrieval", {"objective": {"losses": ["vtc", "vtm", "mlm"]}}, "fine-tuning has neither masked words"),
        ("pretrain", {"model": {"name": "testa"}}, "objective.losses: 'vtc': this model keeps no states of texts"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, kind: str, sections: dict[str, Any], message: str) -> None:
    write_data(tmp_path, [1, 1], real=False)
    given = settings(tmp_path, kind)
    if "model" in sections:
        text = {"tokenizer": "from_data", "vocab_size": 200, "depth": 1, "width": 16, "heads": 2, "intermediate": 16}
        sections = {"model": {**sections["model"], "width": 16, "heads": 2, "depth": 1, "text": text}}
    for name, section in sections.items():
        given[name] = {**given[name], **section} if name == "objective" else section
    task_class, config_class = {
        "pretrain": (PretrainTask, PretrainConfig),
        "retrieval": (RetrievalTask, RetrievalConfig),
    }[kind]
    with pytest.raises(ValueError, match=message):
        task_class(from_dict(config_class, given, "test"), torch.device("cpu"))


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (
            {"image_size": 96},
            "objective.teacher.image_size: 96 pixels are 6 patches a side, the model has 4; set it to",
        ),
        ({"blocks": 4}, "objective.teacher.blocks: the model has 3 blocks"),
        ({"width": 11}, "objective.teacher.width: 11 is not that of .*; set it to 10"),
        ({"weights": "none.safetensors"}, "objective.teacher.weights: none.safetensors does not exist"),
        ({"mask_ratio": 1.0}, "objective.teacher.mask_ratio: 1.0 is not a share"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(tmp_path: Path, teacher: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(tmp_path, "pretrain", losses=ALL, teacher=teacher)


def test_merged_patches_have_no_teacher(tmp_path: Path) -> None:
    given = settings(tmp_path, "pretrain", losses=ALL)
    given["aggregation"] = {"reducer": "saliency", "tokens_per_block": [4]}
    given["model"] = {**MODEL, "pooling": "all"}
    write_data(tmp_path, [1, 1], real=False)
    with pytest.raises(ValueError, match="aggregation.reducer: the teacher has features of single patches"):
        PretrainTask(from_dict(PretrainConfig, given, "test"), torch.device("cpu"))
