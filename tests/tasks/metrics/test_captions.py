"""Caption metrics against pycocoevalcap's own wrappers, and what happens where Java is missing, broken or hangs."""

import shutil
from pathlib import Path

import pytest
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from tasks.metrics import captions
from tasks.metrics.captions import CaptionScorer, JavaError, meteor, plain_words, ptb_words

REFERENCES = [
    ['A man in an orange T-shirt slides the door (open), "looks out".', "the man's door"],
    ["A dog runs; it's fun!", "one brown dog   plays: in the\nsnow", "dogs..."],
    ["A boy throws a ball to the girl ||| and waves."],
    ["Nothing is said of this."],
]
PREDICTED = ["a man in a t - shirt slides the open door", "a dog plays in the snow", "the girl throws a ball", ""]
PLAIN = {*(f"bleu{n}_plain" for n in (1, 2, 3, 4)), "rouge_l_plain", "cider_plain"}
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="there is no java")


def script(folder: Path, text: str) -> str:
    path = folder / "java"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@needs_java
def test_with_java_the_metrics_are_pycocoevalcaps() -> None:
    tokenizer = PTBTokenizer()
    originals = tokenizer.tokenize({n: [{"caption": text} for text in texts] for n, texts in enumerate(REFERENCES)})
    written = tokenizer.tokenize({n: [{"caption": text}] for n, text in enumerate(PREDICTED)})
    scorer = CaptionScorer()
    found = scorer.score(PREDICTED, REFERENCES).metrics
    assert not scorer.plain
    assert ptb_words([text for texts in REFERENCES for text in texts]) == [
        text for n in originals for text in originals[n]
    ]
    assert found.keys() == {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "meteor"}
    assert found["cider"] == pytest.approx(Cider().compute_score(originals, written)[0])
    without_bars = {n: [text.replace("|||", "") for text in texts] for n, texts in originals.items()}
    assert found["meteor"] == pytest.approx(100 * Meteor().compute_score(without_bars, written)[0], abs=1e-4)
    assert 10 < found["meteor"] < 90 and 0.1 < found["cider"] < 10


@needs_java
def test_empty_texts_and_odd_line_ends_keep_their_places() -> None:
    assert ptb_words(["", "a\u2028b\r\nc\x0bd", "...", "caf\u00e9"]) == ["", "a b c d", "", "caf\u00e9"]


def plain_scorer() -> CaptionScorer:
    scorer = CaptionScorer(java="no-such-program")
    scorer.plain = True
    return scorer


def test_plain_metrics_need_no_java_and_say_so_in_their_names() -> None:
    assert plain_scorer().score(PREDICTED, REFERENCES).metrics.keys() == PLAIN


@needs_java
def test_java_is_tried_before_it_is_relied_on(tmp_path: Path) -> None:
    assert CaptionScorer().why_not_java() is None
    assert CaptionScorer(java="no-such-program").why_not_java() == "Java's tokenizer does not run (no java on the PATH)"
    only_tokens = script(tmp_path, 'case "$*" in *meteor*) exit 1 ;; *) exec java "$@" ;; esac')
    assert "METEOR does not run" in str(CaptionScorer(java=only_tokens).why_not_java())


@needs_java
def test_a_failure_that_passes_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "meteor", lambda *_: 0.5)  # what takes longest
    mark = tmp_path / "failed"
    once = script(tmp_path, f'[ -e {mark} ] || {{ touch {mark}; echo busy >&2; exit 1; }}; exec java "$@"')
    assert CaptionScorer(java=once).score(PREDICTED, REFERENCES) == CaptionScorer().score(PREDICTED, REFERENCES)
    assert mark.exists()


def test_exact_copies_get_ten_and_a_hundred() -> None:
    texts = [texts[0] for texts in REFERENCES]
    found = plain_scorer().score(texts, [[text] for text in texts]).metrics
    assert found["cider_plain"] == pytest.approx(10) and found["bleu4_plain"] == pytest.approx(100)
    assert found["rouge_l_plain"] == pytest.approx(100)
    others = plain_scorer().score(texts[1:] + texts[:1], [[text] for text in texts]).metrics
    assert others["cider_plain"] < 1


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("echo it is too old >&2; exit 3", "it is too old"),
        ("exit 3", "it ended with status 3"),
        ("sleep 60", "it took too long"),
        ("sleep 60 & wait", "it took too long"),
        ("cat > /dev/null; echo one", "gave 1 lines for 11 texts"),
    ],
)
def test_a_java_that_fails_or_hangs_is_none(tmp_path: Path, does: str, reason: str) -> None:
    with pytest.raises(JavaError, match=reason):
        CaptionScorer(java=script(tmp_path, does), seconds=0.5).score(PREDICTED, REFERENCES)


@pytest.mark.parametrize("does", ["sleep 60", "sleep 60 & wait", "exit 1", "while read line; do echo nonsense; done"])
def test_a_meteor_that_fails_or_hangs_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    with pytest.raises(JavaError, match="METEOR does not run"):
        meteor(["a dog"], [["a cat"]], script(tmp_path, does), seconds=0.5)
    monkeypatch.setattr(captions, "ptb_words", lambda texts, java, seconds: [plain_words(text) for text in texts])
    with pytest.raises(JavaError, match="METEOR does not run"):
        CaptionScorer(java=script(tmp_path, does), seconds=0.5).score(PREDICTED, REFERENCES)


def test_meteors_protocol_is_kept(tmp_path: Path) -> None:
    """What is asked: each pair, its bars taken out, then all statistics together."""
    asked = tmp_path / "asked"
    java = script(tmp_path, f'while read -r line; do echo "$line" >> {asked}; echo 0.25; done')
    with pytest.raises(JavaError):
        meteor(["a ||| b", "c"], [["d", "e"], ["f"]], java, seconds=0.5)
    lines = asked.read_text().splitlines()
    assert [line.split() for line in lines] == [
        ["SCORE", "|||", "d", "|||", "e", "|||", "a", "b"],
        ["SCORE", "|||", "f", "|||", "c"],
        ["EVAL", "|||", "0.25", "|||", "0.25"],
    ]


def test_plain_words() -> None:
    assert plain_words("A T-shirt's (red) collar, caf\u00e9!\n2.5 m") == "a t shirt's red collar caf\u00e9 2 5 m"
    assert plain_words("...") == ""
