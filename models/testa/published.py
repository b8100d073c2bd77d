"""TESTA's published weights, and the image-text weights that it starts from."""

from models.parts.published import Published

HUB = "hf://ShuhuaiRen"
BASE = "base: ViT-B/16, BERT-base"
LICENCE = "BSD-3-Clause (the code's)"

PUBLISHED = (
    Published(
        "testa_model_base_pretrain.pth",
        BASE,
        "pre-training, 32 frames; zero-shot retrieval",
        f"{HUB}/TESTA_model_base_pretrain/testa_model_base_pretrain.pth",
        LICENCE,
    ),
    Published(
        "testa_model_base_queryd_f32_f1p12.pth",
        BASE,
        "retrieval on QuerYD",
        f"{HUB}/TESTA_model_base_QuerYD_retrieval_ft/testa_model_base_queryd_f32_f1p12.pth",
        LICENCE,
    ),
    Published(
        "testa_model_base_cm_f32_f1p12.pth",
        BASE,
        "retrieval on Condensed Movies",
        f"{HUB}/TESTA_model_base_CondensedMovies_retrieval_ft/testa_model_base_cm_f32_f1p12.pth",
        LICENCE,
    ),
    Published(
        "testa_model_base_didemo_f32_f1p12.pth",
        BASE,
        "retrieval on DiDeMo",
        f"{HUB}/TESTA_model_base_DiDeMo_retrieval_ft/testa_model_base_didemo_f32_f1p12.pth",
        LICENCE,
    ),
    Published(
        "testa_model_base_anet_f32_f1p12.pth",
        BASE,
        "retrieval on ActivityNet Captions",
        f"{HUB}/TESTA_model_base_ActivityNet_retrieval_ft/testa_model_base_anet_f32_f1p12.pth",
        LICENCE,
    ),
    Published(
        "model_base_capfilt_large.pth",
        "BLIP base: ViT-B/16, BERT-base",
        "start of pre-training: BLIP, images and texts",
        "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/model_base_capfilt_large.pth",
        "BSD-3-Clause",
    ),
)
