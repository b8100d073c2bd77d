"""Which tokens of a video texts attend to when pairs are matched: a share of them.

They are spread over the video, the same for all texts, or they are those most like each text. Shapes: P texts, N tokens
of a video, M chosen ones, D width, E width of the shared space.
"""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from configs.evaluation import TokenChoice
from models.parts.losses import similarities
from models.parts.ragged import own_tokens
from models.protocols import DualEncoder, Matcher
from tasks.tokenized_texts import TEXTS_AT_ONCE

TURN = (159, 256)
"""About the golden section: multiples of it, without their whole part, are spread evenly over 0 to 1."""


class TokenShare(NamedTuple):
    """How many tokens of a video texts are matched with, in (0, 1], and which.

    Padding of ragged rows, which is zero, is never among them; at least one token is.
    """

    share: float = 1.0
    choice: TokenChoice = "spread"

    @classmethod
    def of(cls, evaluation: Any) -> Self:
        """The share by which an evaluation reranks; all tokens where it has no such setting."""
        return cls(getattr(evaluation, "rerank_tokens", 1.0), getattr(evaluation, "rerank_choice", "spread"))

    @property
    def is_by_text(self) -> bool:
        """Whether each text has tokens of its own."""
        return self.share < 1 and self.choice == "text"

    def of_video(self, tokens_1ND: Tensor) -> Tensor:
        """The tokens (1, M, D) that all texts are matched with, in order; all, if each text has its own."""
        if self.share == 1 or self.is_by_text:
            return tokens_1ND
        own_N = own_tokens(tokens_1ND)[0].nonzero().squeeze(1)
        return tokens_1ND.index_select(1, own_N[spread_places(len(own_N), self._most(len(own_N)), own_N.device)])

    def of_texts(self, model: DualEncoder, tokens_1ND: Tensor, texts_PE: Tensor) -> Tensor:
        """The places (P, M), ascending, of the tokens most like each text by cosine; ties go to the first token.

        Texts are compared in batches of one size, so that the choice does not depend on how pairs are batched.
        """
        own_N = own_tokens(tokens_1ND)[0].nonzero().squeeze(1)
        projected_NE = model.project_tokens(tokens_1ND[0].index_select(0, own_N))
        most, places = self._most(len(own_N)), []
        for part_PE in texts_PE.split(TEXTS_AT_ONCE):
            # The length of a text's embedding changes no order of its tokens, so it is left as it is.
            order_PN = similarities(part_PE, projected_NE).argsort(dim=1, descending=True, stable=True)
            places.append(own_N[order_PN[:, :most].sort(dim=1).values])
        return torch.cat(places)

    def _most(self, num_tokens: int) -> int:
        return max(1, round(self.share * num_tokens))


def spread_places(num_tokens: int, most: int, device: torch.device) -> Tensor:
    """The places (M,), ascending, of `most` tokens: one of each of `most` runs of neighbours, the first of the first.

    Their places within the runs differ from run to run: a fixed stride could hit the same column of every frame.
    """
    run_M = torch.arange(most, device=device)
    start_M, end_M = run_M * num_tokens // most, (run_M + 1) * num_tokens // most
    turn, whole = TURN
    return start_M + run_M * turn % whole * (end_M - start_M) // whole


def match_once(model: Matcher, tokens_1ND: Tensor, ids: Tensor, mask: Tensor, places_PM: Tensor | None) -> Tensor:
    """Logits (P, 2) of texts with one video, which attend to the tokens at their places alone, if there are any."""
    if places_PM is None:
        return model.match(tokens_1ND, ids, mask)
    return model.match_groups([(len(ids), model.project_once(tokens_1ND).chosen(places_PM))], ids, mask)


def match_share(model: Matcher, tokens_1ND: Tensor, ids: Tensor, mask: Tensor, some: TokenShare) -> Tensor:
    """Logits (P, 2) of texts with a share of one video's tokens."""
    places_PM = None
    if some.is_by_text:
        assert isinstance(model, DualEncoder)
        places_PM = some.of_texts(model, tokens_1ND, model.encode_text(ids, mask).embedding)
    return match_once(model, some.of_video(tokens_1ND), ids, mask, places_PM)
