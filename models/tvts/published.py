"""TVTSv2's published weights, and the CLIP weights that it starts from."""

from models.parts.published import Published

DRIVE = "https://drive.google.com/file/d"
B32, B16, H14 = "B/32: ViT-B/32", "B/16: ViT-B/16", "H/14: ViT-H/14"
PURPOSE = "pre-training; zero-shot retrieval and recognition"
NOT_STATED = "not stated"

PUBLISHED = (
    Published("TVTSv2_ViT_B_32.pth", B32, PURPOSE, f"{DRIVE}/1zNHgqioo-aRUwZXPyTDiRT2uaRrnk386", NOT_STATED),
    Published("TVTSv2_ViT_B_16.pth", B16, PURPOSE, f"{DRIVE}/1HKc7aGwMd5jhVaYztuY-jbmYqiz_wvWF", NOT_STATED),
    Published("TVTSv2_ViT_H_14.pth", H14, PURPOSE, f"{DRIVE}/1nxNSaQKm2jt9NSZ3eLnKx7ATTumV-6D5", NOT_STATED),
    Published("ViT-B-32.pt", B32, "start of pre-training: CLIP", "https://github.com/openai/CLIP", "MIT (the code's)"),
    Published("ViT-B-16.pt", B16, "start of pre-training: CLIP", "https://github.com/openai/CLIP", "MIT (the code's)"),
    Published(
        "laion2b_s32b_b79k",
        H14,
        "start of pre-training: OpenCLIP",
        "https://github.com/mlfoundations/open_clip",
        "MIT",
    ),
)
