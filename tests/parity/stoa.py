"""STOA-VLP's cases: which function computes a case, and what is to be matched."""

from tests.parity import stoa_branches, stoa_losses, stoa_tasks
from tests.parity.cases import Case, Compute, outputs_to_match
from tests.parity.stoa_branches import WEIGHTS, build_model

PLAIN = {"object_fuse": "none", "actions": False}
"""What a case of a model without objects and actions adds to its sizes."""

KINDS: dict[str, Compute] = {
    "stoa_visual": stoa_branches.check_visual,
    "stoa_objects": stoa_branches.check_objects,
    "stoa_trajectory": stoa_branches.check_trajectory,
    "stoa_action": stoa_branches.check_action,
    "stoa_fusion": stoa_branches.check_fusion,
    "stoa_vtm": stoa_losses.check_vtm,
    "stoa_mlm": stoa_losses.check_mlm,
    "stoa_plm": stoa_losses.check_plm,
    "stoa_match": stoa_losses.check_match,
    "stoa_total": stoa_losses.check_total,
    "stoa_retrieval_loss": stoa_losses.check_retrieval_loss,
    "stoa_caption_loss": stoa_losses.check_caption_loss,
    "stoa_caption_greedy": stoa_losses.check_caption_greedy,
    "stoa_qa": stoa_losses.check_qa,
    "stoa_mc": lambda tensors, meta: stoa_tasks.check_choice(build_model(tensors, {**meta, **PLAIN}), tensors, meta),
    "stoa_retrieval_match": lambda tensors, meta: stoa_tasks.check_match(build_model(tensors, meta), tensors, meta),
    "stoa_retrieval_rerank": stoa_tasks.check_rerank,
    "stoa_retrieval_metrics": stoa_tasks.check_metrics,
    "stoa_retrieval_captions": stoa_tasks.check_captions,
    "stoa_detections": stoa_tasks.check_detections,
    "stoa_optimizer": stoa_tasks.check_optimizer,
}


def expected_outputs(case: Case) -> set[str]:
    """Every tensor of a case that is neither weight nor input."""
    return outputs_to_match(case.tensors, set(case.meta["inputs"]), (WEIGHTS,))
