"""Names of checkpoint folders and of their files, which `engine/checkpoint_folder.py` describes; needs no torch."""

import re
from pathlib import Path

WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
CONFIG = "config.yaml"
STATE = "state.json"
RANDOM = "random.json"
QUARANTINE = "quarantine.json"
SUMS = "SHA256SUMS"
PICKLED = (".pth", ".pt", ".bin")
"""Suffixes of the files that `torch.save` writes."""

BEST = "checkpoint_best"
LAST = "checkpoint_last"
STEP = "checkpoint_step_*"
"""The folders that a run resumes from: `LAST` is the newest, `STEP` the pattern of the earlier ones."""


def is_pickled(path: Path) -> bool:
    """Whether a file's name is one that `torch.save` writes to; the number of a step may follow, as in `x.bin.2000`."""
    return re.sub(r"\.\d+$", "", path.name).endswith(PICKLED)
