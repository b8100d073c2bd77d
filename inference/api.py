"""A trained checkpoint as one object: it turns videos and texts into embeddings, matches, answers and captions.

    model = load_model("outputs/didemo/checkpoint_best", "aggregation.keep=0.25")
    cosines = model.encode_text(["a dog runs", "a man sings"]) @ model.encode_video("video.mp4")

Frames, sampling, image size, pixel mean, aggregation and tokenizer come from the checkpoint, so results match
training's evaluation. Nothing here is a collective: each process may use its object alone.

Shapes: V videos, P texts, E width of the shared space, N video tokens, D width, T frames, L patches a frame.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from engine.hub import Checkpoint
from engine.precision import DTYPES, Precision, check_gpu_is_supported, resolve_precision
from engine.run import choose_device
from inference.outputs import EncodedTokens as EncodedTokens
from inference.trained import settings_to_use, trained_task
from inference.trained_model import TrainedModel as TrainedModel

logger = logging.getLogger(__name__)


def load_model(
    source: str | Path | Checkpoint,
    *overrides: str,
    config: Path | None = None,
    device: str | torch.device | None = None,
    dtype: Literal["auto"] | Precision | None = None,
) -> TrainedModel:
    """Load a checkpoint of any task: a folder such as checkpoint_best, an `hf://` address, or a `Checkpoint`.

    Args:
        overrides: settings that replace the checkpoint's own, such as "aggregation.keep=0.25"; no training settings.
        config: the YAML file for weights without a config.yaml beside them, such as TESTA's published files.
        device: by default this process's GPU, or the CPU if there is none.
        dtype: fp32, bf16, fp16 or auto; by default the checkpoint's `train.precision`.

    Raises:
        ValueError: the checkpoint does not exist, or a setting does not fit it.
    """
    used_device = choose_device() if device is None else torch.device(device)
    if used_device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {device} is not there; leave it out, or give cpu")
    check_gpu_is_supported(used_device)

    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint.find(str(source))
    settings = settings_to_use(checkpoint, list(overrides), config)

    if dtype is None and settings.train.precision == "fp16" and used_device.type == "cpu":
        logger.info("fp32 in place of fp16, in which it was trained and which needs a GPU")
        dtype = "fp32"
    if dtype is not None:
        settings = replace(settings, train=replace(settings.train, precision=dtype))
    precision = resolve_precision(settings.train.precision, used_device)

    task = trained_task(settings, used_device)
    task.fold_for_inference(DTYPES[precision])
    return TrainedModel(task, checkpoint, precision)
