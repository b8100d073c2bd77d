"""Metrics of captions by pycocoevalcap: BLEU, METEOR, ROUGE-L in percent, CIDEr on its own scale (10: exact copies).

The tokenizer (Stanford's PTB) and METEOR are Java programs. We start them ourselves: pycocoevalcap's wrappers wait
forever for a program that hangs, and write into the package's folder.
"""

import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE
from typing import IO, NamedTuple

logger = logging.getLogger(__name__)
SECONDS = 240.0
"""Time limit of each Java program; both together stay below the ten minutes that other processes wait."""
PLAIN = "_plain"
PERCENT = ("bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l")
PTB = ("-cp", "stanford-corenlp-3.4.1.jar", "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase")
METEOR = ("-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm")
# The tokens that pycocoevalcap's tokenizer drops.
PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())


class CaptionScores(NamedTuple):
    """The metrics of a set of captions, and of those metrics that are means over videos, each video's value (V,)."""

    metrics: dict[str, float]
    each: dict[str, list[float]]

    def suffixed(self, suffix: str) -> "CaptionScores":
        """The same under longer names."""
        metrics = {f"{name}{suffix}": value for name, value in self.metrics.items()}
        each = {f"{name}{suffix}": values for name, values in self.each.items()}
        return CaptionScores(metrics, each)


class JavaError(Exception):
    """Java is missing, or a Java program failed or timed out; the message says which and how."""


