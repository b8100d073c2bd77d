"""Closed lists of answers, which models choose from: a JSON list of texts, or an object of numbers by answer."""

from pathlib import Path

from datasets.annotations.files import GET_IT_AGAIN, check_texts, json_of
from datasets.annotations.layout import find_file
from datasets.text import has_words


def read(root: Path, file: str) -> list[str]:
    """The answers of a list in `root` or `root/annotations`, in its order; numbered ones in that of their numbers.

    ValueError, naming the file and the entry, if there is no such file, or if an answer is no text or stands twice.
    """
    path = find_file(file, root)
    if path is None:
        raise ValueError(f"{root / file}: no such list of answers; set evaluation.answer_file to a file in data.root")

    content = json_of(path)
    if isinstance(content, dict):
        for answer, number in content.items():
            if isinstance(number, bool) or not isinstance(number, int):
                raise ValueError(f"{path}: {answer!r}: number is {number!r}; {GET_IT_AGAIN}")
        content = sorted(content, key=lambda answer: content[answer])
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path}: found {type(content).__name__}, not a list of answers; {GET_IT_AGAIN}")

    seen: set[str] = set()
    for number, answer in enumerate(content):
        place = f"{path}: item {number}"
        if not isinstance(answer, str) or not has_words(answer):
            raise ValueError(f"{place}: answer is {answer!r}, not a text with words; {GET_IT_AGAIN}")
        if answer in seen:
            raise ValueError(f"{place}: {answer!r} stands twice; {GET_IT_AGAIN}")
        check_texts(answer, place)
        seen.add(answer)
    return content
