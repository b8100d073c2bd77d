"""The split BERT against transformers' on copied weights, and its shortcuts against the long way."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.umt import SplitTextConfig, UMTConfig
from models.parts.bert_attention import KeysValues, Share
from models.umt.model import UMT
from models.umt.text import AnswerDecoder, SplitBert
from tests.models.tiny import randomise, texts

TEXT = SplitTextConfig(
    vocab_size=40, depth=4, width=32, heads=2, intermediate=48, max_positions=16, dropout=0.0, fusion_layer=2
)
CONTEXT_WIDTH = 24


def split_bert() -> SplitBert:
    torch.manual_seed(0)
    bert = SplitBert(TEXT, TEXT.depth, TEXT.fusion_layer, CONTEXT_WIDTH).eval()
    randomise(bert)
    return bert


def contexts(count: int, tokens: int = 5, width: int = CONTEXT_WIDTH) -> Tensor:
    return torch.randn(count, tokens, width, generator=torch.Generator().manual_seed(4))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def bert_of_transformers(decoder: bool) -> BertModel:
    """Two layers; a decoder is causal and has cross-attention in both."""
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=16,
        layer_norm_eps=1e-12,
        is_decoder=decoder,
        add_cross_attention=decoder,
    )
    theirs = BertModel(config, add_pooling_layer=False).eval()
    for layer in theirs.encoder.layer if decoder else ():
        for name in ("key", "value"):
            setattr(layer.crossattention.self, name, nn.Linear(CONTEXT_WIDTH, 32))
    return theirs


def load_into(theirs: BertModel, ours: SplitBert) -> None:
    missing, _ = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not [name for name in missing if "position_ids" not in name]


@torch.no_grad()
def test_text_layers_equal_transformers() -> None:
    ours, theirs = split_bert(), bert_of_transformers(decoder=False)
    load_into(theirs, ours)
    ids, mask = texts((9, 4, 2))
    close(ours.read(ids, mask)[mask.bool()], theirs(ids, attention_mask=mask).last_hidden_state[mask.bool()])


@torch.no_grad()
def test_fusion_layers_equal_transformers() -> None:
    torch.manual_seed(0)
    ours, theirs = SplitBert(TEXT, 2, 0, CONTEXT_WIDTH).eval(), bert_of_transformers(decoder=True)
    randomise(ours)
    load_into(theirs, ours)
    ids, mask = texts((9, 4, 2))
    context, context_mask = contexts(3), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    expected = theirs(ids, attention_mask=mask, encoder_hidden_states=context, encoder_attention_mask=context_mask)
    found = ours.fuse(ours.read(ids, mask, causal=True), mask, ours.project(context), context_mask, causal=True)
    close(found[mask.bool()], expected.last_hidden_state[mask.bool()])


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_first_tokens_alone_equal_those_of_all(training: bool) -> None:
    bert = split_bert().train(training)
    ids, mask = texts((9, 4, 2, 6))
    states, memory = bert.read(ids, mask), bert.project(contexts(2))
    expected = bert.fuse(states, mask, memory)[:, 0]
    close(bert.fuse_first(states, mask, ((Share(4, video),) for video in memory)), expected)


def model(use: str = "retrieval") -> UMT:
    torch.manual_seed(0)
    width = 32 if use == "answers" else CONTEXT_WIDTH
    config = UMTConfig(depth=1, width=width, heads=2, patch_size=4, embed_dim=8, text=TEXT)
    built = UMT(config, VideoConfig(num_frames=3, image_size=8), AggregationConfig(), use=use).eval()
    randomise(built)
    return built


@torch.no_grad()
def test_pairs_equal_each_pair_alone_and_project_each_video_once() -> None:
    umt = model()
    (ids, mask), videos = texts((9, 4, 2, 6)), contexts(2)
    projected: list[int] = []
    for layer in umt.text_encoder.encoder.layer[TEXT.fusion_layer :]:
        layer.crossattention.self.key.register_forward_hook(lambda _, inputs, __: projected.append(len(inputs[0])))
    memory, text = umt.project(videos), umt.encode_text(ids, mask)
    about = torch.tensor([1, 0, 0, 1])
    found = umt.match(memory, text.states, mask, about)
    assert projected == [2, 2]

    for row, video in enumerate(about.tolist()):
        states = umt.text_encoder.read(ids[row : row + 1], mask[row : row + 1])
        alone = umt.text_encoder.fuse(states, mask[row : row + 1], umt.project(videos[video : video + 1]))
        close(found[row], umt.itm_head(alone[0, 0]))


@torch.no_grad()
def test_a_similarity_is_the_mean_cosine_of_the_frames() -> None:
    umt = model()
    video = torch.randn(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ids, mask = texts((9, 4))
    features, text = umt.encode_video(video), umt.encode_text(ids, mask)
    frames = umt.vision_proj(umt.vision_encoder.pool(features.tokens, 3))
    expected = F.cosine_similarity(frames[:, None], umt.text_proj(text.states[:, 0])[None, :, None], dim=-1).mean(dim=2)
    close(features.embedding @ text.embedding.T, expected)
    assert bool((features.embedding.norm(dim=-1) < 0.999).all())


@torch.no_grad()
def test_pixels_are_normalised() -> None:
    umt = model()
    pixels = torch.randint(0, 256, (1, 3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(part)[:, None, None] for part in (VideoConfig.pixel_mean, VideoConfig.pixel_std))
    close(umt.encode_video(pixels).tokens, umt.encode_video((pixels / 255 - mean) / std).tokens)


def answer_list() -> tuple[Tensor, Tensor]:
    """Seven answers, two of which begin alike."""
    words = [[5], [6, 7], [8, 9, 10], [5, 11], [12], [13, 14], [15, 15]]
    ids, mask = torch.zeros(7, 6, dtype=torch.int64), torch.zeros(7, 6, dtype=torch.int64)
    for row, answer in enumerate(words):
        full = [2, *answer, 3, 3]
        ids[row, : len(full)], mask[row, : len(full)] = torch.tensor(full), 1
    return ids, mask


@pytest.mark.parametrize("shortlist", [1, 3, 128])
@pytest.mark.parametrize("at_once", [1, 256])
@torch.no_grad()
def test_answers_are_ranked_as_one_by_one(shortlist: int, at_once: int) -> None:
    torch.manual_seed(0)
    decoder = AnswerDecoder(TEXT).eval()
    randomise(decoder)
    ids, mask = answer_list()
    questions, asked = contexts(3, width=32), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    ranked = decoder.rank(questions, asked, ids, mask, shortlist, at_once)

    for row in range(3):
        question = decoder.bert.project(questions[row : row + 1, : int(asked[row].sum())])
        everything = torch.ones(1, int(asked[row].sum()))
        first, whole = [], []
        for answer, answer_mask in zip(ids, mask, strict=True):
            words = answer[: int(answer_mask.sum())]
            logits = decoder(words[None], torch.ones_like(words)[None], question, everything)[0]
            log_likelihood = logits.log_softmax(dim=-1)[:-1].gather(1, words[1:, None])
            first.append(log_likelihood[0, 0])
            whole.append(log_likelihood.sum())
        candidates = torch.stack(first).sort(descending=True, stable=True).indices[:shortlist]
        score = (torch.stack(first) + torch.stack(whole))[candidates].softmax(dim=0)
        order = score.argsort(descending=True)
        assert ranked.rows[row].tolist() == candidates[order].tolist()
        close(ranked.probability[row], score[order])


@torch.no_grad()
def test_losses_of_answers_share_their_question() -> None:
    umt = model("answers")
    ids, mask = answer_list()
    states, asked = contexts(2, width=32), torch.ones(2, 5)
    found = umt.answer_losses(states, asked, ids[:6], mask[:6])
    question = umt.text_decoder.bert.project(states)
    for row in range(6):
        own = [KeysValues(*(part[row // 3, None] for part in layer)) for layer in question]
        length = int(mask[row].sum())
        logits = umt.text_decoder(ids[row, None, :length], mask[row, None, :length], own, torch.ones(1, 5))[0]
        close(found[row], F.cross_entropy(logits[:-1], ids[row, 1:length], reduction="sum"))


def test_what_cannot_be_is_refused() -> None:
    config = UMTConfig(depth=1, width=24, heads=2, patch_size=4, text=TEXT)
    with pytest.raises(ValueError, match="model.text.width: 32 is not model.width 24"):
        UMT(config, VideoConfig(num_frames=3, image_size=8), AggregationConfig(), use="answers")
    ids = torch.zeros(1, 17, dtype=torch.int64)
    with pytest.raises(ValueError, match="a text of 17 tokens is longer"):
        split_bert().read(ids, torch.ones_like(ids))
