"""Small CLIP models of transformers, our towers with the same weights, and archives as OpenAI publishes them."""

import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from models.parts.clip.image_tower import ImageTower
from models.parts.clip.names import IMAGE, from_transformers
from models.parts.clip.sizes import Activation, ImageTowerSizes, TextTowerSizes
from models.parts.clip.text_tower import TextTower

IMAGE_SIZES = ImageTowerSizes(width=24, depth=3, heads=3, patch_size=4, image_size=16, embed_dim=20)
TEXT_SIZES = TextTowerSizes(width=16, depth=2, heads=2, embed_dim=20, context=12, vocab_size=50)


def their_clip(activation: Activation) -> CLIPModel:
    torch.manual_seed(0)
    text = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50,
        "max_position_embeddings": 12, "bos_token_id": 48, "eos_token_id": 49, "hidden_act": activation,
    }  # fmt: skip
    vision = {
        "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96, "image_size": 16,
        "patch_size": 4, "hidden_act": activation,
    }  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)).eval()
    # Fresh biases and norms are 0 and 1, which would hide a weight that is not used.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def our_towers(model: CLIPModel, activation: Activation) -> tuple[ImageTower, TextTower]:
    weights = from_transformers(model.state_dict())
    image = ImageTower(replace(IMAGE_SIZES, activation=activation)).eval()
    text = TextTower(replace(TEXT_SIZES, activation=activation)).eval()
    image.load_state_dict(
        {name.removeprefix(IMAGE): weight for name, weight in weights.items() if name.startswith(IMAGE)}
    )
    text.load_state_dict(
        {name: weight for name, weight in weights.items() if not name.startswith(IMAGE) and name != "logit_scale"}
    )
    return image, text


def text_ids() -> torch.Tensor:
    """Texts of several lengths, padded with 0 after the end token 49."""
    rows = [[48, 3, 49], [48, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 49], [48, 49], [48, 30, 4, 4, 49]]
    ids = torch.zeros(len(rows), 12, dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return ids


class Node(nn.Module):
    """A module tree with tensors of any names."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        children: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            first, _, rest = name.partition(".")
            if rest:
                children.setdefault(first, {})[rest] = tensor
            elif first in ("input_resolution", "context_length", "vocab_size"):
                self.register_buffer(first, tensor)
            else:
                self.register_parameter(first, nn.Parameter(tensor))
        for name, held in children.items():
            self.add_module(name, Node(held))

    def forward(self, value: Tensor) -> Tensor:
        return value + 1


def write_torchscript(path: Path, tensors: dict[str, Tensor]) -> None:
    """Half precision and three sizes beside the weights, as in OpenAI's files."""
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    sizes = {name: torch.tensor(12) for name in ("input_resolution", "context_length", "vocab_size")}
    save_traced(Node({**halves, **sizes}), path)


def save_traced(module: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch is leaving TorchScript; published files stay
        torch.jit.trace(module, torch.zeros(1)).save(str(path))
