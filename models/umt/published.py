"""UMT's published weights, which vid-TLDR reduces without training: UMT's model zoo, the 25M setting."""

from models.parts.published import Published

ZOO = "https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/umt/multi_modality"
B16, L16 = "B/16: ViT-B/16, BERT-base", "L/16: ViT-L/16, BERT-large"
LICENCE = "MIT (the code's)"


def _of(file: str, size: str, purpose: str) -> Published:
    return Published(file, size, purpose, f"{ZOO}/{file}", LICENCE)


PUBLISHED = (
    _of("b16_25m.pth", B16, "pre-training; zero-shot retrieval"),
    _of("l16_25m.pth", L16, "pre-training; zero-shot retrieval"),
    _of("ret_msrvtt_b16_25m.pth", B16, "retrieval on MSR-VTT"),
    _of("ret_msrvtt_l16_25m.pth", L16, "retrieval on MSR-VTT"),
    _of("ret_didemo_b16_25m.pth", B16, "retrieval on DiDeMo"),
    _of("ret_didemo_l16_25m.pth", L16, "retrieval on DiDeMo"),
    _of("ret_anet_b16_25m.pth", B16, "retrieval on ActivityNet Captions"),
    _of("ret_anet_l16_25m.pth", L16, "retrieval on ActivityNet Captions"),
    _of("ret_lsmdc_b16_25m.pth", B16, "retrieval on LSMDC"),
    _of("ret_lsmdc_l16_25m.pth", L16, "retrieval on LSMDC"),
    _of("ret_msvd_b16_25m.pth", B16, "retrieval on MSVD"),
    _of("ret_msvd_l16_25m.pth", L16, "retrieval on MSVD"),
    _of("ret_ssv2_label_b16_25m.pth", B16, "retrieval on SSV2-label"),
    _of("ret_ssv2_label_l16_25m.pth", L16, "retrieval on SSV2-label"),
    # Of the next and of MSVD-QA the zoo's link to the large model leads to the base model's file.
    _of("ret_ssv2_tpl_b16_25m.pth", B16, "retrieval on SSV2-template"),
    _of("qa_qnet_b16_25m.pth", B16, "question answering on ActivityNet-QA"),
    _of("qa_qnet_l16_25m.pth", L16, "question answering on ActivityNet-QA"),
    _of("qa_msrvtt_b16_25m.pth", B16, "question answering on MSR-VTT-QA"),
    _of("qa_msrvtt_l16_25m.pth", L16, "question answering on MSR-VTT-QA"),
    _of("qa_msvd_b16_25m.pth", B16, "question answering on MSVD-QA"),
)
