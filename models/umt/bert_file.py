"""BERT's own weights as the start of UMT's text tower, as pre-training begins: all but the attention to videos."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

CROSS_ATTENTION = ".crossattention."
PARTS = ("text_encoder.", "mlm_head.")
NAMES = (("bert.", "text_encoder."), ("cls.predictions.", "mlm_head."))
"""How the names of transformers' BERT begin, and ours."""
OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
LISTED = 10


@torch.no_grad()
def start_from_bert(model: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """Put BERT's weights into a model's text tower, and its word head where the model has one; returns a log line.

    Cross-attention, which BERT lacks, keeps its fresh weights. ValueError if the file is of another BERT.
    """
    found = _under_our_names(tensors)
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(PARTS)}
    wanted = {name: tensor for name, tensor in own.items() if CROSS_ATTENTION not in name}

    # The word head is tied to the embeddings, which files store once or twice.
    for tied, source in (
        ("mlm_head.decoder.weight", "text_encoder.embeddings.word_embeddings.weight"),
        ("mlm_head.decoder.bias", "mlm_head.bias"),
    ):
        if source in found:
            found.setdefault(tied, found[source])

    wrong = [f"{name}: missing" for name in wanted if name not in found]
    wrong += [
        f"{name}: has shape {tuple(found[name].shape)}, the model's is {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    deeper = [name for name in found if name.startswith("text_encoder.encoder.layer.") and name not in wanted]
    wrong += [f"{name}: unexpected" for name in deeper]
    if wrong:
        raise ValueError(f"is no BERT as `model.text` describes: {'; '.join(wrong[:LISTED])}")

    model.load_state_dict({name: found[name] for name in wanted}, strict=False)
    return f"text tower: {len(wanted)} tensors of BERT; attention to videos keeps its fresh weights"


def _under_our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        for old, new in OLD_ENDINGS.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        for theirs, ours in NAMES:
            if name.startswith(theirs):
                found[ours + name.removeprefix(theirs)] = tensor
    return found
