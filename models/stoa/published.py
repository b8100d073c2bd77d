"""STOA-VLP's published weights, and the CLIP weights that it starts from."""

from models.parts.published import Published

SIZE = "CLIP ViT-B/16 with object and action branches"
CLIP = (
    "https://openaipublic.azureedge.net/clip/models/"
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt"
)

PUBLISHED = (
    Published(
        "pre-trained model",
        SIZE,
        "pre-training on WebVid-2.5M",
        "https://1drv.ms/u/s!Ag6-bOQBmqnBwa1aKEaFfE1bbRcaGw?e=QreZua",
        "Apache-2.0 (the code's)",
    ),
    Published("ViT-B-16.pt", "CLIP ViT-B/16", "start of pre-training: CLIP", CLIP, "MIT (the code's)"),
)
