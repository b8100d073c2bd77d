"""Parameters by their names: which are frozen, which decay, and which share of the learning rate each one has."""

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from configs.schema import ParameterGroupConfig

BLOCK_NAMES = {
    "blocks": "vision transformers, as TESTA's and UMT's",
    "layer": "BERT",
    "resblocks": "CLIP, and what is built on it",
}
"""What a module calls the list of its blocks, and where; a number follows. `optim.layer_decay` goes by these."""

BEFORE_BLOCKS = ("embed", "cls_token", "conv1", "ln_pre")
"""Parts of the names of what lies in a tower before its first block; CLIP's patches are embedded by `conv1`."""

_BLOCK = re.compile(rf"(?:^|\.)(?:{'|'.join(BLOCK_NAMES)})\.(\d+)\.")


def freeze(module: nn.Module, patterns: Iterable[str]) -> None:
    """Take the parameters that `patterns` name out of training, as `matching_names` matches them.

    A parameter of several names goes by each of them. `ValueError` for a pattern of no parameter, with the nearest
    names.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        names = matching_names(pattern, list(parameters))
        if not names:
            raise ValueError(f"optim.freeze: {_no_match(pattern, list(parameters))}")
        for name in names:
            parameters[name].requires_grad_(False)


def matching_names(pattern: str, names: Sequence[str]) -> list[str]:
    """The parameter names that begin with the whole parts of `pattern`; a task's leading `model.` may be left out.

    A `*` stands for any text, dots included: `*.norm1` is every layer norm of that name.
    """
    wanted = _without_model(pattern)
    if "*" in wanted:
        return [name for name in names if _fits(_without_model(name), wanted)]
    return [name for name in names if f"{_without_model(name)}.".startswith(f"{wanted}.")]


def group_of_each(module: nn.Module, groups: Sequence[ParameterGroupConfig]) -> dict[str, int]:
    """The position in `groups` of the first one that names each trainable parameter; others are left out.

    `ValueError` for a pattern of no parameter, and for a group whose parameters are all frozen or in earlier groups.
    """
    # A tied parameter is trained under its first name, and belongs to a group by any of its names.
    parameters = dict(module.named_parameters(remove_duplicate=False))
    trained_as = {parameter: name for name, parameter in module.named_parameters() if parameter.requires_grad}

    chosen: dict[str, int] = {}
    for position, group in enumerate(groups):
        members: set[str] = set()
        for pattern in group.names:
            matched = matching_names(pattern, list(parameters))
            if not matched:
                raise ValueError(f"optim.groups[{position}].names: {_no_match(pattern, list(parameters))}")
            members |= {trained_as[parameters[name]] for name in matched if parameters[name] in trained_as}

        new_members = members - chosen.keys()
        if not new_members:
            raise ValueError(
                f"optim.groups[{position}].names: all parameters of {', '.join(group.names)} are frozen or belong to "
                "an earlier group; the first group that names a parameter has it, so list the special ones first"
            )
        chosen |= dict.fromkeys(new_members, position)
    return chosen


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether `decay: matrices` lets a parameter decay: no norm, bias, other vector or scalar, and no embedding."""
    return parameter.ndim > 1 and "embed" not in name and "cls_token" not in name


def layer_factors(names: Sequence[str], layer_decay: float) -> dict[str, float]:
    """The factor on each parameter's rate: `layer_decay` once more for every block between it and the tower's output.

    The last of a tower's blocks has `layer_decay`, the first one that to the power of the depth, and what lies before
    the blocks one power more; heads and norms behind the blocks have 1. A tower is what the first part of the name
    (without `model.`) says. `ValueError` if a `layer_decay` below 1 finds no block.
    """
    blocks = {name: int(match[1]) for name in names if (match := _BLOCK.search(name))}
    if layer_decay < 1 and not blocks:
        expected = ", ".join(f"{block_name}.0" for block_name in BLOCK_NAMES)
        parts = sorted({_tower(name) for name in names})
        raise ValueError(
            f"optim.layer_decay: {layer_decay} has no effect: no parameter belongs to a numbered block ({expected}) of "
            f"{', '.join(parts)}; leave it at 1, or give parts their own rate with optim.groups"
        )

    depths: dict[str, int] = {}
    for name, block in blocks.items():
        depths[_tower(name)] = max(depths.get(_tower(name), 0), block + 1)

    factors = {}
    for name in names:
        depth = depths.get(_tower(name), 0)
        if name in blocks:
            factors[name] = layer_decay ** (depth - blocks[name])
        elif depth and any(part in name for part in BEFORE_BLOCKS):
            factors[name] = layer_decay ** (depth + 1)
        else:
            factors[name] = 1.0
    return factors


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _no_match(pattern: str, names: Sequence[str]) -> str:
    """Says that no parameter has a name like `pattern`, and which names come near."""
    split_names = [_without_model(name).split(".") for name in names]
    if "*" in pattern:
        wanted = pattern.replace("*", "").strip(".")
        known = {part for parts in split_names for part in parts}
        found = f"{pattern!r} matches no parameter's name"
    else:
        wanted = _without_model(pattern)
        known = {".".join(parts[:end]) for parts in split_names for end in range(1, len(parts) + 1)}
        found = f"{pattern!r} begins no parameter's name"

    nearest = difflib.get_close_matches(wanted, sorted(known), cutoff=0.4)
    nearest = nearest or sorted({parts[0] for parts in split_names})
    return f"{found}; near are {', '.join(nearest)}"


def _without_model(name: str) -> str:
    return name.removeprefix("model.")


def _tower(name: str) -> str:
    return _without_model(name).split(".")[0]
