"""The rows of UMT's model zoo (ICCV 2023), and those that vid-TLDR's README (CVPR 2024) runs over the same weights.

UMT's numbers are the zoo's, of the 25M setting. vid-TLDR's release prints none: what others quote of its paper is
marked second-hand, all of it of L/16; where two sources differ, both are kept. GMACs are what `scripts.count_flops` has
to count; with vid-TLDR they include the similarities between its two sets of tokens, about 1% that the release leaves
out.
"""

from typing import NamedTuple

from scripts.parts.rows import evaluated_sets as sets
from scripts.parts.rows.row import SECOND_HAND, EvaluatedSet, Publication, Row, recalls

ZOO, README = "MODEL_ZOO", "README"
HYPER, SOTA = f"hyper.ai, {SECOND_HAND}", f"sotaverified.org, {SECOND_HAND}"
CODES, WIZWAND = f"OpenCodePapers, {SECOND_HAND}", f"wizwand.com, {SECOND_HAND}"
SIZES = {"b16": "UMT-B/16", "l16": "UMT-L/16"}
# Of B/16 and L/16 without a reducer.
GMACS_12_FRAMES, GMACS_4_FRAMES = (303.343, 984.624), (78.456, 267.785)
POOLING = "vid-TLDR pools all tokens at once, the zoo's models each frame: its own base is not the zoo's number"
WRONG_LINK = "the zoo's link to the weights of L/16 leads to those of B/16"
Metrics = dict[str, float]


class Rows(NamedTuple):
    """What the rows of one data set have; pairs are of B/16 and L/16.

    Attributes:
        dataset: what they are evaluated on.
        metrics: the zoo's numbers.
        weights: the beginning of the names of the released files, None if there are none.
        gmacs: under vid-TLDR's lists; None: the README has no list.
        reduced: numbers of vid-TLDR on L/16, by source.
        has_large: whether the weights of L/16 are released too.
    """

    dataset: EvaluatedSet
    metrics: tuple[Metrics, Metrics]
    weights: str | None
    gmacs: tuple[float, float] | None = None
    reduced: dict[str, Metrics] = {}
    has_large: bool = True


def _r1(value: float) -> Metrics:
    return {"t2v_r1": value}


def _accuracy(value: float) -> Metrics:
    return {"accuracy": value}


RETRIEVAL: dict[str, Rows] = {
    "msrvtt": Rows(
        sets.MSRVTT, (recalls(51.0, 76.5, 84.2), recalls(58.8, 81.0, 87.1)), "ret_msrvtt", (177.984, 543.407),
        {SOTA: _r1(58.1), WIZWAND: _r1(58.5)},
    ),
    "msvd": Rows(
        sets.MSVD, (recalls(50.8, 79.7, 86.2), recalls(58.2, 83.9, 89.6)), "ret_msvd", (181.256, 528.590),
        {SOTA: _r1(57.9)},
    ),
    "activitynet": Rows(
        sets.ACTIVITYNET, (recalls(58.3, 83.9, 91.5), recalls(66.8, 89.1, 94.9)), "ret_anet", (227.556, 563.070),
        {HYPER: recalls(66.7, 88.6, 94.4)},
    ),
    "didemo": Rows(
        sets.DIDEMO, (recalls(61.6, 86.8, 91.5), recalls(70.4, 90.1, 93.5)), "ret_didemo", (212.814, 559.029),
        {HYPER: recalls(72.3, 91.2, 94.2)},
    ),
    "lsmdc": Rows(
        sets.LSMDC, (recalls(32.7, 54.7, 63.4), recalls(43.0, 65.5, 73.0)), "ret_lsmdc", (206.182, 583.696),
        {SOTA: _r1(43.1)},
    ),
    "ssv2_label": Rows(
        sets.SSV2_LABEL, (recalls(64.2, 88.2, 92.7), recalls(73.3, 92.7, 96.9)), "ret_ssv2_label", (212.874, 610.916)
    ),
    "ssv2_template": Rows(
        sets.SSV2_TEMPLATE, (recalls(87.9, 99.4, 100.0), recalls(90.8, 99.4, 100.0)), "ret_ssv2_tpl",
        (203.700, 615.700), {CODES: recalls(90.2, 100.0, 100.0)}, has_large=False,
    ),
}  # fmt: skip
ZERO_SHOT: dict[str, Rows] = {
    name: Rows(RETRIEVAL[name].dataset, (_r1(base), _r1(large)), "")
    for name, base, large in (
        ("msrvtt", 35.2, 40.7), ("didemo", 41.2, 48.6), ("activitynet", 35.5, 41.9), ("lsmdc", 19.1, 24.9),
        ("msvd", 42.3, 49.0),
    )
}  # fmt: skip
QUESTIONS: dict[str, Rows] = {
    "msrvtt_qa": Rows(
        sets.MSRVTT_QA, (_accuracy(44.9), _accuracy(47.1)), "qa_msrvtt", (188.523, 569.787), {WIZWAND: _accuracy(47.0)}
    ),
    "msvd_qa": Rows(
        sets.MSVD_QA, (_accuracy(49.5), _accuracy(55.2)), "qa_msvd", (188.523, 569.787), {WIZWAND: _accuracy(54.9)},
        has_large=False,
    ),
    "activitynet_qa": Rows(sets.ACTIVITYNET_QA, (_accuracy(44.8), _accuracy(47.9)), "qa_qnet"),
}  # fmt: skip
CHOICES: dict[str, Rows] = {"msrvtt_mc": Rows(sets.MSRVTT_MC, (_accuracy(96.3), _accuracy(97.3)), None)}


def _rows(folder: str, listed: dict[str, Rows], frames_gmacs: tuple[float, float] = GMACS_12_FRAMES) -> list[Row]:
    """Each data set's rows, B/16 then L/16, each as it is and then under vid-TLDR's list."""
    found = []
    for name, of_set in listed.items():
        for place, (size, label) in enumerate(SIZES.items()):
            stem = f"umt/{folder}/{name}_{size}"
            has_weights = of_set.weights is not None and (place == 0 or of_set.has_large)
            beginning = f"{of_set.weights}_" if of_set.weights else ""
            released = f"checkpoints/{beginning}{size}_25m.pth" if has_weights else None
            wrong_link = None if has_weights or of_set.weights is None else WRONG_LINK

            found.append(
                Row(
                    tables=(ZOO,),
                    label=label,
                    dataset=of_set.dataset,
                    config=f"configs/{stem}.yaml",
                    gmacs=frames_gmacs[place],
                    expected={ZOO: of_set.metrics[place]},
                    released=released,
                    is_zero_shot=listed is ZERO_SHOT,
                    note=wrong_link,
                )
            )

            if of_set.gmacs is not None:
                found.append(
                    Row(
                        tables=(README,),
                        label=f"vid-TLDR, {label}",
                        dataset=of_set.dataset,
                        config=f"configs/{stem}_vidtldr.yaml",
                        gmacs=of_set.gmacs[place],
                        expected=of_set.reduced if place == 1 else {},
                        released=released,
                        trained_as=stem,
                        note=wrong_link or (POOLING if listed is RETRIEVAL else None),
                    )
                )
    return found


PUBLICATION = Publication(
    title="UMT and vid-TLDR",
    rows=(
        *_rows("retrieval", RETRIEVAL),
        *_rows("zeroshot", ZERO_SHOT, GMACS_4_FRAMES),
        *_rows("vqa", QUESTIONS),
        *_rows("choice", CHOICES),
    ),
    document="docs/VIDTLDR.md",
)
