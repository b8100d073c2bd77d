"""STOA-VLP's fine-tuned models (AAAI 2023), one row for each script of its repository, and MSVD retrieval.

No table of the paper could be read. Captioning's numbers are those that a captioning project's notes list for it; the
paper's abstract has 3.7 points of ROUGE-L more than before on MSR-VTT, which agrees. GMACs are what
`scripts.count_flops` has to count; multiple choice has neither objects nor actions.
"""

from scripts.parts.rows import evaluated_sets as sets
from scripts.parts.rows.row import SECOND_HAND, EvaluatedSet, Publication, Row

NOTES = f"notes of a captioning project, {SECOND_HAND}"
GMACS, WITHOUT_BRANCHES = 212.714, 204.304
MSRVTT_FULL = EvaluatedSet(
    title="MSR-VTT", split="full_test", videos=2990, texts=59800, counted="the authors' split, 20 captions a video"
)


def _captions(bleu4: float, meteor: float, rouge_l: float, cider: float) -> dict[str, dict[str, float]]:
    return {NOTES: {"bleu4": bleu4, "meteor": meteor, "rouge_l": rouge_l, "cider": cider}}


def _row(
    stem: str,
    dataset: EvaluatedSet,
    script: str,
    expected: dict[str, dict[str, float]] | None = None,
    note: str | None = None,
    gmacs: float = GMACS,
) -> Row:
    return Row(
        tables=(script,),
        label="STOA-VLP",
        dataset=dataset,
        config=f"configs/stoa/{stem}.yaml",
        gmacs=gmacs,
        expected=expected or {},
        note=note,
    )


NO_SCRIPT = "the repository has no script of it, and its evaluation stops in a debugger"
PUBLICATION = Publication(
    title="STOA-VLP",
    rows=(
        _row("caption/msrvtt", MSRVTT_FULL, "caption_msrvtt", _captions(45.8, 31.0, 68.4, 60.2)),
        _row("caption/msvd", sets.MSVD, "caption_msvd", _captions(64.4, 43.4, 83.9, 131.8)),
        _row("retrieval/msrvtt", sets.MSRVTT, "retrieval_msrvtt"),
        _row("retrieval/lsmdc", sets.LSMDC, "retrieval_lsmdc"),
        _row("retrieval/didemo", sets.DIDEMO, "retrieval_didemo"),
        _row("retrieval/msvd", sets.MSVD, "none", note=NO_SCRIPT),
        _row("vqa/msrvtt_qa", sets.MSRVTT_QA, "qa_msrvtt"),
        _row("vqa/msvd_qa", sets.MSVD_QA, "qa_msvd"),
        _row("choice/msrvtt_mc", sets.MSRVTT_MC, "mc_msrvtt", gmacs=WITHOUT_BRANCHES),
    ),
    document="docs/STOA.md",
)
