"""The counted multiply-accumulates against the paper's numbers and the closed form."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from configs.schedule import capacity
from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.testa.cost import Cost, count
from scripts.count_flops import main

ROOT = Path(__file__).resolve().parents[2]

# attention, frames, reducer, what leaves per block, GMACs, frames and patches left
PUBLISHED = [
    ("divided", 16, "none", {}, 392.512, 16, 196),
    ("divided", 16, "geometry", {"frames_per_block": 1, "patches_per_block": 2}, 228.966, 4, 172),
    ("divided", 32, "none", {}, 786.817, 32, 196),
    ("divided", 32, "geometry", {"frames_per_block": 1, "patches_per_block": 12}, 419.841, 20, 52),
    ("divided", 96, "none", {}, 2382.535, 96, 196),
    ("divided", 96, "geometry", {"frames_per_block": 4, "patches_per_block": 8}, 1381.402, 48, 100),
    ("divided", 96, "geometry", {"frames_per_block": 7}, 1303.874, 12, 196),
    ("divided", 96, "geometry", {"patches_per_block": 14}, 1364.022, 96, 28),
    ("joint", 16, "none", {}, 449.976, None, None),
    ("joint", 16, "tome", {"tokens_per_block": 197}, 252.439, None, None),
    ("divided", 96, "prune", {"frames_per_block": 4, "patches_per_block": 8}, 1380.878, 48, 100),
    ("divided", 96, "importance", {"frames_per_block": 4, "patches_per_block": 8}, 1380.94, 48, 100),
]


@pytest.mark.parametrize(("attention", "num_frames", "reducer", "amounts", "gmacs", "frames", "patches"), PUBLISHED)
def test_published_numbers(
    attention: str, num_frames: int, reducer: str, amounts: dict, gmacs: float, frames: int | None, patches: int | None
) -> None:
    cost = count(
        TestaConfig(attention=attention),
        VideoConfig(num_frames=num_frames),
        AggregationConfig(reducer=reducer, **amounts),
    )
    assert cost.gmacs == pytest.approx(gmacs, abs=0.01)
    assert (cost.frames, cost.patches) == (frames, patches)
    if frames is not None and patches is not None:
        assert cost.tokens == 1 + frames * patches
    else:
        assert cost.tokens == (3137 if reducer == "none" else 773)


def matched(tokens: int) -> int:
    """How many pairs the two sets of that many tokens make."""
    return (tokens + 1) // 2 * (tokens // 2)


def closed_form_divided(model: TestaConfig, video: VideoConfig, r_frames: int, r_patches: int) -> float:
    """MACs by formula, block by block: linear layers, attention, matching, norms."""
    width, head = model.width, model.width // model.heads
    frames, patches = video.num_frames, (video.image_size // model.patch_size) ** 2
    macs = frames * patches * width * 3 * model.patch_size**2
    for _ in range(model.depth):
        macs += 5 * width**2 * patches * frames + 2 * patches * frames**2 * width + 5 * width * patches * frames
        macs += patches * matched(frames) * head if r_frames else 0
        frames -= min(r_frames, capacity(frames, protected=1))
        within = patches + 1
        macs += 4 * width**2 * frames * within + 2 * frames * within**2 * width + 5 * width * frames * within
        macs += frames * matched(within) * head if r_patches else 0
        patches -= min(r_patches, capacity(patches, protected=0))
        macs += (8 * width**2 + 5 * width) * (1 + frames * patches)
    return macs + 5 * width * (1 + frames * patches)


def closed_form_joint(model: TestaConfig, video: VideoConfig, r: int) -> float:
    width, head = model.width, model.width // model.heads
    patches = (video.image_size // model.patch_size) ** 2
    macs, tokens = video.num_frames * patches * width * 3 * model.patch_size**2, 1 + video.num_frames * patches
    for _ in range(model.depth):
        macs += 4 * width**2 * tokens + 2 * tokens**2 * width + 5 * width * tokens
        macs += matched(tokens) * head if r else 0
        tokens -= min(r, capacity(tokens, protected=1))
        macs += (8 * width**2 + 5 * width) * tokens
    return macs + 5 * width * tokens


@pytest.mark.parametrize("seed", range(6))
def test_counted_equals_the_closed_form(seed: int) -> None:
    draw = random.Random(seed)
    heads, depth, side = draw.randint(6, 12), draw.randint(3, 6), draw.randint(9, 14)
    sizes = {"depth": depth, "heads": heads, "width": heads * draw.choice([48, 64]), "patch_size": draw.choice([8, 16])}
    video = VideoConfig(num_frames=draw.randint(16, 32), image_size=side * sizes["patch_size"])
    r_frames, r_patches, r_tokens = draw.randint(0, 2), draw.randint(0, 3), draw.randint(0, 40)
    model = TestaConfig(**sizes)
    aggregation = AggregationConfig(reducer="geometry", frames_per_block=r_frames, patches_per_block=r_patches)
    expected = closed_form_divided(model, video, r_frames, r_patches)
    assert count(model, video, aggregation).gmacs == pytest.approx(expected / 1e9, abs=5.1e-4)
    model = TestaConfig(attention="joint", **sizes)
    aggregation = AggregationConfig(reducer="tome", tokens_per_block=r_tokens)
    assert count(model, video, aggregation).gmacs == pytest.approx(
        closed_form_joint(model, video, r_tokens) / 1e9, abs=5.1e-4
    )


def test_frames_are_matched_patch_by_patch_only_when_they_vote() -> None:
    """The published 1381.402 is of the vote; matching mean keys does without nearly all of that."""
    amounts = {"frames_per_block": 4, "patches_per_block": 8}
    costs = [
        count(
            TestaConfig(),
            VideoConfig(num_frames=96),
            AggregationConfig(reducer="geometry", frame_match=match, **amounts),
        )
        for match in ("vote", "mean")
    ]
    assert costs[0].gmacs - costs[1].gmacs == pytest.approx(0.175, abs=0.002)


def test_space_only_is_each_frame_alone() -> None:
    assert count(TestaConfig(attention="space"), VideoConfig(num_frames=32), AggregationConfig()) == Cost(
        pytest.approx(562.623, abs=0.01), pytest.approx(562.623, abs=0.01), 32, 196, 32 * 197
    )


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "scripts.count_flops", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_command_line_prints_json() -> None:
    done = run(*"--frames 32 --reducer geometry --frames-per-block 1 --patches-per-block 12 --json".split())
    assert (done.returncode, done.stderr) == (0, "")
    counted = json.loads(done.stdout)
    assert counted == {"gmacs": 419.841, "executed_gmacs": 399.887, "frames": 20, "patches": 52, "tokens": 1041}


@pytest.mark.parametrize(
    ("flag", "value", "setting"), [("--frames", "96", "video.num_frames"), ("--reducer", "none", "aggregation.reducer")]
)
def test_flags_beside_a_configuration_are_refused(
    flag: str, value: str, setting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["count_flops", "--config", str(ROOT / "configs/testa/retrieval/queryd_f32.yaml"), flag, value]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert f"{flag}: has no effect with --config; override the setting: {setting}=" in capsys.readouterr().err


@pytest.mark.parametrize(("num_frames", "image_size", "saves"), [(32, 224, True), (4, 224, True), (1, 224, False)])
def test_two_layers_in_a_row_are_executed_as_one_where_that_is_less(
    num_frames: int, image_size: int, saves: bool
) -> None:
    """Of one image there are fewer tokens than the layers are wide: their product would cost more than it saves."""
    model = TestaConfig()
    cost = count(model, VideoConfig(num_frames=num_frames, image_size=image_size), AggregationConfig())
    tokens = num_frames * (image_size // model.patch_size) ** 2
    saved = model.depth * model.width**2 * (tokens - model.width - 1) / 1e9 if saves else 0
    assert cost.gmacs - cost.executed_gmacs == pytest.approx(saved, abs=1.1e-3)
