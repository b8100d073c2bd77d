"""Which weights get a gradient from which losses; all others are frozen, as DDP requires."""

from collections.abc import Iterable

from models.stoa.sizes import StoaSizes

# Frames and texts get no gradient from the first of these, and do get one from the second.
OF_PRETRAINING = ("vtm", "mlm", "plm", "align")
OF_FINE_TUNING = ("cap", "qa")
LOSSES = ("vtc", *OF_PRETRAINING, *OF_FINE_TUNING)


def reached(
    names: Iterable[str], sizes: StoaSizes, losses: tuple[str, ...], contrast_reaches_frames: bool = True
) -> set[str]:
    """The names of the weights that some loss reaches.

    Where contrast does not reach the frames, as in the reference's pre-training, `vtc` trains no video tower.
    ValueError for an unknown loss.
    """
    unknown = [loss for loss in losses if loss not in LOSSES]
    if unknown:
        raise ValueError(f"objective.losses: {unknown[0]!r} is none of {', '.join(LOSSES)}")

    # What each loss reaches, in terms of the model's parts.
    uses = set(losses)
    fine_tunes = bool(uses & set(OF_FINE_TUNING))
    frames = fine_tunes or ("vtc" in uses and contrast_reaches_frames)
    texts = fine_tunes or "vtc" in uses
    fuses = bool(uses & {"vtm", "mlm", "plm", "cap", "qa"})
    objects = _reaches_objects(sizes, frames, branches=fuses or "align" in uses)

    def is_reached(name: str) -> bool:
        if name.startswith("visual.object_encoder."):
            return objects
        if name.startswith("visual."):
            return frames or (objects and _is_before_objects(name, sizes))
        if name == "text.token_embedding.weight":
            return texts or bool(uses & {"mlm", "plm", "cap", "qa"})
        if name.startswith("text."):
            return texts
        if name == "logit_scale":
            return "vtc" in uses
        if name.startswith("fusion_") and name.endswith("match_matrix"):
            return "vtm" in uses
        if name in ("fusion_proj", "fusion_logit_bias"):
            return bool(uses & {"mlm", "plm", "cap", "qa"})
        if name.startswith("fusion."):
            return fuses
        # The rest belongs to trajectories and actions, which all losses except contrast read.
        return fuses or "align" in uses

    return {name for name in names if is_reached(name)}


def _reaches_objects(sizes: StoaSizes, frames: bool, branches: bool) -> bool:
    """Whether a loss reaches object tokens, through trajectories, actions, or the frames beside them."""
    if sizes.objects == "none":
        return False
    by_branches = branches and (sizes.objects == "fusion" or sizes.actions)
    return by_branches or (sizes.objects == "attention" and frames)


def _is_before_objects(name: str, sizes: StoaSizes) -> bool:
    """Whether a weight of the video tower contributes to the object tokens."""
    if name.startswith("visual.transformer.resblocks."):
        return int(name.split(".")[3]) < sizes.object_blocks[-1]
    return not name.startswith(("visual.ln_post.", "visual.proj"))
