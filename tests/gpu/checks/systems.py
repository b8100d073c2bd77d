"""What every system must do on a GPU as TESTA does: compute as on a CPU, in lower formats, compiled, fused, planned."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from configs.load import from_dict
from configs.schema import RetrievalConfig
from engine.precision import Precision, autocast, resolve_precision
from scripts.plan_memory.step import make_task
from tasks.clips import encode_clip
from tests.gpu.checks.formats import APART, require
from tests.gpu.checks.outcome import Finding, Reading, difference, distance, gradient_difference, not_finite
from tests.gpu.checks.parity import FORWARD, GRADIENT
from tests.gpu.checks.planned import steps_as_planned
from tests.gpu.checks.sizes import Size
from tests.gpu.checks.systems_settings import IDS, SETTINGS, clip_of

CPU = torch.device("cpu")
COMPILED = {"embedding": 1e-3, "gradients": 1e-2}
"""A compiler adds up in another order."""


@dataclass(frozen=True)
class Encoded:
    """Embeddings of clips and texts, and the gradients of a weighted sum of them."""

    video: Tensor
    text: Tensor
    gradients: list[Tensor | None]


def as_on_a_cpu(device: torch.device, size: Size, system: str) -> Finding:
    """Embeddings, gradients, and which tokens merge, on the device and on a CPU in float32."""
    sides = [_encode(build(size, where, system), size, where, system) for where in (device, CPU)]
    readings = _apart(sides[0], sides[1], FORWARD, GRADIENT)
    if SETTINGS[system].merges:
        origins = [_origins(build(size, where, system), size, where, system) for where in (device, CPU)]
        readings.append(Reading("cells elsewhere", int((origins[0].cpu() != origins[1]).sum()), 0))
    return Finding(readings)


def near_float32(device: torch.device, size: Size, system: str, precision: Precision) -> Finding:
    """Embeddings and gradients under autocast, without merging: other formats choose otherwise between like tokens."""
    require(device, precision)
    expected, found = (
        _encode(build(size, device, system, merges=False), size, device, system, precision=one)
        for one in ("fp32", precision)
    )
    return Finding(
        [
            Reading("video embedding", distance(found.video, expected.video), APART[precision]),
            Reading("text embedding", distance(found.text, expected.text), APART[precision]),
            Reading("gradients not finite", not_finite(found.gradients), 0),
        ]
    )


def compiled(
    device: torch.device, size: Size, system: str, backend: Literal["inductor", "aot_eager"] = "inductor"
) -> Finding:
    """The towers that the system compiles against eager ones, forward and gradient, with merging."""
    torch.compiler.reset()
    eager, model = build(size, device, system), build(size, device, system)
    if backend == "aot_eager":
        for module in model.modules():
            module.compile = _compile_with(module, backend)  # type: ignore[method-assign]
    model.compile_towers()
    expected, found = (_encode(one, size, device, system) for one in (eager, model))
    return Finding(_apart(found, expected, COMPILED["embedding"], COMPILED["gradients"]))


def fused(device: torch.device, size: Size, system: str) -> Finding:
    """The kernels that attention takes against plain products, and the model folded for inference against itself."""
    plain_model = build(size, device, system)
    expected_by_kernel = _encode(plain_model, size, device, system)
    with sdpa_kernel(SDPBackend.MATH):
        expected = _encode(build(size, device, system), size, device, system)
    readings = _apart(expected_by_kernel, expected, FORWARD, GRADIENT)

    folded = build(size, device, system).eval()
    with torch.no_grad():
        before = encode_clip(folded, clip_of(size, device, system)).embedding
        folded.fold_for_inference(torch.float32)
        after = encode_clip(folded, clip_of(size, device, system)).embedding
    return Finding([*readings, Reading("folded", difference(after, before), FORWARD)])


def memory(device: torch.device, size: Size, system: str, batch: int) -> Finding:
    """Steps of training, and how far the most that was allocated is from the plan; on a CPU only the steps."""
    config = config_of(size, system, precision=resolve_precision("auto", device), batch=batch, whole=True)
    return steps_as_planned(device, config, batch, SETTINGS[system].words)


def config_of(
    size: Size, system: str, merges: bool = True, precision: Any = "fp32", batch: int | None = None, whole: bool = False
) -> RetrievalConfig:
    """A system's retrieval, of this size; `whole` is the published depth that memory is measured with."""
    settings = SETTINGS[system].settings(size, merges, whole)
    train = {"batch_size": batch or size.batch, "max_epochs": 1, "precision": precision}
    sections = {"data": {"root": "."}, "optim": {"lr": 1e-5}, "evaluation": {"rerank": 0}, **settings, "train": train}
    return from_dict(RetrievalConfig, sections, f"the check of {system}")


def build(size: Size, device: torch.device, system: str, merges: bool = True) -> Any:
    """The system's model, in training, without dropout and with weights that are the same on every device."""
    torch.manual_seed(0)
    model = make_task(config_of(size, system, merges), made_on=CPU, device=device).model
    SETTINGS[system].prepare(model)
    return model.to(device).train()


def _encode(model: Any, size: Size, device: torch.device, system: str, precision: Precision = "fp32") -> Encoded:
    model.zero_grad()
    ids = IDS[system].to(device)
    with autocast(device, precision):
        video = encode_clip(model, clip_of(size, device, system)).embedding
        text = model.encode_text(ids, (ids > 0).long()).embedding
    weights = torch.randn(2, *video.shape, generator=torch.Generator().manual_seed(4)).to(device)
    (video.float() * weights[0]).sum().add((text[: len(video)].float() * weights[1][: len(text)]).sum()).backward()
    return Encoded(video.detach(), text.detach(), [parameter.grad for parameter in model.parameters()])


def _apart(found: Encoded, expected: Encoded, forward: float, gradient: float) -> list[Reading]:
    return [
        Reading("video embedding", difference(found.video, expected.video), forward),
        Reading("text embedding", difference(found.text, expected.text), forward),
        Reading("gradients", gradient_difference(found.gradients, expected.gradients), gradient),
    ]


@torch.no_grad()
def _origins(model: Any, size: Size, device: torch.device, system: str) -> Tensor:
    return model.trace_video(clip_of(size, device, system).pixels).origins


def _compile_with(module: torch.nn.Module, backend: str) -> Any:
    def compile_module(**settings: Any) -> None:
        torch.nn.Module.compile(module, **{**settings, "backend": backend})

    return compile_module
