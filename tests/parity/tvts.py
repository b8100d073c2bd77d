"""TVTSv2's cases: towers, sorting head, a step of pre-training; those of data and scores are in files of their own."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.parts.clip.image_tower import ImageTower
from models.parts.clip.names import from_transformers
from models.parts.clip.sizes import ImageTowerSizes, TextTowerSizes
from models.parts.clip.text_tower import TextTower
from models.parts.losses_sorting import contrastive_loss, cosine_matrix, sorting_loss
from models.tvts.groups import parameter_groups, trained_names
from models.tvts.model import Tvts
from models.tvts.sizes import TVTS_PUBLISHED, TvtsSizes, kept_patches
from models.tvts.sort_head import SortHead
from models.tvts.video_tower import VideoTower
from models.tvts.weights import from_published, load_clip_video, published_name
from tests.parity import tvts_data, tvts_scores
from tests.parity.cases import Case, Meta, Tensors, weights_of
from tests.parity.facts import Differing, compare_facts

FAMILIES = {"b": TVTS_PUBLISHED["TVTSv2 B/16"], "h": TVTS_PUBLISHED["TVTSv2 H/14"]}
"""What the sizes of a case do not say follows from its family."""


def image_sizes(meta: Meta, embed_dim: int, activation: str) -> ImageTowerSizes:
    return ImageTowerSizes(
        width=meta["width"],
        depth=meta["layers"],
        heads=meta["heads"],
        patch_size=meta["patch_size"],
        image_size=meta["image_size"],
        embed_dim=embed_dim,
        activation=activation,
    )


def text_sizes(meta: Meta, embed_dim: int, activation: str) -> TextTowerSizes:
    return TextTowerSizes(
        width=meta["width"],
        depth=meta["layers"],
        heads=meta["heads"],
        embed_dim=embed_dim,
        context=meta["context"],
        vocab_size=meta["vocab"],
        activation=activation,
    )


@torch.no_grad()
def compute_video(tensors: Tensors, meta: Meta) -> Tensors:
    """The video tower alone."""
    family = FAMILIES[meta["kind"].removeprefix("tvts_video_")]
    sizes = image_sizes(meta, meta["output_dim"], meta["activation"])
    tower = VideoTower(sizes, meta["num_frames"], family.raw_patches).eval()
    tower.load_state_dict(weights_of(tensors, "state_dict."))
    encoded = tower(tensors["video"], tensors["keep_ind"])
    sequence = "patch_tokens" if family.raw_patches else "tokens"
    return {"embedding": encoded.embedding, sequence: tower.sequence(encoded)}


def video_facts(tensors: Tensors, meta: Meta) -> Differing:
    """How many patches a tube mask keeps."""
    return compare_facts(meta, kept_patches=kept_patches(meta["patches_per_frame"], meta["mask_ratio"]))


@torch.no_grad()
def compute_clip_equal(tensors: Tensors, meta: Meta) -> Tensors:
    """One frame through the video tower, started from CLIP under each of its two namings; and CLIP itself."""
    sizes = image_sizes(meta, meta["output_dim"], meta["activation"])
    family = FAMILIES[meta["family"]]
    openai = weights_of(tensors, "openai.")
    converted = from_transformers(weights_of(tensors, "hf."))
    image_tower = ImageTower(sizes).eval()
    image_tower.load_state_dict(openai)

    embeddings = [image_tower(tensors["pixel_values"]).embedding]
    for weights in ({f"visual.{name}": tensor for name, tensor in openai.items()}, converted):
        tower = VideoTower(sizes, meta["num_frames"], family.raw_patches).eval()
        load_clip_video(tower, weights, "the case")
        torch.nn.init.zeros_(tower.temporal_embedding)
        embeddings.append(tower(tensors["pixel_values"]).embedding)
        _require_equal(tower.state_dict(), weights_of(tensors, "state_dict."))
    return {"image_embeds": _furthest(embeddings, tensors["image_embeds"])}


def _require_equal(found: Tensors, expected: Tensors) -> None:
    differing = [name for name in expected if name not in found or not torch.equal(found[name], expected[name])]
    if differing or found.keys() != expected.keys():
        raise AssertionError(f"CLIP's weights arrive changed: {differing[:5]}")


def _furthest(candidates: list[Tensor], expected: Tensor) -> Tensor:
    return max(candidates, key=lambda candidate: float((candidate - expected).abs().max()))


def build_text_tower(meta: Meta) -> TextTower:
    tower = TextTower(text_sizes(meta, meta["embed_dim"], meta["activation"])).eval()
    tower.freeze_first_blocks(meta["layers"] - FAMILIES[meta["family"]].trained_text_blocks)
    return tower


@torch.no_grad()
def compute_text(tensors: Tensors, meta: Meta) -> Tensors:
    """The text tower alone."""
    tower = build_text_tower(meta)
    weights = from_published(weights_of(tensors, "state_dict."))
    tower.load_state_dict({name.removeprefix("text_model."): tensor for name, tensor in weights.items()})
    return {"text_embeddings": tower(tensors["input_ids"]).embedding}


def text_facts(tensors: Tensors, meta: Meta) -> Differing:
    """Which parameters of the text tower are trained."""
    parameters = {published_name(f"text_model.{name}"): p for name, p in build_text_tower(meta).named_parameters()}
    trainable = {name for name, parameter in parameters.items() if parameter.requires_grad}
    return compare_facts(meta, trainable=trainable, frozen=parameters.keys() - trainable)


@torch.no_grad()
def compute_sort(tensors: Tensors, meta: Meta) -> Tensors:
    """The sorting head alone."""
    head = SortHead(meta["width"], meta["heads"], meta["layers"], meta["classes"]).eval()
    head.load_state_dict(weights_of(tensors, "state_dict."))
    return {"logits": head(tensors["video_tokens"], tensors["transcripts"])}


def build_pretraining_model(meta: Meta) -> Tvts:
    family = FAMILIES[meta["family"]]
    sizes = TvtsSizes(
        image=image_sizes(meta["vision"], meta["embed_dim"], meta["activation"]),
        text=text_sizes(meta["text"], meta["embed_dim"], meta["activation"]),
        num_frames=meta["num_frames"],
        raw_patches=family.raw_patches,
        mask_ratio=meta["mask_ratio"],
        sort_heads=meta["sort"]["heads"],
        trained_text_blocks=family.trained_text_blocks,
        num_transcripts=meta["sort"]["classes"],
    )
    model = Tvts(sizes, sorting=True)
    model.pred_model = SortHead(
        meta["embed_dim"], meta["sort"]["heads"], meta["sort"]["layers"], meta["sort"]["classes"]
    )
    return model.train()


class PretrainStep(NamedTuple):
    """Outputs of a step, and of each gradient the parameters that have none."""

    outputs: Tensors
    no_gradient: dict[str, set[str]]


def run_pretrain_step(tensors: Tensors, meta: Meta) -> PretrainStep:
    """Losses and gradients of a batch with transcripts and of one with captions."""
    model = build_pretraining_model(meta)
    model.load_state_dict(from_published(weights_of(tensors, "state_dict.")))
    step = PretrainStep({}, {})
    for source, num_texts in (("yt", meta["num_transcripts"]), ("web", 1)):
        # Row k * batch + b of the case is transcript k of clip b.
        ids = tensors[f"{source}.text_ids"].unflatten(0, (num_texts, -1)).transpose(0, 1)
        found = model.sort(tensors[f"{source}.video"], ids, tensors[f"{source}.keep_ind"])
        contrastive = total = contrastive_loss(found.video, found.text, meta["temperature"])
        outputs = {
            "video_embeddings": found.video,
            "text_embeddings": found.text,
            "similarity": cosine_matrix(found.video, found.text),
            "loss_contrastive": contrastive,
        }

        if found.order_logits is not None:
            sorting = sorting_loss(found.order_logits, tensors[f"{source}.label"])
            total = contrastive + meta["sort_weight"] * sorting
            outputs |= {"sort_logits": found.order_logits, "loss_sort": sorting}
            outputs["grad_norm_sort_only"], without = gradient_norms(model, sorting, meta["parameter_names"])
            step.no_gradient[f"{source}_sort_only"] = without
        outputs["loss_total"] = total
        outputs["grad_norm"], step.no_gradient[source] = gradient_norms(model, total, meta["parameter_names"])
        step.outputs.update({f"{source}.{name}": tensor.detach() for name, tensor in outputs.items()})
    return step


def gradient_norms(model: Tvts, loss: Tensor, names: list[str]) -> tuple[Tensor, set[str]]:
    """Norms of the gradients of the named parameters, 0 where there is none, and which have none."""
    parameters = {published_name(name): parameter for name, parameter in model.named_parameters()}
    trained = [name for name in names if parameters[name].requires_grad]
    gradients = torch.autograd.grad(loss, [parameters[name] for name in trained], retain_graph=True, allow_unused=True)
    norms = {name: grad.norm() for name, grad in zip(trained, gradients, strict=True) if grad is not None}
    return torch.stack([norms.get(name, torch.zeros(())) for name in names]), set(names) - norms.keys()


def compute_pretrain_step(tensors: Tensors, meta: Meta) -> Tensors:
    """See `run_pretrain_step`."""
    return run_pretrain_step(tensors, meta).outputs


def pretrain_facts(tensors: Tensors, meta: Meta) -> Differing:
    """Names of parameters, which are frozen or get no gradient, and the optimizer's groups."""
    with torch.device("meta"):
        model = build_pretraining_model(meta)
    names = {published_name(name) for name, _ in model.named_parameters()}
    trained = {published_name(name) for name in trained_names(model)}
    differing = compare_facts(meta, parameter_names=names, frozen=names - trained)
    differing += compare_facts(meta["no_gradient"], **run_pretrain_step(tensors, meta).no_gradient)

    groups = parameter_groups(trained, temporal_embedding="clip")
    found, expected = (
        [(group["lr"], group["weight_decay"], sorted(group["names"])) for group in side]
        for side in (groups, meta["parameter_groups"])
    )
    return differing + (["parameter_groups"] if found != expected else [])


def expected_outputs(case: Case) -> set[str]:
    """The names of the tensors to match."""
    return set(case.meta["outputs"])


KINDS = {
    "tvts_video_": compute_video,
    "tvts_clip_equal": compute_clip_equal,
    "tvts_text": compute_text,
    "tvts_sort": compute_sort,
    "tvts_pretrain_step": compute_pretrain_step,
    **tvts_data.KINDS,
    **tvts_scores.KINDS,
}
FACTS = {
    "tvts_video_": video_facts,
    "tvts_text": text_facts,
    "tvts_pretrain_step": pretrain_facts,
    **tvts_data.FACTS,
    **tvts_scores.FACTS,
}
RELATIVE = ("grad_norm",)
