"""The rows of TESTA's Tables 1 to 6 that speak of TESTA or ToMe, as data: what is run, and what should come out.

Numbers come from the paper (EMNLP 2023 Findings, arXiv 2310.19060) and, where weights were released, from the
release's README, which differs for two rows. GMACs are what `scripts.count_flops` has to count; the paper prints them
rounded, some up and some down.
"""

from scripts.parts.rows.evaluated_sets import ACTIVITYNET, ACTIVITYNET_QA, CONDENSED_MOVIES, DIDEMO, QUERYD
from scripts.parts.rows.row import EvaluatedSet, Publication, Row, Unobtainable, recalls

HUB = "hf://ShuhuaiRen"
PRETRAINED = f"{HUB}/TESTA_model_base_pretrain/testa_model_base_pretrain.pth"

PAPER, README = "paper", "README"


def _retrieval(
    config: str,
    tables: tuple[str, ...],
    label: str,
    cost: tuple[float, str],
    paper: tuple[float, float, float],
    *,
    readme: tuple[float, float, float] | None = None,
    released: str | None = None,
    trained_as: str | None = None,
    from_blip: bool = False,
    note: str | None = None,
) -> Row:
    """A row whose file is `configs/testa/retrieval/CONFIG.yaml`, named after its dataset."""
    dataset = next(dataset for prefix, dataset in _PREFIXES.items() if config.startswith(prefix))
    return Row(
        tables=tables,
        label=label,
        dataset=dataset,
        config=f"configs/testa/retrieval/{config}.yaml",
        gmacs=cost[0],
        published_gmacs=cost[1],
        expected={PAPER: recalls(*paper)} | ({README: recalls(*readme)} if readme is not None else {}),
        released=released,
        trained_as=trained_as,
        start_owner="BLIP's" if from_blip else None,
        is_zero_shot=released == PRETRAINED,
        note=note,
    )


_PREFIXES: dict[str, EvaluatedSet] = {
    "queryd": QUERYD,
    "condensed_movies": CONDENSED_MOVIES,
    "didemo": DIDEMO,
    "activitynet": ACTIVITYNET,
}
# GMACs as counted, and as printed.
F16_NONE, F16 = (392.512, "392"), (228.966, "228")
F32_NONE, F32 = (786.817, "786"), (419.841, "420")
F96_NONE, F96 = (2382.535, "2383"), (1381.402, "1381")
TESTA_32, TESTA_96 = "TESTA, 32 frames", "TESTA, 96 frames"
NONE_32, NONE_96 = "TESTA w/o agg., 32 frames", "TESTA w/o agg., 96 frames"
SERVER = "the paper's numbers are the challenge server's"

