"""Fresh weights for a model that is trained from scratch."""

from typing import cast

from torch import nn

from models.parts.bert import Predictions, TextDecoder, TextEncoder
from models.testa.video_encoder import VideoEncoder

EMBEDDING_STD = 0.5
"""About the size of a fresh patch token, so that position and time matter from the first step on."""


def initialise_from_scratch(video: VideoEncoder, text: TextEncoder | None, decoder: TextDecoder | None) -> None:
    """Draw the linear layers at the scale of their width, and all embeddings at the scale of patch tokens.

    The usual standard deviation of 0.02 suits a width of 768; in a narrow model, layer outputs would vanish beside the
    residual. Zero time embeddings and a zero `temporal_fc`, which preserve an image model, would hide frame order.
    """
    towers = [tower for tower in (text, None if decoder is None else decoder.bert) if tower is not None]
    stacks: list[nn.Module] = [video.blocks, *(tower.encoder for tower in towers)]
    if decoder is not None:
        stacks.append(cast(Predictions, decoder.cls["predictions"]).transform)

    # Linear layers of the blocks, and of the decoder's head.
    for stack in stacks:
        for module in stack.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    # Embeddings of words and positions, then of places and frames.
    for tower in towers:
        for embedding in (tower.embeddings.word_embeddings, tower.embeddings.position_embeddings):
            nn.init.normal_(embedding.weight, std=EMBEDDING_STD)
        nn.init.zeros_(tower.embeddings.word_embeddings.weight[0])  # padding

    nn.init.normal_(video.pos_embed, std=EMBEDDING_STD)
    if video.attention != "space":
        nn.init.normal_(video.time_embed, std=EMBEDDING_STD)
