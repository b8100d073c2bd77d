"""The device against a CPU, in float32: the same weights and inputs, forward and gradient."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.parts.features import EncodedVideo
from models.testa.video_encoder import VideoEncoder
from tests.gpu.checks.models import aggregation, build_model, clips, pixels, texts
from tests.gpu.checks.outcome import Finding, Reading, difference, gradient_difference
from tests.gpu.checks.sizes import Size

CPU = torch.device("cpu")
FORWARD, GRADIENT = 1e-4, 1e-3


def encode(
    run: Callable[..., EncodedVideo], encoder: VideoEncoder, video: Tensor
) -> tuple[EncodedVideo, list[Tensor | None]]:
    """What `run` makes of a clip, and the gradients of a weighted sum of its tokens for the clip and `encoder`."""
    encoder.zero_grad()
    video = video.clone().requires_grad_()
    encoded = run(video, return_origins=True)
    weights = torch.randn(encoded.tokens.shape, generator=torch.Generator().manual_seed(4))
    (encoded.tokens.float() * weights.to(video.device)).sum().backward()
    return encoded, [video.grad, *(parameter.grad for parameter in encoder.parameters())]


def compare(
    found: tuple[EncodedVideo, list[Tensor | None]], expected: tuple[EncodedVideo, list[Tensor | None]]
) -> list[Reading]:
    """Cells that another token holds, tokens, gradients."""
    assert found[0].origins is not None and expected[0].origins is not None
    elsewhere = int((found[0].origins.cpu() != expected[0].origins.cpu()).sum())
    return [
        Reading("cells elsewhere", elsewhere, 0),
        Reading("tokens", difference(found[0].tokens, expected[0].tokens), FORWARD),
        Reading("gradients", gradient_difference(found[1], expected[1]), GRADIENT),
    ]


def encoder(device: torch.device, size: Size, attention: str, reducer: str) -> Finding:
    """The video encoder with one kind of attention and one reducer."""
    sides = []
    for where in (device, CPU):
        own = build_model(size, where, attention, aggregation(size, reducer, attention)).visual_encoder.train()
        sides.append(encode(own, own, clips(size, where)))
    return Finding(compare(*sides))


def text(device: torch.device, size: Size) -> Finding:
    """Text alone, matching with a video, captions and their gradients; and matching as an evaluation does it."""
    sides = []
    for where in (device, CPU):
        model = build_model(size, where).train()
        ids, mask = texts(size, where)
        video = model.encode_video(pixels(size, where))
        outputs = {
            "video embedding": video.embedding,
            "text embedding": model.encode_text(ids, mask).embedding,
            "match": model.match(video.tokens, ids, mask),
            "caption loss": model.context_loss(video.tokens, ids, mask),
        }
        generator = torch.Generator().manual_seed(5)
        weights = [torch.randn(output.shape, generator=generator).to(where) for output in outputs.values()]
        parts = [(output * weight).sum() for output, weight in zip(outputs.values(), weights, strict=True)]
        torch.stack(parts).sum().backward()
        with torch.no_grad():
            outputs["match in evaluation"] = model.eval().match(video.tokens, ids, mask)
        sides.append((outputs, [parameter.grad for parameter in model.parameters()]))
    (found, own), (expected, other) = sides
    readings = [Reading(name, difference(found[name], expected[name]), FORWARD) for name in expected]
    return Finding([*readings, Reading("gradients", gradient_difference(own, other), GRADIENT)])
