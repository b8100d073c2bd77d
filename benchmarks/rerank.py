"""Reranking: seconds to score one pair of a video and a text of 64 words, over all texts of one video.

Ours projects the video once for all its texts; BLIP's way, which is the reference's and transformers', repeats the
video's tokens for each text and projects them again. No video is encoded here: its tokens are random.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.models.blip.configuration_blip import BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextModel

from benchmarks.encoder import DTYPES
from benchmarks.limit import MachineLimit, Products, record
from benchmarks.measure import Case, Variant
from benchmarks.naive_text import NORM_EPS, NaiveText
from benchmarks.settings import Settings, sections
from configs.evaluation import EvaluationConfig
from configs.schema import AggregationConfig, TestaConfig, TextConfig, VideoConfig
from engine.host_memory import keep_freed_memory
from engine.precision import Precision, autocast
from models.parts.tokenizer import with_first
from models.testa.cost import count
from models.testa.model import VisionLanguageModel

TEXT_TOKENS = 66
"""64 words of one token each, [CLS] and [SEP]."""
TEXTS = 128
"""Of one video: as many as `evaluation.rerank` takes of each direction."""
NAIVE_PAIRS = {"cpu": 4, "cuda": 16}
"""Scored at once. The reference takes 16; on a CPU a pair takes seconds, and no less among more."""
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 2e-2}
"""How far two ways may be apart in the score of a pair; beyond it they do different work and are not compared."""

Tower = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Hidden states (B, S, D) of ids (B, S) that begin with [ENC], their mask, and a video's tokens (B, N, D) for each."""


def cases(settings: Settings) -> list[Case]:
    """With the video's tokens of the encoder without aggregation and with the configured one, in both precisions."""
    model, video, aggregation = sections(settings)
    numbers = sorted({count(model, video, reducer).tokens for reducer in (AggregationConfig(), aggregation)})
    found = []
    for precision in DTYPES:
        for tokens in reversed(numbers):
            ways = ("ours", "naive", "peer", "limit")
            arguments = {"num_tokens": tokens, "precision": precision}
            variants = {way: Variant(f"{__name__}:{way}", arguments) for way in ways}
            found.append(Case(f"rerank {precision}, one pair, {tokens} video tokens", **variants))
    return found


class Pairs(NamedTuple):
    """A model and one video's tokens (1, N, D), with ids and mask (P, S) of texts without padding."""

    model: VisionLanguageModel
    tokens: Tensor
    ids: Tensor
    mask: Tensor


def make_pairs(settings: Settings, num_tokens: int, num_texts: int) -> Pairs:
    """Random weights, tokens and texts: the same in every process."""
    torch.manual_seed(0)
    config = sections(settings)[0]
    model = make_testa(config).eval()
    # What the tokens of a video have in common is what its texts see of it: the mean of independent ones is next to 0.
    tokens = torch.randn(1, num_tokens, config.width) + torch.randn(1, 1, config.width)
    ids = torch.randint(1, model.dec_token_id, (num_texts, min(TEXT_TOKENS, config.text.max_positions)))
    device = torch.device(settings.device)
    return Pairs(model.to(device), tokens.to(device), ids.to(device), torch.ones_like(ids).to(device))


def make_testa(config: TestaConfig) -> VisionLanguageModel:
    """A model whose video encoder, which has nothing to do here, is as small as one can be."""
    return VisionLanguageModel(
        replace(config, depth=1),
        VideoConfig(num_frames=1, image_size=config.patch_size),
        AggregationConfig(),
        enc_token_id=config.text.vocab_size - 1,
        dec_token_id=config.text.vocab_size - 2,
        sep_token_id=0,
    )


def ours(settings: Settings, num_tokens: int, precision: Precision) -> Callable[[], float]:
    """Seconds a pair of `VisionLanguageModel.match`, in the batches that evaluation makes."""
    pairs = make_pairs(settings, num_tokens, TEXTS)
    if settings.device == "cpu":
        keep_freed_memory()  # only now: what making the model has freed is to count when it is taken again
    return lambda: seconds_a_pair(lambda: our_scores(pairs, settings, precision), TEXTS)


def naive(settings: Settings, num_tokens: int, precision: Precision) -> Callable[[], float]:
    """Seconds a pair of BLIP's text tower in plain lines."""
    return _of_tower(naive_tower, settings, num_tokens, precision)


def peer(settings: Settings, num_tokens: int, precision: Precision) -> Callable[[], float]:
    """Seconds a pair of transformers' BLIP text tower."""
    return _of_tower(peer_tower, settings, num_tokens, precision)


def limit(settings: Settings, num_tokens: int, precision: Precision) -> Callable[[], float]:
    """Seconds a pair of all matrix products that ours makes of a batch, each at the machine's best rate."""
    keep_freed_memory()
    of_batch = MachineLimit(
        executed_products(settings, num_tokens, TEXTS), torch.device(settings.device), DTYPES[precision]
    )
    return lambda: of_batch() / TEXTS


