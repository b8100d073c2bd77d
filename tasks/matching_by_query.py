"""Match all candidates of a query in one call, each direction apart.

Some models normalise over the pairs of a call, so that a pair's logits depend on the others (STOA-VLP's published
weights). Shapes: T texts, V videos, k candidates of each, N video tokens, D width.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.distributed import gather_objects, rank, world_size
from models.parts.ragged import joined_rows
from models.protocols import Matcher
from tasks.base import progress_bar
from tasks.reranking_rules import Rule
from tasks.token_store import TokenStore
from tasks.tokenized_texts import TokenizedTexts


def tokens_of_all(store: TokenStore, own: Sequence[int], positions: Sequence[int]) -> list[Tensor]:
    """The tokens (1, N, D) of all videos at `positions`, on the CPU; each process stores those of its `own`.

    They are all in memory at once: such models have few tokens a video.
    """
    gathered: Mapping[int, Tensor] = {}
    for part in gather_objects({position: store.read(position) for position in own}):
        gathered = {**gathered, **part}
    return [gathered[position] for position in positions]


def match_by_query(
    model: Matcher,
    rule: Rule,
    texts: TokenizedTexts,
    tokens: Sequence[Tensor],
    chosen: tuple[NDArray, NDArray],
    device: torch.device,
) -> list[NDArray]:
    """The rule's values of each text's candidate videos (T, k), and of each video's candidate texts (V, k).

    Processes share the queries.
    """
    of_texts, of_videos = chosen

    def for_text(text: int) -> Tensor:
        videos = joined_rows([tokens[video] for video in of_texts[text]]).to(device)
        ids, mask = texts.batch(np.full(len(videos), text), device)
        return rule.value(model.match(videos, ids, mask, torch.arange(len(videos), device=device)))

    def for_video(video: int) -> Tensor:
        return rule.value(model.match(tokens[video].to(device), *texts.batch(of_videos[video], device)))

    found = []
    for queries, match in ((len(of_texts), for_text), (len(of_videos), for_video)):
        own_queries = progress_bar(range(rank(), queries, world_size()), "reranking")
        own = {query: match(query).cpu().numpy() for query in own_queries}
        values = {query: row for part in gather_objects(own) for query, row in part.items()}
        found.append(np.stack([values[query] for query in range(queries)]))
    return found