class CaptionScorer:
    """Scores captions with Java's tokenizer and METEOR, or without Java.

    Without Java a regular expression splits words, METEOR is skipped, and every metric's name ends in `_plain`: these
    numbers do not compare with published ones. The owner sets `plain` once, before the first score, because a metric
    that changed its name later would choose other weights.
    """

    def __init__(self, java: str = "java", seconds: float = SECONDS) -> None:
        self.java, self.seconds, self.plain = java, seconds, False

    def why_not_java(self) -> str | None:
        """Try both Java programs on one caption: None if they run, else what is wrong with the first that fails."""
        try:
            self._with_java(["a dog runs"], [["a dog runs", "the dog plays"]])
        except JavaError as error:
            return str(error)
        return None

    def score(self, predicted: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
        """The metrics of the predictions (V,), one a video, against all reference captions of each video.

        `JavaError` if Java fails twice, or fails once after more than half of its time limit.
        """
        if not self.plain:
            begun = time.monotonic()
            try:
                return self._with_java(predicted, references)
            except JavaError as error:
                if time.monotonic() - begun > self.seconds / 2:
                    raise
                logger.warning("%s; trying once more", error)
                return self._with_java(predicted, references)

        words = [[plain_words(text) for text in texts] for texts in ([*predicted], *references)]
        return _ngram_metrics(words[0], words[1:]).suffixed(PLAIN)

    def _with_java(self, predicted: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
        texts = [*predicted, *(text for captions in references for text in captions)]
        words = iter(ptb_words(texts, self.java, self.seconds))
        # The words come back in order: first the predictions, then the references video by video.
        candidates = [next(words) for _ in predicted]
        originals = [[next(words) for _ in captions] for captions in references]
        score = meteor(candidates, originals, self.java, self.seconds)
        scores = _ngram_metrics(candidates, originals)
        return scores._replace(metrics={**scores.metrics, "meteor": 100 * score})


def plain_words(text: str) -> str:
    """The words of a text in lower case, joined by spaces; a word may hold apostrophes."""
    return " ".join(re.findall(r"\w+(?:'\w+)*", text.lower()))


def ptb_words(texts: Sequence[str], java: str = "java", seconds: float = SECONDS) -> list[str]:
    """Tokenize each text as pycocoevalcap does: Stanford's tokens in lower case, without punctuation."""
    # One text a line. `split` removes all line breaks: whatever ends a line for Java is white space for Python.
    lines = "".join(" ".join(text.split()) + "\n" for text in texts)
    command, folder = [java, *PTB, "-encoding", "utf-8"], _folder("tokenizer.ptbtokenizer")
    try:
        done = subprocess.run(
            command, cwd=folder, input=lines.encode(), capture_output=True, timeout=seconds, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise JavaError(f"Java's tokenizer does not run ({_reason(error)})") from error

    found = done.stdout.decode().split("\n")[:-1]
    if len(found) != len(texts):
        raise JavaError(f"Java's tokenizer gave {len(found)} lines for {len(texts)} texts")
    return [" ".join(word for word in line.split() if word not in PUNCTUATION) for line in found]


def meteor(
    candidates: Sequence[str], references: Sequence[Sequence[str]], java: str = "java", seconds: float = SECONDS
) -> float:
    """METEOR of candidates (V,), split into words, and the references of each, from 0 to 1."""
    command, folder = [java, *METEOR], _folder("meteor.meteor")
    try:
        # In its own process group, so that `java` started by a wrapper script is killed with it.
        process = subprocess.Popen(
            command, cwd=folder, stdin=PIPE, stdout=PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise JavaError(f"METEOR does not run ({_reason(error)})") from error

    assert process.stdin is not None and process.stdout is not None
    # On a timeout the watchdog kills the group; its pipes close, and `_converse` stops waiting.
    watchdog = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        return _converse(process.stdin, process.stdout, candidates, references)
    except (OSError, ValueError) as error:
        raise JavaError(f"METEOR does not run, or not within {seconds:g} seconds") from error
    finally:
        watchdog.cancel()
        os.killpg(process.pid, signal.SIGKILL)  # METEOR waits for more input; its id stays valid until `wait`
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()


def _converse(
    asked: IO[bytes], answered: IO[bytes], candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> float:
    """Speak METEOR's `-stdio` protocol: get a line of statistics for each pair, then the scores of all pairs."""

    def ask(line: str) -> str:
        asked.write(f"{line}\n".encode())
        asked.flush()
        return answered.readline().decode().strip()

    pairs = zip(candidates, references, strict=True)
    statistics = [ask(" ||| ".join(("SCORE", *_without_bars([*texts, text])))) for text, texts in pairs]
    first = ask(" ||| ".join(("EVAL", *statistics)))
    scores = [first, *(answered.readline().decode().strip() for _ in candidates)]
    return float(scores[-1])  # one score a pair, then the overall score


def _without_bars(texts: Sequence[str]) -> list[str]:
    return [text.replace("|||", " ") for text in texts]


def _ngram_metrics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """BLEU-1 to 4, ROUGE-L and CIDEr of texts that are already split into words; the last two of each text, too."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    originals = {number: list(texts) for number, texts in enumerate(references)}
    written = {number: [text] for number, text in enumerate(candidates)}

    bleu, _ = Bleu(4).compute_score(originals, written, verbose=0)
    rouge, rouge_of_each = Rouge().compute_score(originals, written)
    cider, cider_of_each = Cider().compute_score(originals, written)

    found = {**{f"bleu{n}": score for n, score in enumerate(bleu, start=1)}, "rouge_l": rouge, "cider": cider}
    metrics = {name: _in_unit(name, value) for name, value in found.items()}
    of_each = {"rouge_l": rouge_of_each, "cider": cider_of_each}
    each = {name: [_in_unit(name, value) for value in values] for name, values in of_each.items()}
    return CaptionScores(metrics, each)


def _in_unit(name: str, value: float) -> float:
    return float(value) * (100 if name in PERCENT else 1)


def _folder(module: str) -> Path:
    """The folder of a pycocoevalcap module, which also holds its Java program."""
    specification = find_spec(f"pycocoevalcap.{module}")
    assert specification is not None and specification.origin is not None
    return Path(specification.origin).parent


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no java on the PATH"
    if isinstance(error, subprocess.CalledProcessError):
        error_lines = error.stderr.decode(errors="replace").strip().splitlines()
        return error_lines[0] if error_lines else f"it ended with status {error.returncode}"
    return str(error) if isinstance(error, OSError) else "it took too long"