def executed_products(settings: Settings, num_tokens: int, num_texts: int) -> Products:
    """The matrix products of matching one video with so many texts at once, none of them padded."""
    config = sections(settings)[0]
    with torch.device("meta"):
        # In training the mask's values are not looked at, of which there are none on the meta device.
        model = make_testa(replace(config, text=replace(config.text, dropout=0.0))).train()
        tokens = torch.empty(1, num_tokens, config.width)
        ids = torch.empty(num_texts, min(TEXT_TOKENS, config.text.max_positions), dtype=torch.int64)
        return record(_Matching(model), tokens, ids, torch.ones_like(ids))


class _Matching(nn.Module):
    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_1ND: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model.match(tokens_1ND, ids, mask)


def our_scores(pairs: Pairs, settings: Settings, precision: Precision) -> Tensor:
    """Matching logits (P,) as evaluation takes them: see `tasks/retrieval.py`."""
    size = EvaluationConfig().rerank_batch_size
    with _as_evaluated(settings, precision):
        scores = [
            pairs.model.match(pairs.tokens, ids, mask)[:, 1].float()
            for ids, mask in zip(pairs.ids.split(size), pairs.mask.split(size), strict=True)
        ]
        return torch.cat(scores).cpu()


def tower_scores(tower: Tower, pairs: Pairs, settings: Settings, precision: Precision) -> Tensor:
    """The same (P,) as the reference takes them, of all pairs at once."""
    with _as_evaluated(settings, precision):
        repeated = pairs.tokens.repeat(len(pairs.ids), 1, 1)
        hidden = tower(with_first(pairs.ids, pairs.model.enc_token_id), pairs.mask, repeated)
        return pairs.model.itm_head(hidden[:, 0])[:, 1].float().cpu()


def naive_tower(pairs: Pairs, text: TextConfig) -> Tower:
    """`NaiveText` with the model's weights."""
    tower = NaiveText(text, pairs.tokens.shape[-1]).eval()
    tower.load_state_dict(pairs.model.text_encoder.state_dict(), assign=True)
    return tower


def peer_tower(pairs: Pairs, text: TextConfig) -> Tower:
    """`BlipTextModel` with the model's weights."""
    config = BlipTextConfig(
        vocab_size=text.vocab_size,
        hidden_size=text.width,
        encoder_hidden_size=pairs.tokens.shape[-1],
        intermediate_size=text.intermediate,
        num_hidden_layers=text.depth,
        num_attention_heads=text.heads,
        max_position_embeddings=text.max_positions,
        layer_norm_eps=NORM_EPS,
        is_decoder=True,  # else it has no cross-attention
        pad_token_id=0,
    )
    model = BlipTextModel(config, add_pooling_layer=False).eval().to(pairs.tokens.device)
    model.load_state_dict(pairs.model.text_encoder.state_dict(), assign=True)

    def tower(ids: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
        seen = torch.ones(tokens.shape[:2], device=tokens.device)
        return model(
            ids, attention_mask=mask, encoder_hidden_states=tokens, encoder_attention_mask=seen, is_decoder=False
        ).last_hidden_state

    return tower


def check_same(found: Tensor, expected: Tensor, precision: Precision) -> None:
    """Refuse to compare the speed of two ways that score pairs differently."""
    apart = (found - expected).abs().max().item()
    assert apart <= TOLERANCE[precision], f"scores of the same pairs are {apart:.2e} apart in {precision}"


def seconds_a_pair(score: Callable[[], Tensor], num_pairs: int) -> float:
    """Wall time until the scores of so many pairs are here."""
    start = time.perf_counter()
    score()  # on the CPU at its end, so a GPU is done by then
    return (time.perf_counter() - start) / num_pairs


def _of_tower(
    make_tower: Callable[[Pairs, TextConfig], Tower], settings: Settings, num_tokens: int, precision: Precision
) -> Callable[[], float]:
    num_pairs = NAIVE_PAIRS[settings.device]
    pairs = make_pairs(settings, num_tokens, num_pairs)
    tower = make_tower(pairs, sections(settings)[0].text)
    found = tower_scores(tower, pairs, settings, precision)
    check_same(found, our_scores(pairs, settings, precision), precision)
    return lambda: seconds_a_pair(lambda: tower_scores(tower, pairs, settings, precision), num_pairs)


def _as_evaluated(settings: Settings, precision: Precision) -> AbstractContextManager:
    """The contexts in which the engine evaluates."""
    stack = ExitStack()
    stack.enter_context(torch.no_grad())
    stack.enter_context(autocast(torch.device(settings.device), precision))
    return stack
