"""TESTA's model: a video encoder and, as the task needs them, a text encoder, heads for both, and a text decoder.

Parameter names are BLIP's and TESTA's (`visual_encoder`, `text_encoder`, `text_decoder`, `vision_proj`, `text_proj`,
`itm_head`, `temp`). Shapes: B batch, T frames, N video tokens, S text tokens, D width, E width of the shared space.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.parts.aggregation import AggregationStep
from models.parts.bert import TextDecoder, TextEncoder, tie_encoder_to_decoder
from models.parts.bert_attention import Memory, shares_of
from models.parts.features import EncodedVideo, TextFeatures, VideoFeatures
from models.parts.ragged import own_tokens
from models.parts.tokenizer import with_first
from models.testa.features import encoded_video, text_features, video_features
from models.testa.initialisation import initialise_from_scratch
from models.testa.video_encoder import VideoEncoder
from models.testa.writing import WritesTexts

TEMPERATURE_RANGE = (0.001, 0.5)
logger = logging.getLogger(__name__)


class VisionLanguageModel(WritesTexts):
    """Embeds videos and texts in one space, matches pairs, and writes captions and answers.

    Args:
        enc_token_id, dec_token_id, sep_token_id: ids of [ENC], [DEC] and [SEP] in the tokenizer.
        text_encoder: False for a task that reads no text; the model then has no attribute of this name.
        heads: False for a task without contrast or matching; there are then no projections, `itm_head` or `temp`.
        decoder: `none`; `tied` (pre-training), which shares all but self-attention with the encoder; or `separate`.
        decoder_context: what the decoder attends to: video tokens (captions) or question states (answers).
    """

    twinned = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
    """The parts that make embeddings. A momentum twin copies them."""

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

        self.enc_token_id, self.dec_token_id, self.sep_token_id = (
            enc_token_id,
            dec_token_id,
            sep_token_id,
        )
        self.is_ragged = aggregation.is_ragged
        self.weighted_pooling = aggregation.weighted_pooling or aggregation.weigh_lengths
        self.label_smoothing = label_smoothing

        # Only the parts that the task needs exist, so that its checkpoint holds nothing else.
        self.visual_encoder = VideoEncoder(model, video, aggregation, activation_checkpointing)
        if text_encoder:
            self.text_encoder = TextEncoder(model.text, model.width)
        if heads:
            self.vision_proj = nn.Linear(model.width, model.embed_dim)
            self.text_proj = nn.Linear(model.text.width, model.embed_dim)
            self.itm_head = nn.Linear(model.text.width, 2)
            self.temp = nn.Parameter(torch.tensor(temperature))

        # The decoder, and the weights it shares with the text encoder in pre-training.
        self.text_decoder = None
        if decoder != "none":
            context_width = model.width if decoder_context == "video" else model.text.width
            self.text_decoder = TextDecoder(model.text, context_width)
        self.is_tied = decoder == "tied"
        if self.is_tied and self.text_decoder is not None:
            tie_encoder_to_decoder(self.text_encoder, self.text_decoder)
        if model.init == "scratch":
            encoder = self.text_encoder if text_encoder else None
            initialise_from_scratch(self.visual_encoder, encoder, self.text_decoder)

        # Video sizes (frames, patches) whose capped schedule has been logged.
        self._capped: set[tuple[int, int]] = set()

    def encode_video(self, video_BTCHW: Tensor) -> VideoFeatures:
        """Encode frames (B, T, 3, H, W): uint8 pixels, or floats that are already normalised."""
        self._say_if_capped(video_BTCHW)
        return video_features(self.visual_encoder, self.vision_proj, video_BTCHW, self.weighted_pooling)

    def video_tokens(self, video_BTCHW: Tensor) -> Tensor:
        """The video's tokens (B, N, D) alone, for tasks that do not use the shared space."""
        self._say_if_capped(video_BTCHW)
        return encoded_video(self.visual_encoder, video_BTCHW).tokens

    def trace_video(self, video_BTCHW: Tensor, steps: list[list[AggregationStep]] | None = None) -> EncodedVideo:
        """Tokens, sizes and origins of uint8 videos; fills the list `steps` with what each block merges or drops."""
        return self.visual_encoder.trace_video(video_BTCHW, steps)

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Project video tokens (..., D) into the shared space: unit vectors (..., E), float32, to inspect regions."""
        return F.normalize(self.vision_proj(tokens).float(), dim=-1)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Encode texts without a video; ids and mask (B, S), each text starting with [CLS]."""
        return text_features(self.text_encoder, self.text_proj, ids, mask)

    def ground_text(self, video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None) -> Tensor:
        """Hidden states (B, S, D) of texts that attend to video tokens (B, N, D); the first token becomes [ENC].

        `about` (B,) is the row in `video_tokens` (V, N, D) of each text's video; each video is then projected once.
        """
        videos = self.text_encoder.projections(video_tokens, about)
        seen = self._own_tokens(video_tokens)
        seen = seen if seen is None or about is None else seen.index_select(0, about)
        return self.text_encoder(with_first(ids, self.enc_token_id), mask, videos, seen)

    def match(self, video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None) -> Tensor:
        """Logits (P, 2), no match first, for P texts and video tokens (V, N, D).

        Each video is projected once. `about` (P,) is the row of each text's video; else P / V texts a video, in order.
        """
        memory = self.project_once(video_tokens)
        return self.match_groups([(len(ids), memory if about is None else memory.rows(about))], ids, mask)

    def match_groups(self, groups: Sequence[tuple[int, Memory]], ids: Tensor, mask: Tensor) -> Tensor:
        """Match consecutive groups of texts, each given as its number of texts and the memory of their videos.

        Each row of a group's memory serves the same number of its texts, in order. Returns logits (P, 2).
        """
        states = self.text_encoder.first_states(with_first(ids, self.enc_token_id), mask, shares_of(groups))
        return self.itm_head(states)

    def project(self, video_tokens: Tensor) -> Memory:
        """Project videos (V, N, D) for texts to attend to, in matching and, with a tied decoder, in captioning."""
        return Memory(self.text_encoder.project(video_tokens), self._own_tokens(video_tokens))

    def project_once(self, video_tokens: Tensor) -> Memory:
        """The same for one pass only: each layer is projected when it is reached, then freed."""
        return Memory(self.text_encoder.projections(video_tokens), self._own_tokens(video_tokens))

    def _own_tokens(self, video_tokens: Tensor) -> Tensor | None:
        """Which tokens texts may attend to, (V, N); None where all videos have the same number."""
        return own_tokens(video_tokens) if self.is_ragged else None

    @property
    def similarity_scale(self) -> float:
        """The factor on similarities in training: 1 / temperature."""
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
        """Unit-length embeddings (B, E) of videos and texts, made by `parts` in place of the `twinned` ones."""
        video = video_features(
            cast(VideoEncoder, parts["visual_encoder"]),
            cast(nn.Linear, parts["vision_proj"]),
            video_BTCHW,
            self.weighted_pooling,
        )
        text = text_features(cast(TextEncoder, parts["text_encoder"]), cast(nn.Linear, parts["text_proj"]), ids, mask)
        return video.embedding, text.embedding

    def compile_towers(self) -> None:
        """Compile the video encoder, one graph per size: graphs with symbolic sizes take many times as long."""
        self.visual_encoder.compile(fullgraph=True, dynamic=False)

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Prepare for inference in `dtype`, with outputs equal to 1e-5. The model can no longer be trained."""
        self.visual_encoder.fold_for_inference(dtype)

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Clamp the contrastive temperature to its range; call before every optimizer step."""
        self.temp.clamp_(*TEMPERATURE_RANGE)

    def freeze_unused(self, losses: tuple[str, ...]) -> None:
        """Freeze every parameter that gets no gradient from `losses`, as DDP requires."""
        reached: list[nn.Module] = [self.visual_encoder]
        if "classes" in losses:
            reached.append(self.vision_proj)
        if "vtc" in losses:
            # Contrast reads texts alone, so cross-attention has no part in it.
            reached += [self.vision_proj, self.text_proj, self.text_encoder.embeddings]
            for layer in self.text_encoder.encoder.layer:
                reached += [part for name, part in layer.named_children() if name != "crossattention"]
        if "vtm" in losses:
            reached += [self.text_encoder, self.itm_head]
        if "vqa" in losses:
            reached.append(self.text_encoder)
        if "cap" in losses or "vqa" in losses:
            reached.append(self._decoder())

        # Compare parameters by identity, since tied ones have several names.
        trained = {id(parameter) for part in reached for parameter in part.parameters()}
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(id(parameter) in trained or (name == "temp" and "vtc" in losses))

    def _say_if_capped(self, video_BTCHW: Tensor) -> None:
        """Log, once for each video size, in which blocks fewer tokens leave than configured."""
        num_frames, (height, width) = video_BTCHW.shape[1], video_BTCHW.shape[-2:]
        patch = self.visual_encoder.patch_size
        size = (num_frames, (height // patch) * (width // patch))
        if size not in self._capped:
            self._capped.add(size)
            for line in self.visual_encoder.capped(*size):
                logger.warning("aggregation is capped: %s", line)
