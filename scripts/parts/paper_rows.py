"""The rows of TESTA's Tables 1 to 6 that speak of TESTA or ToMe, as data: what is run, and what should come out.

Numbers come from the paper (EMNLP 2023 Findings, arXiv 2310.19060) and, where weights were released, from the
release's README, which differs for two rows. GMACs are what `scripts.count_flops` has to count; the paper prints them
rounded, some up and some down.
"""

from dataclasses import dataclass
from pathlib import Path

RETRIEVAL_METRICS = ("t2v_r1", "t2v_r5", "t2v_r10")
"""What the paper's R@1, R@5 and R@10 are: text to video, after reranking."""

HUB = "hf://ShuhuaiRen"
PRETRAINED = f"{HUB}/TESTA_model_base_pretrain/testa_model_base_pretrain.pth"
BLIP_ADDRESS = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/model_base_capfilt_large.pth"
"""Where BLIP's own repository says its image-text weights are, from which Table 6 starts."""

PAPER, README = "paper", "README"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a row is evaluated on.

    Attributes:
        title: its name as people write it.
        split: the honest name of the part the paper reports on, as results.json has it; other_split: another name
            under which the same videos can be read.
        videos, texts: how many videos, and paragraphs or questions, that part officially has; None: not known.
        counted: where these counts are from, or why there are none.
        is_challenge: the pairing is the challenge server's secret, so that only a submission can be written.
    """

    title: str
    split: str
    videos: int | None
    texts: int | None
    counted: str
    other_split: str | None = None
    is_challenge: bool = False


DATASETS: dict[str, Dataset] = {
    "queryd": Dataset(
        title="QuerYD",
        split="test",
        videos=None,
        texts=None,
        counted="the release lists the videos that were still online then; no public source counts them",
    ),
    "condensed_movies": Dataset(
        title="Condensed Movies",
        split="test",
        videos=None,
        texts=None,
        counted="the challenge's list of test clips is counted in no public source",
        is_challenge=True,
    ),
    "didemo": Dataset(
        title="DiDeMo",
        split="test",
        videos=1004,
        texts=1004,
        counted="what published results are of; with the authors' test_data.json that is data.test_split=test_merged",
        other_split="test_merged",
    ),
    "activitynet_captions": Dataset(
        title="ActivityNet Captions",
        split="val_1",
        videos=4917,
        texts=4917,
        counted="the authors' val_1.json, a paragraph a video; the paper's test set is this validation set",
    ),
    "activitynet_qa": Dataset(
        title="ActivityNet-QA", split="test", videos=800, texts=8000, counted="the authors' test_q.json"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the paper.

    Attributes:
        tables: the paper's tables that have it.
        label: what the paper calls it.
        dataset: a key of `DATASETS`.
        config: the file that says all of it, from the repository's root.
        gmacs: of the video encoder for one video, to three decimals; published_gmacs: as the paper prints it.
        expected: the published metrics by the name of their source; one source has to be met.
        released: the weights to evaluate, where there are any; else they are trained.
        trained_as: the row whose training gives the weights, where that is another.
        from_blip: training starts from BLIP's weights, which one has to fetch; else from TESTA's pre-trained ones.
        note: what else one has to know.
    """

    tables: tuple[str, ...]
    label: str
    dataset: str
    config: str
    gmacs: float
    published_gmacs: str
    expected: dict[str, dict[str, float]]
    released: str | None = None
    trained_as: str | None = None
    from_blip: bool = False
    note: str | None = None

    @property
    def name(self) -> str:
        """What the command line calls it: the name of its configuration."""
        return Path(self.config).stem

    @property
    def is_zero_shot(self) -> bool:
        """Whether the pre-trained weights are evaluated as they are."""
        return self.released == PRETRAINED


@dataclass(frozen=True, kw_only=True)
class Unobtainable:
    """A row of the paper that nobody can run again: its table, what the paper calls it, its numbers, and why."""

    table: str
    label: str
    numbers: str
    reason: str


def recalls(r1: float, r5: float, r10: float) -> dict[str, float]:
    """Metrics by their names in results.json."""
    return dict(zip(RETRIEVAL_METRICS, (r1, r5, r10), strict=True))


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
    name = next(name for prefix, name in _PREFIXES.items() if config.startswith(prefix))
    return Row(
        tables=tables,
        label=label,
        dataset=name,
        config=f"configs/testa/retrieval/{config}.yaml",
        gmacs=cost[0],
        published_gmacs=cost[1],
        expected={PAPER: recalls(*paper)} | ({README: recalls(*readme)} if readme is not None else {}),
        released=released,
        trained_as=trained_as,
        from_blip=from_blip,
        note=note,
    )


_PREFIXES = {
    "queryd": "queryd",
    "condensed_movies": "condensed_movies",
    "didemo": "didemo",
    "activitynet": "activitynet_captions",
}
# GMACs as counted, and as printed.
F16_NONE, F16 = (392.512, "392"), (228.966, "228")
F32_NONE, F32 = (786.817, "786"), (419.841, "420")
F96_NONE, F96 = (2382.535, "2383"), (1381.402, "1381")
TESTA_32, TESTA_96 = "TESTA, 32 frames", "TESTA, 96 frames"
NONE_32, NONE_96 = "TESTA w/o agg., 32 frames", "TESTA w/o agg., 96 frames"
SERVER = "the paper's numbers are the challenge server's"

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
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
            dataset="activitynet_qa",
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
    )
}  # fmt: skip

UNOBTAINABLE: dict[str, Unobtainable] = {
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
