"""docs/DATASETS.md speaks of the readers, presets and files that are there."""

import re
from pathlib import Path

import pytest

from datasets.annotations import (
    activitynet_captions,
    activitynet_qa,
    condensed_movies,
    didemo,
    lsmdc,
    msrvtt,
    msrvtt_mc,
    msrvtt_qa,
    msvd,
    msvd_qa,
    public,
    queryd,
    recognition,
    ssv2_retrieval,
)
from datasets.transcoding.recipes import PRESETS

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "DATASETS.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in TEXT.split("\n## ")[1:]}
SPLITS = {
    "QuerYD": queryd.SPLITS,
    "DiDeMo": didemo.SPLITS,
    "ActivityNet Captions": tuple(activitynet_captions.HONEST_SPLITS),
    "Condensed Movies": condensed_movies.SPLITS,
    "MSR-VTT": msrvtt.SPLITS,
    "ActivityNet-QA": activitynet_qa.SPLITS,
    "MSR-VTT-QA": msrvtt_qa.SPLITS,
    "MSVD": msvd.SPLITS,
    "MSVD-QA": msvd_qa.SPLITS,
    "LSMDC": lsmdc.SPLITS,
    "Something-Something V2": ssv2_retrieval.SPLITS,
    "MSR-VTT-MC": msrvtt_mc.SPLITS,
}


def test_every_dataset_of_the_readers_has_a_row() -> None:
    rows = re.findall(r"^\| \[.*?\]\(#.*?\) \|.*?\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert set(rows) == {*public.READERS, *recognition.READERS, "labelled", "ssv2_mc", "sources", "manifest"}


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_is_named(name: str) -> None:
    (splits,) = re.findall(r"- \*\*Splits\*\*: (.*?)\n- ", SECTIONS[name], re.DOTALL)
    assert set(SPLITS[name]) - set(re.findall(r"`(\w+)`", splits)) == set()


def test_the_presets_are_those_of_the_command() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (all|first (\d+) s) \|", TEXT, re.MULTILINE)
    described = {name: (int(fps), int(side), int(seconds) if seconds else None) for name, fps, side, _, seconds in rows}
    assert described == {name: (item.fps, item.short_side, item.seconds) for name, item in PRESETS.items()}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"configs/[\w/]+\.yaml", TEXT))))
def test_configs_are_there(path: str) -> None:
    assert (ROOT / path).is_file()


def test_links_within_the_page_lead_somewhere() -> None:
    anchors = {name.lower().replace(" ", "-") for name in SECTIONS}
    assert set(re.findall(r"\(#(.*?)\)", TEXT)) - anchors == set()
