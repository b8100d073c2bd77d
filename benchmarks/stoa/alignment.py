"""Whether trajectories are those of the nouns, and whether the actions hold what moves, on held-out videos.

    python -m benchmarks.stoa.alignment outputs/stoa/checkpoint_last --manifest test.jsonl data.root=outputs/stories

The checkpoint is one of pre-training with `align`; boxes and tags are those of its `data.objects` and `data.tags`.

*nouns* are the nouns of captions that, with the words before them, name a class with a trajectory in their video. Each
points at the trajectory with the best score, the one by which the loss assigns: the noun's share in the softmax, over
the caption's nouns, of their products with the trajectory. That is *right* if it is of the whole name ("red ring"), or
of the noun at least ("ring"); chance is the share of such trajectories among the video's. *by product* it is the
trajectory with the largest product, which favours long trajectories. *assigned* are the pairs that the loss makes of
nouns and trajectories, right by the whole name.

*motions* are told from the features of the actions by ridge regression, fitted on the videos of `--fit`: the mean over
motions of the area under the ROC curve, of which chance is 50 %; beside it the same from the frames' features.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.annotations import manifest
from datasets.loaders import evaluation_loader
from datasets.objects.store import ObjectStore
from datasets.stories.stories import ACTIONS
from engine.hub import Checkpoint
from inference.trained import settings_to_use, trained_task
from models.stoa.fusion import ClipMemory
from models.stoa.model import TextFeatures
from models.stoa.objectives import Tags, alignment_loss
from models.stoa.task_model import TaskModel
from tasks.annotations import video_folder
from tasks.base import VideoTextTask
from tasks.clips import encode_clip
from tasks.data import video_text

RIDGE = 1.0
DEVICE = torch.device("cpu")


@dataclass
class Found:
    """What is found on some videos.

    Attributes:
        right, chance: of each noun, whether it points at its class, and the chance of that.
        right_noun, chance_noun: the same of any class of this noun.
        right_by_product, right_noun_by_product: the same by the largest product.
        assigned: of each noun that the loss pairs with a trajectory, whether that is of its class.
        actions, frames: (A E,) and (E,), features of each video; `texts` are their captions.
    """

    right: list[bool] = field(default_factory=list)
    chance: list[float] = field(default_factory=list)
    right_noun: list[bool] = field(default_factory=list)
    chance_noun: list[float] = field(default_factory=list)
    right_by_product: list[bool] = field(default_factory=list)
    right_noun_by_product: list[bool] = field(default_factory=list)
    assigned: list[bool] = field(default_factory=list)
    actions: list[Tensor] = field(default_factory=list)
    frames: list[Tensor] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def parse_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a checkpoint folder of pre-training")
    parser.add_argument("--manifest", default="test.jsonl", help="held-out videos, in data.root (%(default)s)")
    parser.add_argument("--fit", default="train.jsonl", help="videos to fit the regression on (%(default)s)")
    parser.add_argument("--most", type=int, default=600, help="videos of --fit that are used (%(default)s)")
    parser.add_argument("--motions", nargs="+", default=ACTIONS, help="phrases of captions (those of stories)")
    parser.add_argument("overrides", nargs="*", help="key=value, such as data.root=FOLDER")
    return parser.parse_intermixed_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    arguments = parse_arguments(words)

    try:
        task = trained_task(settings_to_use(Checkpoint.find(arguments.checkpoint), arguments.overrides, None), DEVICE)
        held_out = look(task, arguments.manifest)
        fitted = look(task, arguments.fit, arguments.most)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(summary(held_out, fitted, arguments.motions), indent=1))
    return 0


def look(task: VideoTextTask, name: str, most: int | None = None) -> Found:
    """Go through the videos of a manifest. ValueError without boxes or tags."""
    config, model = task.config, task.model
    if not isinstance(model, TaskModel) or config.data.objects is None or task.tags is None:
        raise ValueError("checkpoint: alignment is of STOA-VLP with data.objects and data.tags")
    classes = ObjectStore(Path(config.data.root) / config.data.objects).settings.classes
    records = manifest.read(Path(config.data.root) / name, video_folder(config))[:most]
    data = video_text(config, records, training=False)
    loader = evaluation_loader(data, batch_size=config.train.batch_size, rank=0, world_size=1, workers=0)

    found = Found()
    for batch in loader:
        (mask,) = task.tokenize_step([batch])
        with torch.no_grad():
            memory = encode_clip(model, batch["clip"]).memory  # type: ignore[attr-defined]
            texts = model.encode_text(batch["ids"], mask)
        found.frames += memory.frames.mean(dim=1).unbind()
        found.texts += batch["text"]
        if memory.actions is not None:
            found.actions += memory.actions.flatten(1).unbind()
        if memory.trajectories is not None:
            wanted = torch.zeros_like(batch["ids"])
            for clip, slot in batch["tags"][0].nonzero().tolist():
                (text,) = task.tokenizer.decode(batch["ids"][clip : clip + 1, : slot + 1])
                wanted[clip, slot] = class_at_end(text, classes)
            ids = batch["clip"].extras["trajectory_ids"]
            answers = Answers(wanted, ids, nouns_of(classes))
            point(found, memory, texts, Tags(*batch["tags"]), answers, model.end_is_candidate)
    return found


def class_at_end(text: str, classes: Mapping[str, int]) -> int:
    """The class with the longest name with which a text ends, word for word; 0 if there is none."""
    names = [name for name in classes if text == name or text.endswith(f" {name}")]
    return classes[max(names, key=len)] if names else 0


def nouns_of(classes: Mapping[str, int]) -> Tensor:
    """The noun of each class as a number, (classes + 1,): those whose names end in the same word have the same."""
    last = {number: name.split()[-1] for name, number in classes.items()}
    numbers = {noun: number for number, noun in enumerate(dict.fromkeys(last.values()), 1)}
    return torch.tensor([numbers.get(last.get(number, ""), 0) for number in range(max(last, default=0) + 1)])


@dataclass(frozen=True)
class Answers:
    """What is right.

    Attributes:
        wanted_BS: the class that each token names; 0 for none.
        trajectory_ids_BN: the class of each trajectory.
        noun_of_class: the noun of each class as a number, see `nouns_of`.
    """

    wanted_BS: Tensor
    trajectory_ids_BN: Tensor
    noun_of_class: Tensor


def point(
    found: Found, memory: ClipMemory, texts: TextFeatures, tags: Tags, answers: Answers, end_is_candidate: bool
) -> None:
    """Which trajectory each noun points at, and which one the loss gives it."""
    assert memory.trajectories is not None and memory.trajectory_mask is not None
    products = torch.einsum("B N E, B S E -> B S N", memory.trajectories, texts.states)
    others = ~(tags.noun.bool() & texts.mask)[..., None]
    shares = products.masked_fill(others, -torch.inf).log_softmax(dim=1)
    padding = ~memory.trajectory_mask[:, None]
    best, longest = (scores.masked_fill(padding, -torch.inf).argmax(dim=-1) for scores in (shares, products))
    assigned_BN = alignment_loss(memory, texts, tags, end_is_candidate=end_is_candidate).objects
    assert assigned_BN is not None

    for clip, slot in (tags.noun & (answers.wanted_BS > 0)).nonzero().tolist():
        wanted, ids = int(answers.wanted_BS[clip, slot]), answers.trajectory_ids_BN[clip]
        shown = ids[memory.trajectory_mask[clip]]
        if wanted not in shown:
            continue
        of_noun = answers.noun_of_class == answers.noun_of_class[wanted]
        pointed, by_product = int(ids[best[clip, slot]]), int(ids[longest[clip, slot]])
        found.right.append(pointed == wanted)
        found.chance.append(1 / len(shown))
        found.right_noun.append(bool(of_noun[pointed]))
        found.chance_noun.append(float(of_noun[shown].float().mean()))
        found.right_by_product.append(by_product == wanted)
        found.right_noun_by_product.append(bool(of_noun[by_product]))
        given = (assigned_BN[clip] == slot).nonzero()
        if len(given):
            found.assigned.append(int(ids[given[0, 0]]) == wanted)


NOUN_NUMBERS = (
    "right",
    "chance",
    "right_noun",
    "chance_noun",
    "right_by_product",
    "right_noun_by_product",
    "assigned",
)
"""Parts of `Found` that the summary has the mean of."""


def summary(held_out: Found, fitted: Found, motions: Sequence[str]) -> dict[str, float]:
    """All numbers, in percent but for counts."""
    numbers: dict[str, float] = {"videos": len(held_out.texts), "nouns": len(held_out.right)}
    if held_out.right:
        for name in NOUN_NUMBERS:
            numbers[f"nouns_{name}"] = _percent(getattr(held_out, name))
    for name in ("actions", "frames"):
        if getattr(held_out, name):
            areas = motions_told(getattr(fitted, name), fitted.texts, getattr(held_out, name), held_out.texts, motions)
            numbers[f"motions_from_{name}"] = _percent(areas)
    return numbers


def motions_told(
    fitted: list[Tensor], fitted_texts: list[str], features: list[Tensor], texts: list[str], motions: Sequence[str]
) -> list[float]:
    """The area under the ROC curve of each motion that some of the held-out videos show, and others do not."""
    known, labels = torch.stack(fitted).double(), labels_of(fitted_texts, motions)
    mean, deviation = known.mean(dim=0), known.std(dim=0) + 1e-6
    inputs = (known - mean) / deviation
    square = inputs.T @ inputs + RIDGE * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(square, inputs.T @ (labels - labels.mean(dim=0)))
    scores = ((torch.stack(features).double() - mean) / deviation) @ weights

    truth = labels_of(texts, motions).bool()
    shown = [motion for motion in range(len(motions)) if 0 < truth[:, motion].sum() < len(truth)]
    return [area(scores[:, motion].numpy(), truth[:, motion].numpy()) for motion in shown]


def labels_of(texts: Sequence[str], motions: Sequence[str]) -> Tensor:
    """Which phrases are in each text, (videos, motions) of 0 and 1."""
    patterns = [re.compile(rf"\b{re.escape(motion)}\b") for motion in motions]
    rows = [[float(pattern.search(text) is not None) for pattern in patterns] for text in texts]
    return torch.tensor(rows, dtype=torch.float64)


def area(scores: NDArray, truth: NDArray) -> float:
    """The share of pairs of a true and a false row in which the true one scores higher; ties count half."""
    differences = scores[truth][:, None] - scores[~truth][None]
    return float((differences > 0).mean() + (differences == 0).mean() / 2)


def _percent(values: Sequence[float]) -> float:
    return round(100 * float(np.mean(values)), 1)


if __name__ == "__main__":
    sys.exit(main())
