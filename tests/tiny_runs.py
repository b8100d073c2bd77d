"""Runs of a size for tests: a folder of small videos with captions, and configurations to train on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.load import from_dict
from configs.schema import CaptionConfig, PretrainConfig, RetrievalConfig, RunConfig, VqaConfig
from engine.heartbeat import Heartbeat
from engine.interruption import Interruption
from engine.loop import Trainer
from tests.videos import write_video

FRAMES, IMAGE = 4, 32
COLOURS = ("red", "green", "blue", "grey", "white", "pink", "brown", "olive", "black", "cyan")
MOVES = ("grows", "falls and stops", "turns round three times", "is still", "leaves to the left side of the room")
SETTINGS: dict[str, Any] = {
    "optim": {"lr": 1e-3},
    "train": {"batch_size": 4, "max_epochs": 2, "workers": 0, "log_every": 1},
    "video": {"num_frames": FRAMES, "image_size": IMAGE},
    "aggregation": {"reducer": "geometry", "frames_per_block": 1, "patches_per_block": 1},
    "model": {
        "depth": 2, "width": 16, "heads": 2, "embed_dim": 8,
        "text": {
            "tokenizer": "from_data", "vocab_size": 200, "depth": 2, "width": 16, "heads": 2, "intermediate": 32,
            "max_positions": 24, "dropout": 0.0,
        },
    },
}  # fmt: skip
CONFIGS: dict[str, type[RunConfig]] = {
    "pretrain": PretrainConfig,
    "retrieval": RetrievalConfig,
    "vqa": VqaConfig,
    "caption": CaptionConfig,
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "pretrain": {"losses": ["vtc", "vtm", "cap"], "queue_size": 13, "alpha_ramp_epochs": 1.0},
    "retrieval": {"losses": ["vtc", "vtm"], "queue_size": 6, "alpha_ramp_epochs": 1.0},
    "vqa": {},
    "caption": {},
}
QUESTIONS = ("what colour is it", "does it move", "how many colours are there in all of the video")


def caption(video: int, number: int = 0) -> str:
    """A sentence that no other (video, number) has, of 4 to 11 words."""
    return f"{COLOURS[number]} {COLOURS[video % 10]} {MOVES[video % 5]} {COLOURS[video // 10]}"


def write_data(root: Path, captions_of: list[int], manifest: str = "captions.jsonl", real: bool = True) -> Path:
    """A data folder of one video an entry of `captions_of`, which says how many captions it has; returns the folder.

    Videos are 8 frames of noise over a colour. Without `real` their files are there, but empty.
    """
    rng = np.random.default_rng(3)
    lines = []
    (root / "videos").mkdir(parents=True, exist_ok=True)
    for video, count in enumerate(captions_of):
        path = root / "videos" / f"{video}.mp4"
        colour, noise = rng.integers(0, 192, 3), rng.integers(0, 64, (8, 4, 4, 3))
        if real and not path.exists():
            write_video(path, (colour + noise).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8))
        elif not real:
            path.touch()
        lines.append({"video": path.name, "caption": [caption(video, number) for number in range(count)]})
    (root / manifest).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def write_questions(root: Path, questions_of: list[int], manifest: str = "questions.jsonl") -> Path:
    """Questions about the videos of `write_data`, as many for each as `questions_of` says, at most three."""
    lines = []
    for video, count in enumerate(questions_of):
        answers = (COLOURS[video % 10], "no" if video % 5 == 3 else "yes", ["two", "2", "two"])
        for number in range(count):
            line = {"video": f"{video}.mp4", "question": QUESTIONS[number] + "?", "answer": answers[number]}
            lines.append({**line, "question_id": f"{video}-{number}", "type": ("colour", "yes/no", "number")[number]})
    (root / manifest).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def settings(task: str, root: Path, **sections: Any) -> dict[str, Any]:
    """All settings of a small run as nested plain values; `sections` come over them, key by key."""
    data = {
        **SETTINGS,
        "task": task,
        "data": {"root": str(root), **({"manifest": "questions.jsonl"} if task == "vqa" else {})},
        "objective": OBJECTIVES[task],
        "output_dir": str(root / "run"),
    }
    for name, value in sections.items():
        data[name] = {**data[name], **value} if isinstance(value, dict) and name in data else value
    return data


def config(task: str, root: Path, **sections: Any) -> Any:
    """The configuration of `settings`."""
    return from_dict(CONFIGS[task], settings(task, root, **sections), "test")


def trainer(task: Any, settings: RunConfig) -> Trainer:
    """The engine at the first step of a run, not watched by anybody."""
    assert settings.output_dir is not None
    heartbeat = Heartbeat(Path(settings.output_dir) / "heartbeats", 0)
    return Trainer(task, settings, torch.device("cpu"), None, heartbeat, Interruption())


def clips(batch: int, seed: int = 0) -> torch.Tensor:
    """Random pixels (B, T, 3, H, W), uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, FRAMES, 3, IMAGE, IMAGE), generator=generator, dtype=torch.uint8)


def written(result: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The result, with what its files hold in the place of their writers."""
    held = {}
    for name, write in result["files"].items():
        write(folder / name)
        held[name] = (folder / name).read_bytes()
    return {**result, "files": held}
