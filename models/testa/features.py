"""Features of videos and texts, made by towers and projections that the caller names: the model's or its twin's."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.bert import TextEncoder
from models.parts.features import EncodedVideo, TextFeatures, VideoFeatures
from models.testa.video_encoder import VideoEncoder


def encoded_video(encoder: VideoEncoder, video_BTCHW: Tensor) -> EncodedVideo:
    """Encode videos; uint8 pixels are normalised as configured."""
    return encoder(encoder.normalised(video_BTCHW))


def video_features(
    encoder: VideoEncoder, projection: nn.Linear, video_BTCHW: Tensor, weighted_pooling: bool
) -> VideoFeatures:
    """Tokens and embedding of videos: the projected mean of all tokens, weighted by size if asked."""
    encoded = encoded_video(encoder, video_BTCHW)
    if weighted_pooling:
        weight = encoded.size / encoded.size.sum(dim=1, keepdim=True)
        pooled = (encoded.tokens * weight.to(encoded.tokens.dtype).unsqueeze(-1)).sum(dim=1)
    else:
        pooled = encoded.tokens.mean(dim=1)
    return VideoFeatures(encoded.tokens, F.normalize(projection(pooled).float(), dim=-1))


def text_features(encoder: TextEncoder, projection: nn.Linear, ids: Tensor, mask: Tensor) -> TextFeatures:
    """Embeddings of texts: the projected hidden state of each first token, at unit length."""
    return TextFeatures(F.normalize(projection(encoder.first_states(ids, mask)).float(), dim=-1))
