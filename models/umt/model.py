"""UMT's model (ICCV 2023): a video encoder, a split BERT, and heads that join the two.

Parameter names are the published files', except that `text_encoder` is the same in all of them (see `weights.py`).
Shapes: B batch, V videos, P pairs, T frames, N video tokens, S text tokens, D width, E width of the shared space.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.umt import UMTConfig
from models.parts.bert import Predictions, initialise
from models.parts.bert_attention import KeysValues, Share
from models.parts.pixels import normalise_pixels
from models.parts.ragged import own_tokens
from models.umt.text import AnswerDecoder, RankedAnswers, SplitBert
from models.umt.video_encoder import EncodedVideo, VideoEncoder

TEMPERATURE_RANGE = (0.001, 0.5)


class VideoFeatures(NamedTuple):
    """What is made of videos.

    Attributes:
        tokens: (V, N, D) for cross-attention.
        embedding: (V, E) float32, the mean of the unit vectors of its frames (or of the one vector of all). Its product
            with a text's is the mean cosine over frames, so it must not be normalised again.
        mask: (V, N) bool, False for padding, which is zero in `tokens`; None if there is none.
    """

    tokens: Tensor
    embedding: Tensor
    mask: Tensor | None = None


class TextFeatures(NamedTuple):
    """What is made of texts alone: a unit embedding (B, E) float32, their states (B, S, D), and their mask (B, S)."""

    embedding: Tensor
    states: Tensor
    mask: Tensor


class UMT(nn.Module):
    """Video and text in one space, matching of pairs, and what pre-training or answering adds.

    Args:
        use: `retrieval` has both encoders and the heads that join them; `pretraining` also a head that guesses masked
            words and one for each video block that learns from a teacher; `answers` has an answer decoder and neither
            heads nor pooling.
        teacher_layers, teacher_width: of pre-training's teacher.
    """

    vision_proj: nn.Linear
    text_proj: nn.Linear
    itm_head: nn.Linear
    temp: nn.Parameter
    mlm_head: Predictions
    text_decoder: AnswerDecoder

    def __init__(
        self,
        model: UMTConfig,
        video: VideoConfig,
        aggregation: AggregationConfig,
        *,
        use: Literal["retrieval", "pretraining", "answers"] = "retrieval",
        teacher_layers: int = 0,
        teacher_width: int = 512,
        temperature: float = 0.07,
        activation_checkpointing: Literal["none", "recompute"] = "none",
    ) -> None:
        super().__init__()
        text = model.text
        if use == "answers" and text.width != model.width:
            raise ValueError(
                f"model.text.width: {text.width} is not model.width {model.width}; to answer questions they have to be "
                "equal, since the decoder attends to text in the place of video"
            )

        self.is_ragged = aggregation.is_ragged
        self.vision_encoder = VideoEncoder(
            model,
            video,
            aggregation,
            pool_norm=use != "answers",
            teacher_layers=teacher_layers,
            teacher_width=teacher_width,
            activation_checkpointing=activation_checkpointing,
        )
        self.text_encoder = SplitBert(text, text.depth, text.fusion_layer, model.width)
        if use == "answers":
            self.text_decoder = AnswerDecoder(text)
            return

        self.vision_proj = nn.Linear(model.width, model.embed_dim)
        self.text_proj = nn.Linear(text.width, model.embed_dim)
        self.itm_head = nn.Linear(text.width, 2)
        self.temp = nn.Parameter(torch.tensor(temperature))
        if use == "pretraining":
            self.mlm_head = Predictions(text, self.text_encoder.embeddings.word_embeddings)
            self.mlm_head.transform.apply(initialise)

    def encode_video(self, video_BTCHW: Tensor, keep_BV: Tensor | None = None) -> VideoFeatures:
        """Encode frames (B, T, 3, H, W): uint8 pixels, or floats that are normalised already.

        `keep_BV` are the tokens that pre-training lets the encoder see.
        """
        return self._features(self._encoded(video_BTCHW, keep_BV), video_BTCHW.shape[1])

    def encode_video_for_teacher(self, video_BTCHW: Tensor, keep_BV: Tensor) -> tuple[VideoFeatures, Tensor]:
        """The same of the visible tokens, and what is to meet the teacher's features of them (K, V, N, C)."""
        encoded = self._encoded(video_BTCHW, keep_BV, len(self.vision_encoder.clip_decoder))
        num_frames = video_BTCHW.shape[1]
        return self._features(encoded, num_frames), self.vision_encoder.student(encoded, num_frames, keep_BV)

    def video_tokens(self, video_BTCHW: Tensor) -> Tensor:
        """The same video's tokens (B, N, D) alone, for tasks that put no video into the shared space."""
        return self._encoded(video_BTCHW).tokens

    def encode_text(self, ids_BS: Tensor, mask_BS: Tensor) -> TextFeatures:
        """Encode texts alone; ids begin with [CLS], mask is 1 for real tokens."""
        states = self.text_encoder.read(ids_BS, mask_BS)
        embedding = F.normalize(self.text_proj(states[:, 0]).float(), dim=-1)
        return TextFeatures(embedding, states, mask_BS)

    def project(self, video_tokens_VND: Tensor) -> list[KeysValues]:
        """What texts attend to, made once a video: keys and values of each fusion layer."""
        return self.text_encoder.project(video_tokens_VND)

    def match(
        self, memory: list[KeysValues], states_PSD: Tensor, mask_PS: Tensor, about_P: Tensor | None = None
    ) -> Tensor:
        """Logits (P, 2) of pairs that do not match and that do, for texts that were read.

        P / V consecutive texts are about each video of the memory, or those whose `about` is its row.
        """
        videos = memory if about_P is None else [layer.rows(about_P) for layer in memory]
        shares = ((Share(len(states_PSD), video),) for video in videos)
        return self.itm_head(self.text_encoder.fuse_first(states_PSD, mask_PS, shares))

    def word_logits(
        self, memory: list[KeysValues], ids_BS: Tensor, mask_BS: Tensor, seen_VN: Tensor | None = None
    ) -> Tensor:
        """Logits (B, S, words) of each place of texts, some of whose words are masked, given their videos.

        `seen_VN` says which tokens of the videos are not padding.
        """
        states = self.text_encoder.read(ids_BS, mask_BS)
        return self.mlm_head(self.text_encoder.fuse(states, mask_BS, memory, seen_VN))

    def ground(self, video_tokens_VND: Tensor, ids_BS: Tensor, mask_BS: Tensor) -> Tensor:
        """States (B, S, D) of questions that attend to their videos, each of which has B / V of them in order."""
        states = self.text_encoder.read(ids_BS, mask_BS)
        projected = self.text_encoder.project(video_tokens_VND)
        return self.text_encoder.fuse(states, mask_BS, projected, self._own_tokens(video_tokens_VND))

    def answer_losses(
        self, question_states_BSD: Tensor, question_mask_BS: Tensor, answer_ids: Tensor, answer_mask: Tensor
    ) -> Tensor:
        """The summed cross-entropy (A,) of answers (A, S); each of B questions has A / B of them in order."""
        question = self.text_decoder.bert.project(question_states_BSD)
        return self.text_decoder.losses(answer_ids, answer_mask, question, question_mask_BS)

    def rank(
        self,
        question_states_BSD: Tensor,
        question_mask_BS: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        shortlist: int = 128,
    ) -> RankedAnswers:
        """The best of a list of answers (A, S) for each question; see `AnswerDecoder.rank`."""
        return self.text_decoder.rank(question_states_BSD, question_mask_BS, answer_ids, answer_mask, shortlist)

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Keep the contrastive temperature in the range it is defined on; before every optimizer step."""
        self.temp.clamp_(*TEMPERATURE_RANGE)

    def _features(self, encoded: EncodedVideo, num_frames: int) -> VideoFeatures:
        pooled = self.vision_encoder.pool(encoded.tokens, num_frames, encoded.mask, encoded.size)
        unit_vectors = F.normalize(self.vision_proj(pooled).float(), dim=-1)
        return VideoFeatures(encoded.tokens, unit_vectors.mean(dim=1), encoded.mask)

    def _own_tokens(self, video_tokens_VND: Tensor) -> Tensor | None:
        """Which tokens texts may attend to, (V, N); None where all videos have the same number."""
        return own_tokens(video_tokens_VND) if self.is_ragged else None

    def _encoded(self, video_BTCHW: Tensor, keep_BV: Tensor | None = None, num_returned: int = 0) -> EncodedVideo:
        encoder = self.vision_encoder
        kept = encoder.kept_patches(video_BTCHW)
        if video_BTCHW.dtype == torch.uint8:
            dtype = encoder.encoder.norm.weight.dtype
            video_BTCHW = normalise_pixels(video_BTCHW, encoder.pixel_mean, encoder.pixel_std, dtype)
        return encoder(video_BTCHW, keep_BV, num_returned=num_returned, kept=kept)
