"""The rows of TVTSv2 (2023), read from the tables of its README: zero-shot, from the published weights.

Its rows with dual softmax are listed and not compared: the temperature behind them is not stated. GMACs are what
`scripts.count_flops` counts; none is printed.
"""

from collections.abc import Mapping

from scripts.parts.rows import evaluated_sets as sets
from scripts.parts.rows.row import EvaluatedSet, Publication, Row, Unobtainable, recalls

README = "README"
SIZES: dict[str, tuple[str, float]] = {
    "b32": ("TVTSv2_ViT_B_32.pth", 68.878),
    "b16": ("TVTSv2_ViT_B_16.pth", 277.381),
    "h14": ("TVTSv2_ViT_H_14.pth", 2650.492),
}
"""The released weights of each size, and the GMACs of 12 frames."""
LABELS = {"b32": "TVTSv2 B/32", "b16": "TVTSv2 B/16", "h14": "TVTSv2 H/14"}
RETRIEVAL: dict[str, tuple[EvaluatedSet, dict[str, tuple[float, float, float]]]] = {
    "msrvtt": (sets.MSRVTT, {"b32": (34.5, 58.5, 67.7), "b16": (35.9, 61.2, 71.3), "h14": (38.2, 62.4, 73.2)}),
    "didemo": (sets.DIDEMO, {"b32": (31.2, 56.9, 68.3), "b16": (33.4, 60.1, 70.6), "h14": (34.6, 61.9, 71.5)}),
    "lsmdc": (sets.LSMDC, {"b32": (16.1, 30.6, 38.7), "b16": (16.9, 31.5, 38.2), "h14": (17.3, 32.5, 41.4)}),
}
"""R@1, R@5 and R@10 of texts that look for videos."""
ZERO_SHOT: dict[str, tuple[EvaluatedSet, dict[str, float]]] = {
    "hmdb51": (sets.HMDB51, {"b16": 50.4, "h14": 52.1}),
    "ucf101": (sets.UCF101, {"b16": 69.8, "h14": 78.0}),
    "kinetics400": (sets.KINETICS400, {"b16": 54.3, "h14": 59.6}),
    "ssv2_mc": (sets.SSV2_MC, {"b16": 42.1, "h14": 48.4}),
}
"""Top-1 by the prompt `a person {}`, or of a video's own options; B/32 has no number."""
PROBES: dict[str, tuple[EvaluatedSet, dict[str, float]]] = {
    "hmdb51": (sets.HMDB51, {"b16": 64.7, "h14": 65.7}),
    "ucf101": (sets.UCF101, {"b16": 90.0, "h14": 91.8}),
    "kinetics400": (sets.KINETICS400, {"b16": 70.1, "h14": 73.1}),
}
"""Top-1 of linear probes."""
NO_RECIPE = "the recipe behind the published number is not stated; this is ours"
DUAL_SOFTMAX: dict[str, dict[str, str]] = {
    "msrvtt": {"b32": "36.4 / 58.0 / 69.0", "b16": "37.8 / 62.9 / 72.4", "h14": "41.3 / 63.0 / 74.0"},
    "didemo": {"b32": "37.0 / 61.6 / 70.9", "b16": "39.0 / 63.9 / 72.6", "h14": "39.5 / 63.6 / 73.1"},
    "lsmdc": {"b32": "15.6 / 31.8 / 38.6", "b16": "18.3 / 33.7 / 41.9", "h14": "20.0 / 37.8 / 48.6"},
}
NO_TEMPERATURE = "dual softmax at a temperature that is not stated; evaluation.dual_softmax=true has one of its own"


def _retrieval() -> list[Row]:
    return [
        Row(
            tables=(README,),
            label=LABELS[size],
            dataset=dataset,
            config=f"configs/tvts/retrieval/{name}_{size}.yaml",
            gmacs=SIZES[size][1],
            expected={README: recalls(*published)},
            released=f"checkpoints/{SIZES[size][0]}",
            is_zero_shot=True,
        )
        for name, (dataset, of_sizes) in RETRIEVAL.items()
        for size, published in of_sizes.items()
    ]


def _recognition() -> list[Row]:
    """Zero-shot from the published weights, then probes, whose classifier is fitted on them."""
    found = []
    for listed, prefix in ((ZERO_SHOT, ""), (PROBES, "probe_")):
        for name, (dataset, published) in listed.items():
            for size in SIZES:
                weights, is_probe = f"checkpoints/{SIZES[size][0]}", bool(prefix)
                found.append(
                    Row(
                        tables=(README,),
                        label=f"{LABELS[size]}, linear probe" if is_probe else LABELS[size],
                        dataset=dataset,
                        config=f"configs/tvts/recognition/{prefix}{name}_{size}.yaml",
                        gmacs=SIZES[size][1],
                        expected={README: {"top1": published[size]}} if size in published else {},
                        released=None if is_probe else weights,
                        is_zero_shot=not is_probe,
                        start_owner="TVTSv2's" if is_probe else None,
                        note=NO_RECIPE if is_probe else None,
                    )
                )
    return found


def _with_dual_softmax() -> Mapping[str, Unobtainable]:
    return {
        f"tvts/retrieval/{name}_{size}_dual_softmax": Unobtainable(
            table=README, label=f"{LABELS[size]}, dual softmax", numbers=numbers, reason=NO_TEMPERATURE
        )
        for name, of_sizes in DUAL_SOFTMAX.items()
        for size, numbers in of_sizes.items()
    }


PUBLICATION = Publication(
    title="TVTSv2",
    rows=(*_retrieval(), *_recognition()),
    unobtainable=_with_dual_softmax(),
    document="docs/TVTS.md",
)
