"""The model: a video encoder and, as its task needs them, a text encoder, heads that join the two, a text decoder.

Parameter names are BLIP's and TESTA's (`visual_encoder`, `text_encoder`, `text_decoder`, `vision_proj`, `text_proj`,
`itm_head`, `temp`). Shapes: B batch, T frames, N video tokens, S text tokens, D width, E width of the shared space.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.parts.aggregation import AggregationStep
from models.parts.bert import TextDecoder, TextEncoder, tie_encoder_to_decoder
from models.parts.bert_attention import KeysValues, Memory, Share
from models.parts.features import EncodedVideo, TextFeatures, VideoFeatures
from models.parts.generation import beam_search, nucleus_sampling
from models.parts.tokenizer import with_first
from models.testa.initialisation import initialise_from_scratch
from models.testa.video_encoder import VideoEncoder

TEMPERATURE_RANGE = (0.001, 0.5)
PAIRS_AT_ONCE = 256
"""Pairs of question and answer that are scored together: 0.3 GB of logits for answers of ten tokens."""
logger = logging.getLogger(__name__)


class VisionLanguageModel(nn.Module):
    """Video and text in one space, matching of pairs, captions and answers.

    Args:
        enc_token_id, dec_token_id, sep_token_id: ids of [ENC], [DEC] and [SEP] in the tokenizer.
        text_encoder: False for a task that reads no text; there is then no such part, nor a name of it.
        heads: False for a task without contrast and matching: no projections, `itm_head` and `temp`.
        decoder: `none`; `tied`, pre-training's, which shares all but self-attention with the encoder; or `separate`.
        decoder_context: what the decoder attends to: video tokens (captions) or question states (answers).
    """

    twinned = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
    """The parts that make embeddings, which a momentum twin copies."""

    text_encoder: TextEncoder
    vision_proj: nn.Linear
    text_proj: nn.Linear
    itm_head: nn.Linear
    temp: nn.Parameter

    def __init__(
        self,
        model: TestaConfig,
        video: VideoConfig,
        aggregation: AggregationConfig,
        *,
        enc_token_id: int,
        dec_token_id: int,
        sep_token_id: int,
        text_encoder: bool = True,
        heads: bool = True,
        decoder: Literal["none", "tied", "separate"] = "none",
        decoder_context: Literal["video", "question"] = "video",
        label_smoothing: float = 0.1,
        temperature: float = 0.07,
        activation_checkpointing: Literal["none", "recompute", "offload"] = "none",
    ) -> None:
        super().__init__()
        assert text_encoder or not (heads or decoder == "tied"), "heads and a tied decoder go with a text encoder"
        self.enc_token_id, self.dec_token_id, self.sep_token_id = enc_token_id, dec_token_id, sep_token_id
        self.weighted_pooling = aggregation.weighted_pooling
        self.label_smoothing = label_smoothing
        self.visual_encoder = VideoEncoder(model, video, aggregation, activation_checkpointing)
        if text_encoder:
            self.text_encoder = TextEncoder(model.text, model.width)
        if heads:
            self.vision_proj = nn.Linear(model.width, model.embed_dim)
            self.text_proj = nn.Linear(model.text.width, model.embed_dim)
            self.itm_head = nn.Linear(model.text.width, 2)
            self.temp = nn.Parameter(torch.tensor(temperature))
        self.text_decoder: TextDecoder | None = None
        if decoder != "none":
            context_width = model.width if decoder_context == "video" else model.text.width
            self.text_decoder = TextDecoder(model.text, context_width)
        self.is_tied = decoder == "tied"
        if self.is_tied and self.text_decoder is not None:
            tie_encoder_to_decoder(self.text_encoder, self.text_decoder)
        if model.init == "scratch":
            encoder = self.text_encoder if text_encoder else None
            initialise_from_scratch(self.visual_encoder, encoder, self.text_decoder)
        self._capped: set[tuple[int, int]] = set()

    def encode_video(self, video_BTCHW: Tensor) -> VideoFeatures:
        """Encode frames (B, T, 3, H, W): uint8 pixels, or floats that are normalised already."""
        self._say_if_capped(video_BTCHW)
        return video_features(self.visual_encoder, self.vision_proj, video_BTCHW, self.weighted_pooling)

    def video_tokens(self, video_BTCHW: Tensor) -> Tensor:
        """The same video's tokens (B, N, D) alone, for tasks that put no video into the shared space."""
        self._say_if_capped(video_BTCHW)
        return encoded_video(self.visual_encoder, video_BTCHW).tokens

    def trace_video(self, video_BTCHW: Tensor, steps: list[list[AggregationStep]] | None = None) -> EncodedVideo:
        """Tokens, sizes and origins of uint8 videos; `steps`, an empty list, gets what each block merges or drops."""
        return self.visual_encoder.trace_video(video_BTCHW, steps)

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Unit vectors (..., E), float32, of video tokens (..., D) in the shared space, for looking at regions."""
        return F.normalize(self.vision_proj(tokens).float(), dim=-1)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Encode texts alone; ids and mask (B, S), ids beginning with [CLS]."""
        return text_features(self.text_encoder, self.text_proj, ids, mask)

    def ground_text(self, video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None) -> Tensor:
        """Hidden states (B, S, D) of texts, begun with [ENC], that attend to video tokens (B, N, D).

        With `about` (B,), the row in `video_tokens` (V, N, D) of each text's video, each video is projected once.
        """
        videos = self.text_encoder.projections(video_tokens, about)
        return self.text_encoder(with_first(ids, self.enc_token_id), mask, videos)

    def match(self, video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None) -> Tensor:
        """Logits (P, 2) of pairs that do not match and that do, for P texts and video tokens (V, N, D).

        Each video is projected once: P / V consecutive texts are about each, or those whose `about` (P,) is its row.
        """
        videos = self.text_encoder.projections(video_tokens, about)
        return self._match_shares(((Share(len(ids), video),) for video in videos), ids, mask)

    def match_groups(self, groups: Sequence[tuple[int, Memory]], ids: Tensor, mask: Tensor) -> Tensor:
        """The same for groups of texts, one after the other: how many texts, and the memory of their videos.

        Each row of a group's memory serves equally many of its texts, in order.
        """
        layers = zip(*(memory.layers for _, memory in groups), strict=True)
        shares = ([Share(texts, layer) for (texts, _), layer in zip(groups, of, strict=True)] for of in layers)
        return self._match_shares(shares, ids, mask)

    def project(self, video_tokens: Tensor) -> Memory:
        """What texts attend to of videos (V, N, D), in matching and, where the decoder is tied, in captioning."""
        return Memory(self.text_encoder.project(video_tokens))

    def project_once(self, video_tokens: Tensor) -> Memory:
        """The same for one pass only: each layer is projected when it is reached, then freed."""
        return Memory(self.text_encoder.projections(video_tokens))

    def _match_shares(self, videos: Iterable[Sequence[Share]], ids: Tensor, mask: Tensor) -> Tensor:
        return self.itm_head(self.text_encoder.first_states(with_first(ids, self.enc_token_id), mask, videos))

    def context_loss(self, context: Tensor, ids: Tensor, mask: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """Loss (B,) of each text, summed over its tokens after the first, which becomes [DEC]; label-smoothed.

        `context` (V, N, D) is what the decoder attends to: video tokens for captions, question states for answers. Each
        serves B / V texts, in order.
        """
        return self.text_loss(Memory(self._decoder().bert.project(context)), ids, mask, context_mask)

    def text_loss(self, memory: Memory, ids: Tensor, mask: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """The same for a context that is projected."""
        context = list(memory.layers)
        # Nothing follows the last token. Rows before columns: the softmax then needs no copy of the logits.
        started = with_first(ids, self.dec_token_id)[:, :-1]
        logits = self._decoder()(started, mask[:, :-1], context, context_mask).flatten(0, 1)
        target = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        loss = F.cross_entropy(logits.float(), target.flatten(), reduction="none", label_smoothing=self.label_smoothing)
        return loss.view_as(target).sum(dim=1)

    @torch.no_grad()
    def generate(
        self,
        context: Tensor,
        context_mask: Tensor | None = None,
        *,
        num_beams: int = 3,
        min_tokens: int = 1,
        max_tokens: int = 64,
        top_p: float | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Write a text for each context (B, N, D): ids (B, S) from [DEC] on, padded after [SEP].

        Beam search, or nucleus sampling where `top_p` is given (`num_beams` is then not used); `noise`
        (B, max_tokens), uniform in [0, 1), decides its draws and is drawn afresh unless it is given.
        """
        decoder = self._decoder()
        arguments = (decoder, decoder.bert.project(context), context_mask, self.dec_token_id, self.sep_token_id)
        if top_p is None:
            return beam_search(*arguments, num_beams=num_beams, min_tokens=min_tokens, max_tokens=max_tokens)
        if noise is None:
            noise = torch.rand((len(context), max_tokens), device=context.device)
        return nucleus_sampling(*arguments, noise, top_p=top_p, min_tokens=min_tokens)

    @torch.no_grad()
    def answer(
        self,
        question_states: Tensor,
        question_mask: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        shortlist: int = 128,
    ) -> Tensor:
        """The best of a list of answers for each question, as rows (B,) of `answer_ids` (A, S).

        The `shortlist` answers whose first word is likeliest are ranked by the loss of the whole answer; of equal ones
        the first in the list counts. `question_states` (B, S, D) come from `ground_text`.
        """
        decoder = self._decoder()
        context = decoder.bert.project(question_states)
        start = torch.full((len(question_states), 1), self.dec_token_id, dtype=torch.int64, device=answer_ids.device)
        word_scores, _ = decoder.step(start, context, question_mask, past=None)
        likelihood = word_scores.float().softmax(dim=-1).index_select(1, answer_ids[:, 1])
        # Answers that begin alike are equally likely here: a stable order settles which of them are ranked.
        best_first = likelihood.sort(dim=1, descending=True, stable=True).indices
        candidates = best_first[:, :shortlist]
        questions_at_once = max(1, PAIRS_AT_ONCE // candidates.shape[1])
        losses = []
        for first in range(0, len(candidates), questions_at_once):
            rows = slice(first, first + questions_at_once)
            asked, own = question_mask[rows], [KeysValues(*(part[rows] for part in layer)) for layer in context]
            scored = []
            for answers in candidates[rows].split(PAIRS_AT_ONCE, dim=1):
                length = int(answer_mask[answers].sum(dim=-1).max())  # one long answer is not to slow down all
                ids, mask = (of_all[answers, :length].flatten(0, 1) for of_all in (answer_ids, answer_mask))
                scored.append(self.text_loss(Memory(own), ids, mask, asked).view_as(answers))
            losses.append(torch.cat(scored, dim=1))
        loss = torch.cat(losses).nan_to_num(nan=torch.inf)
        best = loss == loss.min(dim=1, keepdim=True).values
        return candidates.masked_fill(~best, len(answer_ids)).min(dim=1).values

    @property
    def similarity_scale(self) -> float:
        """What similarities are multiplied by in training: 1 / temperature."""
        return 1 / self.temp.item()

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch."""
        return self.visual_encoder.patch_size

    @property
    def num_blocks(self) -> int:
        """Blocks of the video encoder."""
        return len(self.visual_encoder.blocks)

    @property
    def embed_dim(self) -> int:
        """Width of the space that videos and texts share."""
        return self.vision_proj.out_features

    def embed_with(
        self, parts: Mapping[str, nn.Module], video_BTCHW: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Unit-length embeddings (B, E) of videos and texts by other modules in the place of the `twinned` parts."""
        video = video_features(
            cast(VideoEncoder, parts["visual_encoder"]),
            cast(nn.Linear, parts["vision_proj"]),
            video_BTCHW,
            self.weighted_pooling,
        )
        text = text_features(cast(TextEncoder, parts["text_encoder"]), cast(nn.Linear, parts["text_proj"]), ids, mask)
        return video.embedding, text.embedding

    def compile_towers(self) -> None:
        """Compile the video encoder; a graph for each size, as graphs of symbolic sizes take many times as long."""
        self.visual_encoder.compile(fullgraph=True, dynamic=False)

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Evaluate in `dtype` from now on, with outputs equal to 1e-5; the model no longer trains."""
        self.visual_encoder.fold_for_inference(dtype)

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Keep the contrastive temperature in the range it is defined on; before every optimizer step."""
        self.temp.clamp_(*TEMPERATURE_RANGE)

    def freeze_unused(self, losses: tuple[str, ...]) -> None:
        """Freeze every parameter that gets no gradient from `losses`, as DDP requires."""
        reached: list[nn.Module] = [self.visual_encoder]
        if "vtc" in losses:
            reached += [self.vision_proj, self.text_proj, self.text_encoder.embeddings]
            for layer in self.text_encoder.encoder.layer:
                reached += [part for name, part in layer.named_children() if name != "crossattention"]
        if "vtm" in losses:
            reached += [self.text_encoder, self.itm_head]
        if "vqa" in losses:
            reached.append(self.text_encoder)
        if "cap" in losses or "vqa" in losses:
            reached.append(self._decoder())
        trained = {id(parameter) for part in reached for parameter in part.parameters()}
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(id(parameter) in trained or (name == "temp" and "vtc" in losses))

    def _decoder(self) -> TextDecoder:
        if self.text_decoder is None:
            raise ValueError("this model has no text decoder: it was built for a task that writes no text")
        return self.text_decoder

    def _say_if_capped(self, video_BTCHW: Tensor) -> None:
        num_frames, (height, width) = video_BTCHW.shape[1], video_BTCHW.shape[-2:]
        patch = self.visual_encoder.patch_size
        size = (num_frames, (height // patch) * (width // patch))
        if size not in self._capped:
            self._capped.add(size)
            for line in self.visual_encoder.capped(*size):
                logger.warning("aggregation is capped: %s", line)


def encoded_video(encoder: VideoEncoder, video_BTCHW: Tensor) -> EncodedVideo:
    """Videos through the encoder, uint8 pixels normalised as it was configured."""
    return encoder(encoder.normalised(video_BTCHW))


def video_features(
    encoder: VideoEncoder, projection: nn.Linear, video_BTCHW: Tensor, weighted_pooling: bool
) -> VideoFeatures:
    """Tokens and embedding of videos; the embedding is the projected mean of all tokens, weighed by size if asked."""
    encoded = encoded_video(encoder, video_BTCHW)
    if weighted_pooling:
        weight = encoded.size / encoded.size.sum(dim=1, keepdim=True)
        pooled = (encoded.tokens * weight.to(encoded.tokens.dtype).unsqueeze(-1)).sum(dim=1)
    else:
        pooled = encoded.tokens.mean(dim=1)
    return VideoFeatures(encoded.tokens, F.normalize(projection(pooled).float(), dim=-1))


def text_features(encoder: TextEncoder, projection: nn.Linear, ids: Tensor, mask: Tensor) -> TextFeatures:
    """Embeddings of texts: the projected first states."""
    return TextFeatures(F.normalize(projection(encoder.first_states(ids, mask)).float(), dim=-1))