ROWS = (
    _retrieval(
        "queryd_f32", ("1",), TESTA_32, F32, (77.0, 91.3, 94.6), readme=(77.0, 90.8, 92.6),
        released=f"{HUB}/TESTA_model_base_QuerYD_retrieval_ft/testa_model_base_queryd_f32_f1p12.pth",
    ),
    _retrieval("queryd_f32_none", ("1",), NONE_32, F32_NONE, (79.7, 92.6, 95.5)),
    _retrieval("queryd_f96", ("1", "5"), f"{TESTA_96}, geometry", F96, (83.4, 93.8, 95.3)),
    _retrieval("queryd_f96_none", ("1", "5"), NONE_96, F96_NONE, (84.2, 93.8, 95.1)),
    _retrieval(
        "condensed_movies_f32", ("1",), TESTA_32, F32, (21.5, 42.4, 50.7), readme=(21.5, 42.4, 50.7), note=SERVER,
        released=f"{HUB}/TESTA_model_base_CondensedMovies_retrieval_ft/testa_model_base_cm_f32_f1p12.pth",
    ),
    _retrieval("condensed_movies_f32_none", ("1",), NONE_32, F32_NONE, (23.5, 45.4, 54.8), note=SERVER),
    _retrieval("condensed_movies_f96", ("1",), TESTA_96, F96, (24.9, 46.5, 55.1), note=SERVER),
    _retrieval("condensed_movies_f96_none", ("1",), NONE_96, F96_NONE, (25.5, 46.8, 56.0), note=SERVER),
    _retrieval(
        "didemo_f32", ("2",), TESTA_32, F32, (57.7, 83.3, 89.4), readme=(57.7, 83.3, 89.4),
        released=f"{HUB}/TESTA_model_base_DiDeMo_retrieval_ft/testa_model_base_didemo_f32_f1p12.pth",
    ),
    _retrieval("didemo_f96", ("2",), TESTA_96, F96, (59.2, 83.5, 89.8)),
    _retrieval(
        "activitynet_f32", ("2",), TESTA_32, F32, (51.7, 79.1, 87.6), readme=(51.6, 79.1, 88.3),
        released=f"{HUB}/TESTA_model_base_ActivityNet_retrieval_ft/testa_model_base_anet_f32_f1p12.pth",
    ),
    _retrieval("activitynet_f96", ("2",), TESTA_96, F96, (53.7, 79.9, 88.9)),
    Row(
        tables=("3",),
        label=TESTA_96,
        dataset=ACTIVITYNET_QA,
        config="configs/testa/vqa/activitynet_qa_f96.yaml",
        gmacs=F96[0],
        published_gmacs="not printed",
        expected={PAPER: {"accuracy": 45.0}},
        note="the release ranks the answers of the evaluated split itself; its configuration has 32 frames",
    ),
    _retrieval(
        "queryd_zeroshot_f32", ("4",), "TESTA, zero-shot", F32_NONE, (64.4, 82.9, 86.9), released=PRETRAINED
    ),
    _retrieval(
        "didemo_zeroshot_f32", ("4",), "TESTA, zero-shot", F32_NONE, (64.9, 88.7, 91.8), released=PRETRAINED
    ),
    _retrieval(
        "activitynet_zeroshot_f32", ("4",), "TESTA, zero-shot", F32_NONE, (37.1, 63.7, 75.4), released=PRETRAINED
    ),
    _retrieval(
        "queryd_f96_prune_untrained", ("5",), "token pruning, w/o training", (1380.878, "1380.9"),
        (71.0, 86.1, 90.6), trained_as="queryd_f96_none",
    ),
    _retrieval(
        "queryd_f96_merge_untrained", ("5",), "token aggregation, w/o training", (F96[0], "1381.4"),
        (79.2, 91.8, 95.3), trained_as="queryd_f96_none",
    ),
    _retrieval(
        "queryd_f96_importance", ("5",), "importance-based aggregation", (1380.943, "1380.9"), (80.2, 91.7, 94.6)
    ),
    _retrieval("queryd_f96_frames", ("5",), "only temporal, R_T = 7", (1303.874, "1303.9"), (79.5, 92.9, 95.4)),
    _retrieval("queryd_f96_patches", ("5",), "only spatial, R_S = 14", (1364.022, "1364.0"), (81.4, 93.3, 95.1)),
    _retrieval("queryd_f16_tome", ("6",), "ToMe, 16 frames", (252.439, "252"), (59.9, 82.2, 88.6), from_blip=True),
    _retrieval("queryd_f16", ("6",), "TESTA, 16 frames", F16, (62.4, 85.6, 91.1), from_blip=True),
    _retrieval(
        "queryd_f16_joint", ("6",), "ToMe w/o agg., 16 frames", (449.976, "450"), (66.1, 86.4, 90.4), from_blip=True
    ),
    _retrieval(
        "queryd_f16_none", ("6",), "TESTA w/o agg., 16 frames", F16_NONE, (75.0, 91.1, 93.8), from_blip=True
    ),
)  # fmt: skip

UNOBTAINABLE = {
    "blip_zeroshot_f32": Unobtainable(
        table="4",
        label="BLIP, zero-shot, 707 GFLOPs",
        numbers="QuerYD 50.7/67.6/73.5, DiDeMo 60.9/84.9/91.0, ActivityNet Captions 34.2/60.0/70.7",
        reason=(
            "cannot be reproduced: BLIP's image encoder on each of 32 frames is 562.6 GMACs by the count that gives "
            "every other number of the paper, and neither the code of this row nor how it joins frames was released"
        ),
    ),
}

PUBLICATION = Publication(
    title="TESTA",
    rows=ROWS,
    unobtainable=UNOBTAINABLE,
    recipes={"release": None, "paper": "configs/testa/recipe_paper.yaml"},
    document="docs/RUN.md",
)
