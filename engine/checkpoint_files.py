"""The names of checkpoint folders and their files, as `engine/checkpoint_folder.py` describes; needs no torch."""

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
"""The folders that a run resumes from: the newest, and the pattern of those before it."""
