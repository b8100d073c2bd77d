"""Which tokens of a video each text attends to when pairs are matched: the share most like the text.

A text then reads fewer keys and values in every layer. They are projected once a video, as ever, and copied for each
text. Shapes: P texts, N tokens of a video, M chosen ones, D width, E width of the shared space.
"""

import torch
from torch import Tensor

from models.parts.losses import similarities
from models.parts.ragged import own_tokens
from models.protocols import DualEncoder, Matcher
from tasks.tokenized_texts import TEXTS_AT_ONCE


class TokenChoice:
    """Chooses among the tokens of one video.

    Args:
        model: puts tokens and texts into one space.
        tokens_1ND: the video's tokens; padding of a ragged row, which is zero, is never chosen.
        share: of the video's own tokens, in (0, 1]; at least one token.
    """

    def __init__(self, model: DualEncoder, tokens_1ND: Tensor, share: float) -> None:
        self.own_N = own_tokens(tokens_1ND)[0].nonzero().squeeze(1)
        self.projected_NE = model.project_tokens(tokens_1ND[0].index_select(0, self.own_N))
        self.most = max(1, round(share * len(self.own_N)))

    def places(self, texts_PE: Tensor) -> Tensor:
        """The places (P, M), ascending, of the tokens most like each text by cosine; ties go to the first token.

        Texts are compared in batches of one size, so that the choice does not depend on how pairs are batched.
        """
        return torch.cat([self._most_alike(part) for part in texts_PE.split(TEXTS_AT_ONCE)])

    def _most_alike(self, texts_PE: Tensor) -> Tensor:
        # The length of a text's embedding changes no order of its tokens, so it is left as it is.
        best_PM = similarities(texts_PE, self.projected_NE).argsort(dim=1, descending=True, stable=True)[:, : self.most]
        return self.own_N[best_PM.sort(dim=1).values]


def match_once(model: Matcher, tokens_1ND: Tensor, ids: Tensor, mask: Tensor, places_PM: Tensor | None) -> Tensor:
    """Logits (P, 2) of texts with one video, which attend to the tokens at their places alone, if there are any."""
    if places_PM is None:
        return model.match(tokens_1ND, ids, mask)
    return model.match_groups([(len(ids), model.project_once(tokens_1ND).chosen(places_PM))], ids, mask)


def match_with_share(model: Matcher, tokens_1ND: Tensor, ids: Tensor, mask: Tensor, share: float) -> Tensor:
    """Logits (P, 2) of texts with one video, each with the share of its tokens that are most like the text."""
    if share == 1:
        return model.match(tokens_1ND, ids, mask)
    assert isinstance(model, DualEncoder)
    choice = TokenChoice(model, tokens_1ND, share)
    return match_once(model, tokens_1ND, ids, mask, choice.places(model.encode_text(ids, mask).embedding))
