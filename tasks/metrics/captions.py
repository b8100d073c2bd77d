"""Metrics of captions by pycocoevalcap: BLEU, METEOR, ROUGE-L in percent, CIDEr on its own scale (10: exact copies).

Its tokenizer (Stanford's PTB) and METEOR are Java programs. They are started here rather than by its wrappers, which
wait for ever for a program that hangs and write into the folder of the package.
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
from typing import IO

logger = logging.getLogger(__name__)
SECONDS = 240.0
"""How long each Java program may take: both together less than the ten minutes that other processes wait."""
PLAIN = "_plain"
PERCENT = ("bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l")
PTB = ("-cp", "stanford-corenlp-3.4.1.jar", "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase")
METEOR = ("-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm")
# What pycocoevalcap's tokenizer leaves out.
PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())


class JavaError(Exception):
    """Java is missing, or a program of it failed or took too long; says which and how."""


class CaptionScorer:
    """Scores captions with Java's tokenizer and METEOR, or without both.

    Without, words are split plainly, METEOR is left out, and every metric carries `_plain` in its name: its numbers do
    not compare with others. `plain` says which; whoever has the scorer chooses once, before the first score, because a
    metric that changed its name later would choose other weights.
    """

    def __init__(self, java: str = "java", seconds: float = SECONDS) -> None:
        self.java, self.seconds, self.plain = java, seconds, False

    def why_not_java(self) -> str | None:
        """Score a caption with Java: None if both programs run, else what is wrong with the first that does not."""
        try:
            self._with_java(["a dog runs"], [["a dog runs", "the dog plays"]])
        except JavaError as error:
            return str(error)
        return None

    def score(self, predicted: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """The metrics of one prediction a video, `predicted` (V,), and all captions of each, `references`.

        `JavaError` where Java fails twice, or once after half of its time.
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
        return {f"{name}{PLAIN}": value for name, value in _ngram_metrics(words[0], words[1:]).items()}

    def _with_java(self, predicted: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        texts = [*predicted, *(text for captions in references for text in captions)]
        words = iter(ptb_words(texts, self.java, self.seconds))
        candidates = [next(words) for _ in predicted]
        originals = [[next(words) for _ in captions] for captions in references]
        score = meteor(candidates, originals, self.java, self.seconds)
        return {**_ngram_metrics(candidates, originals), "meteor": 100 * score}


def plain_words(text: str) -> str:
    """The words of a text in lower case, a space between: runs of letters and digits, and what an apostrophe adds."""
    return " ".join(re.findall(r"\w+(?:'\w+)*", text.lower()))


def ptb_words(texts: Sequence[str], java: str = "java", seconds: float = SECONDS) -> list[str]:
    """The words of each text as pycocoevalcap has them: Stanford's tokens in lower case, without punctuation."""
    # One text a line: what Java takes for the end of a line is white space to Python.
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
        # In a group of its own, so that what a wrapper script starts can be killed with it.
        process = subprocess.Popen(
            command, cwd=folder, stdin=PIPE, stdout=PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise JavaError(f"METEOR does not run ({_reason(error)})") from error
    assert process.stdin is not None and process.stdout is not None
    # Killed processes close their pipes, which ends the waiting below.
    watchdog = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        return _converse(process.stdin, process.stdout, candidates, references)
    except (OSError, ValueError) as error:
        raise JavaError(f"METEOR does not run, or not within {seconds:g} seconds") from error
    finally:
        watchdog.cancel()
        os.killpg(process.pid, signal.SIGKILL)  # it waits for more; until `wait` its number is nobody else's
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()


def _converse(
    asked: IO[bytes], answered: IO[bytes], candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> float:
    """The protocol of METEOR's `-stdio`: a line of statistics for each pair, then the scores of all of them."""

    def ask(line: str) -> str:
        asked.write(f"{line}\n".encode())
        asked.flush()
        return answered.readline().decode().strip()

    pairs = zip(candidates, references, strict=True)
    statistics = [ask(" ||| ".join(("SCORE", *_without_bars([*texts, text])))) for text, texts in pairs]
    first = ask(" ||| ".join(("EVAL", *statistics)))
    scores = [first, *(answered.readline().decode().strip() for _ in candidates)]
    return float(scores[-1])  # after those of each pair that of all


def _without_bars(texts: Sequence[str]) -> list[str]:
    return [text.replace("|||", " ") for text in texts]


def _ngram_metrics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1 to 4, ROUGE-L and CIDEr of texts that are split into words."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    originals = {number: list(texts) for number, texts in enumerate(references)}
    written = {number: [text] for number, text in enumerate(candidates)}
    bleu, _ = Bleu(4).compute_score(originals, written, verbose=0)
    rouge, _ = Rouge().compute_score(originals, written)
    cider, _ = Cider().compute_score(originals, written)
    found = {**{f"bleu{n}": score for n, score in enumerate(bleu, start=1)}, "rouge_l": rouge, "cider": cider}
    return {name: float(value) * (100 if name in PERCENT else 1) for name, value in found.items()}


def _folder(module: str) -> Path:
    """Where the Java program of a module of pycocoevalcap lies, which is beside it."""
    specification = find_spec(f"pycocoevalcap.{module}")
    assert specification is not None and specification.origin is not None
    return Path(specification.origin).parent


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no java on the PATH"
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr.decode(errors="replace").strip().splitlines()
        return said[0] if said else f"it ended with status {error.returncode}"
    return str(error) if isinstance(error, OSError) else "it took too long"
