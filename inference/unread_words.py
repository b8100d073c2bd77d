"""Tell users when a model does not read their whole text."""

from inference.api import TrainedModel


def unread_words(model: TrainedModel, text: str, *, question: bool = False) -> str | None:
    """A sentence that says how much of a text the model reads; None if it reads the whole text."""
    read, words = model.words_read(text, question=question)
    if read == words:
        return None
    return f"the model reads the first {read:,} of these {words:,} words; the others have no effect"
