"""Features of videos and texts, made by towers and projections that the caller names: the model's or its twin's."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.bert import TextEncoder
from models.parts.features import EncodedVideo, TextFeatures, VideoFeatures
from models.parts.ragged import mean_token
from models.testa.video_encoder import VideoEncoder


def encoded_video(encoder: VideoEncoder, video_BTCHW: Tensor) -> EncodedVideo:
    """Encode videos; uint8 pixels are normalised as configured."""
    return encoder(encoder.normalised(video_BTCHW), kept=encoder.kept_patches(video_BTCHW))


def video_features(
    encoder: VideoEncoder, projection: nn.Linear, video_BTCHW: Tensor, weighted_pooling: bool
) -> VideoFeatures:
    """Tokens and embedding of videos: the projected mean of all tokens, weighted by size if asked."""
    encoded = encoded_video(encoder, video_BTCHW)
    pooled = mean_token(encoded.tokens, encoded.mask, encoded.size if weighted_pooling else None)
    return VideoFeatures(encoded.tokens, F.normalize(projection(pooled).float(), dim=-1), encoded.mask)


def text_features(encoder: TextEncoder, projection: nn.Linear, ids: Tensor, mask: Tensor) -> TextFeatures:
    """Embeddings of texts: the projected hidden state of each first token, at unit length."""
    return TextFeatures(F.normalize(projection(encoder.first_states(ids, mask)).float(), dim=-1))
