"""The types of questions that a program made from captions: their first words."""

KINDS = ("what", "who", "how", "when", "where")


def kind_of(question: str) -> str:
    """The first word of a question, if it is one of `KINDS`; else "other"."""
    word = question.split()[0].lower()
    return word if word in KINDS else "other"
