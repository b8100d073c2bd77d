"""Libraries that tell nouns and verbs, behind one function: words of captions in, NOUN, VERB or another tag out."""

import functools
import importlib
from collections.abc import Callable, Sequence

Tag = Callable[[Sequence[Sequence[str]]], list[list[str]]]
"""From the words of captions to a tag each."""

SPACY_HELP = (
    "spaCy's models are no PyPI packages; install one as its documentation says, for example "
    "`python -m spacy download en_core_web_sm`, or use --tagger hanta"
)


def tagger(name: str) -> Tag:
    """`hanta`, or `spacy:MODEL`. ValueError if it is not installed."""
    library, _, model = name.partition(":")
    if library == "hanta" and not model:
        return hanta()
    if library == "spacy" and model:
        return spacy(model)
    raise ValueError(f"--tagger {name}: is neither hanta nor spacy:MODEL")


@functools.lru_cache(maxsize=1)
def hanta() -> Tag:
    """The Hanover Tagger, whose English model is in its PyPI package. Its tags are CLAWS5's."""
    try:
        module = importlib.import_module("HanTa.HanoverTagger")
    except ImportError:
        raise ValueError("--tagger hanta: is not installed; pip install HanTa") from None
    tag_sentence = module.HanoverTagger("morphmodel_en.pgz").tag_sent

    def tag_words(words: Sequence[str]) -> list[str]:
        return [_claws_to_universal(found) for _, _, found in tag_sentence(list(words))]

    def tag(captions: Sequence[Sequence[str]]) -> list[list[str]]:
        return [tag_words(words) for words in captions]

    return tag


@functools.lru_cache(maxsize=1)
def spacy(model: str) -> Tag:
    """A pipeline of spaCy that the user has installed, by its name or folder."""
    try:
        library = importlib.import_module("spacy")
        tokens = importlib.import_module("spacy.tokens")
        pipeline = library.load(model, exclude=["parser", "ner"])
    except (ImportError, OSError) as error:
        text = " ".join(str(error).split())[:150]
        raise ValueError(f"--tagger spacy:{model}: cannot be loaded ({text}); {SPACY_HELP}") from None

    def tag(captions: Sequence[Sequence[str]]) -> list[list[str]]:
        documents = (tokens.Doc(pipeline.vocab, words=list(words)) for words in captions)
        tags = []
        for document in pipeline.pipe(documents):
            tags.append([token.pos_ for token in document])
        return tags

    return tag


def _claws_to_universal(tag: str) -> str:
    """Common nouns and full verbs; names and auxiliaries have other tags in both sets."""
    if tag in ("NN0", "NN1", "NN2"):
        return "NOUN"
    return "VERB" if tag.startswith("VV") else "OTHER"
