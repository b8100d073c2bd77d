"""What the sections and tasks refuse, each with the key and the remedy, and the schedules they come to."""

from dataclasses import replace
from typing import Any

import pytest

from configs.data import DataConfig
from configs.load import from_dict
from configs.schema import (
    CONFIG_CLASSES,
    CaptionConfig,
    PretrainConfig,
    RetrievalConfig,
    RunConfig,
    SourceConfig,
    VqaConfig,
)

MINIMAL: dict[str, Any] = {
    "data": {"root": "/data"},
    "optim": {"lr": 1e-5},
    "train": {"batch_size": 8, "max_epochs": 2},
}


def made(config_class: type[RunConfig], **sections: dict[str, Any]) -> RunConfig:
    """A configuration of the required keys and those of `sections`."""
    data = {name: {**MINIMAL.get(name, {}), **sections.get(name, {})} for name in {**MINIMAL, **sections}}
    return from_dict(config_class, data, "test")


IN_TURNS = {"sources": [{"file": "a", "weight": 2.0}, {"file": "b"}], "mixing": "batch", "order": "turns"}


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (
            "aggregation",
            {"frames_per_block": 1},
            "frames_per_block: 1 has no effect with reducer 'none'",
        ),
        ("aggregation", {"keep": 1.0}, "keep: 1.0 has no effect with reducer 'none'"),
        ("aggregation", {"reducer": "prune", "order": "sorted"}, "order: sorted has no effect with reducer 'prune'"),
        (
            "aggregation",
            {"reducer": "importance", "frame_match": "mean"},
            "frame_match: mean has no effect with",
        ),
        ("aggregation", {"reducer": "geometry", "tokens_per_block": 1}, "tokens_per_block: 1 has no effect with"),
        ("aggregation", {"reducer": "geometry", "frames_per_block": -1}, "frames_per_block: -1 is negative"),
        ("aggregation", {"reducer": "geometry", "patches_per_block": [1, -2]}, r"patches_per_block: \(1, -2\) is neg"),
        ("aggregation", {"reducer": "geometry", "keep": 0.0}, r"keep: 0.0 is not a share in \(0, 1\]"),
        ("aggregation", {"reducer": "geometry", "keep": 1.5}, r"keep: 1.5 is not a share in \(0, 1\]"),
        ("aggregation", {"reducer": "prune", "keep": 0.5, "frames_per_block": 1}, "keep: give either keep or the numb"),
        ("aggregation", {"proportional_attention": True}, "proportional_attention: has no effect with reducer 'none'"),
        ("aggregation", {"reducer": "prune", "weighted_pooling": True}, "weighted_pooling: has no effect with"),
        (
            "aggregation",
            {"reducer": "tome"},
            "reducer: 'tome' does not go with divided attention, which takes",
        ),
        ("aggregation", {"reducer": "saliency", "tokens_per_block": 3}, "tokens_per_block: has no effect with divided"),
        ("aggregation", {"reducer": "saliency", "frames_per_block": 3}, "frames_per_block: 3 has no effect with"),
        ("aggregation", {"reducer": "saliency", "patches_per_block": [99]}, "patches_per_block: block 0 is to lose 99"),
        (
            "aggregation",
            {"reducer": "saliency", "proportional_attention": True},
            "proportional_attention: leave it out",
        ),
        ("aggregation", {"reducer": "saliency", "tokens_per_block": 1.5}, "tokens_per_block: has no effect with divid"),
        ("aggregation", {"reducer": "geometry", "frames_per_block": [1]}, "frames_per_block: 1 numbers for 12 blocks"),
        (
            "aggregation",
            {"reducer": "geometry", "frames_per_block": 3},
            "frames_per_block: block 9 is to lose 3 of",
        ),
        ("aggregation", {"reducer": "prune", "patches_per_block": 17}, "patches_per_block: block 10 is to lose 17 of"),
        ("model", {"heads": 5}, "heads: 5 does not divide model.width 768"),
        ("model", {"text": {"dropout": 1.0}}, r"text.dropout: 1.0 is not a share in \[0, 1\)"),
        ("model", {"text": {"heads": 7}}, "text.heads: 7 does not divide model.text.width 768"),
        ("model", {"attention": "joint", "temporal_scaling": True}, "temporal_scaling: has no effect without divided"),
        ("video", {"image_size": 100}, "image_size: 100 is no multiple of model.patch_size 16"),
        ("video", {"num_frames": 0}, "num_frames: 0 frames of 224 pixels make no clip"),
        ("video", {"augment": True, "resize": 200}, "resize: 200 is less than the crop, video.image_size 224"),
        ("video", {"pixel_std": [0.5, 0.0, 0.5]}, r"pixel_std: \[0.5, 0.0, 0.5\] must be above 0"),
        ("video", {"resize": 300}, "resize: has no effect unless video.augment is true or video.fit is crop"),
        ("video", {"fit": "crop"}, "fit: crop needs whole frames, which video.interpolation ffmpeg does not make"),
        ("video", {"augment": "resized_crop"}, "augment: resized_crop needs whole frames"),
        ("video", {"augment": "crop", "interpolation": "nearest"}, "augment: crop cuts what video.fit crop resizes"),
        ("video", {"augment": True, "fit": "crop"}, "fit: crop does not go with video.augment true"),
        ("video", {"fit": "crop", "interpolation": "bicubic", "resize": 200}, "resize: 200 is less than the crop"),
        ("data", {"max_words": 0}, "max_words: 0 leaves no word of a caption"),
        ("data", {"cache_gb": 3.0}, "cache_gb: has no effect unless data.cache is memory"),
        ("data", {"max_tokens": 2}, r"max_tokens: 2 leaves no word between \[CLS\] and \[SEP\]"),
        ("data", {"clean_captions": False, "max_words": 9}, "max_words: has no effect with data.clean_captions false"),
        (
            "data",
            {"clean_up": "no_punctuation", "max_words": 9},
            "max_words: has no effect with data.clean_up no_punct",
        ),
        ("data", {"clean_up": "none", "clean_captions": False}, "clean_captions: has no effect with data.clean_up"),
        ("data", {"train_split": "val"}, "train_split: has no effect with data.dataset manifest"),
        ("data", {"eval_split": "val"}, "eval_split: has no effect with data.dataset manifest"),
        ("data", {"test_split": "test"}, "test_split: has no effect with data.dataset manifest"),
        ("data", {"test_list": "a.txt"}, "test_list: has no effect with data.dataset manifest"),
        ("data", {"dataset": "didemo", "test_list": "a.txt"}, "test_list: has no effect without data.test_split"),
        ("data", {"dataset": "didemo", "manifest": "a.jsonl"}, "manifest: has no effect with data.dataset didemo"),
        ("data", {"dataset": "didemo", "eval_manifest": "a"}, "eval_manifest: has no effect with data.dataset didemo"),
        ("data", {"dataset": "msrvtt_qa", "test_manifest": "a"}, "test_manifest: has no effect with data.dataset msrv"),
        ("data", {"sources": [{"file": "a", "losses": ["vtc"]}]}, r"sources\[0\].losses: takes data.mixing batch"),
        ("data", {"epoch_source": "a"}, "epoch_source: has no effect unless data.order is turns"),
        ("data", {"sources": [{"file": "a"}], "order": "turns"}, "order: turns takes data.mixing batch"),
        ("data", {**IN_TURNS, "epoch_source": "c"}, "epoch_source: c is none of the sources a, b"),
        ("data", {**IN_TURNS, "epoch_source": "b"}, r"sources\[0\].weight: has no effect with data.order turns, as b"),
        ("data", {"sources": [{"file": "a"}], "manifest": "b"}, "manifest: has no effect with data.sources"),
        ("data", {"sources": [{"file": "a"}], "test_split": "b"}, "test_split: has no effect with data.sources"),
        ("data", {"sources": [{"file": "a"}], "dataset": "didemo"}, "dataset: has no effect with data.sources"),
        ("data", {"mixing": "batch"}, "mixing: has no effect without data.sources"),
        (
            "data",
            {"sources": [{"file": "a"}, {"file": "b", "image_size": 32}]},
            r"sources\[1\].image_size: takes data.mix",
        ),
        ("train", {"max_epochs": 0}, "max_epochs: 0 is less than 1"),
        ("train", {"accumulate": 3}, "accumulate: 3 does not divide train.batch_size 8"),
        ("train", {"save_every": 0}, "save_every: 0 is less than 1; null saves after every epoch only"),
        ("train", {"workers": -1}, "workers: -1 is negative"),
        ("train", {"compile": True, "activation_checkpointing": "offload"}, "compile: offloaded checkpoints cannot be"),
        ("train", {"batch_size": 1}, "batch_size: matching needs a second sample as negative"),
        ("train", {"accumulate": 8}, "batch_size: matching needs a second sample as negative"),
        ("objective", {"losses": []}, r"losses: \[\] must name each loss once, and at least one"),
        ("objective", {"losses": ["vtm", "vtm"]}, r"losses: \['vtm', 'vtm'\] must name each loss once"),
        ("objective", {"queue_size": -1}, "queue_size: -1 is negative; 0 is no queue"),
        ("objective", {"momentum": 2.0}, r"momentum: 2.0 is not in \[0, 1\); 0 is no twin"),
        ("objective", {"alpha": 1.5}, "alpha: 1.5 is no share, from 0 to 1"),
        ("objective", {"alpha_ramp_epochs": -1.0}, "alpha_ramp_epochs: -1.0 is negative; 0 is no ramp"),
        ("objective", {"temperature": 0.0}, "temperature: 0.0 is not above 0"),
        ("objective", {"label_smoothing": 1.0}, r"label_smoothing: 1.0 is not in \[0, 1\)"),
        ("model", {"depth": 0}, "depth: 0 is less than 1"),
        ("model", {"drop_path": 1.5}, r"drop_path: 1.5 is not a share in \[0, 1\)"),
        ("model", {"text": {"heads": 0}}, "text.heads: 0 is less than 1"),
        ("objective", {"losses": ["vtm"], "vtc_keys": "local"}, "vtc_keys: has no effect without 'vtc' in"),
        ("objective", {"losses": ["vtm"], "momentum": 0.9}, "momentum: has no effect without 'vtc' in"),
        ("objective", {"losses": ["vtm", "cap"]}, "losses: 'vtm' draws its negatives by the similarities of 'vtc'"),
    ],
)
def test_every_task_refuses(section: str, values: dict[str, Any], message: str) -> None:
    contrasting = section == "objective" or "matching" in message
    for config_class in (PretrainConfig, RetrievalConfig) if contrasting else CONFIG_CLASSES:
        with pytest.raises(ValueError, match=f"^test: {'train' if 'matching' in message else section}.{message}"):
            made(config_class, **{section: values})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"objective": {"losses": ["vtc", "vtm", "cap"]}}, "objective.losses: retrieval has no decoder"),
        ({"objective": {"losses": ["vtc"]}}, "evaluation.rerank: matching is not trained by the losses of"),
        ({"objective": {"label_smoothing": 0.2}}, "objective.label_smoothing: has no effect without 'cap'"),
        ({"evaluation": {"rerank": -1}}, "evaluation.rerank: -1 is less than 0"),
        ({"evaluation": {"batch_size": 0}}, "evaluation.batch_size: 0 is less than 1"),
        ({"evaluation": {"rerank": 0, "rerank_batch_size": 8}}, "evaluation.rerank_batch_size: has no effect with"),
        ({"evaluation": {"rerank": 0, "rerank_tokens": 0.5}}, "evaluation.rerank_tokens: has no effect with"),
        ({"evaluation": {"rerank_tokens": 0.0}}, "evaluation.rerank_tokens: 0.0 is not a share in"),
        ({"evaluation": {"rerank_choice": "text"}}, "evaluation.rerank_choice: has no effect with all tokens"),
        ({"evaluation": {"rerank_tokens": 1.5}}, "evaluation.rerank_tokens: 1.5 is not a share in"),
        ({"evaluation": {"best_metric": "t2v_median_rank"}}, "evaluation.best_metric: 't2v_median_rank' is none of"),
        ({"evaluation": {"best_metric": "r1"}}, "evaluation.best_metric: 'r1' is none of t2v_r1, t2v_r5"),
        ({"evaluation": {"best_metric": "t2v_r1_dual_softmax"}}, "evaluation.best_metric: .* needs evaluation.dual_so"),
        ({"evaluation": {"dual_softmax": True}}, "evaluation.dual_softmax: .* does not go with reranking"),
        ({"evaluation": {"dual_softmax_temperature": 0.1}}, "evaluation.dual_softmax_temperature: has no effect"),
        (
            {"evaluation": {"rerank": 0, "dual_softmax": True, "dual_softmax_temperature": 0.0}},
            "evaluation.dual_softmax_temperature: 0.0 is not above 0",
        ),
        ({"evaluation": {"windows": 0}}, "evaluation.windows: 0 is less than 1"),
        ({"evaluation": {"windows": 2}}, "evaluation.windows: averages embeddings, and matching"),
        ({"evaluation": {"windows": 2, "rerank": 0}}, "evaluation.windows: slide within the intervals"),
        ({"evaluation": {"window_stride": 2}}, "evaluation.window_stride: has no effect with a single window"),
        ({"evaluation": {"windows": 2, "window_stride": 0}}, "evaluation.window_stride: 0 is less than 1 frame"),
    ],
)
def test_retrieval_refuses(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^test: {message}"):
        made(RetrievalConfig, **sections)


SOURCES = {"data": {"sources": [{"file": "a.csv"}]}}
NO_SOURCES = "data.sources: are for pre-training alone; name one data.dataset or data.manifest"


@pytest.mark.parametrize(
    ("config_class", "sections", "message"),
    [
        (PretrainConfig, {"data": {"dataset": "msrvtt_qa"}}, "data.dataset: msrvtt_qa has questions, not captions"),
        (PretrainConfig, {"data": {"eval_manifest": "a"}}, "data: pre-training is not evaluated"),
        (PretrainConfig, {"data": {"test_manifest": "a"}}, "data: pre-training is not evaluated"),
        (PretrainConfig, {"data": {"dataset": "didemo", "eval_split": "val"}}, "data: pre-training is not evaluated"),
        (RetrievalConfig, SOURCES, NO_SOURCES),
        (CaptionConfig, SOURCES, NO_SOURCES),
        (VqaConfig, SOURCES, NO_SOURCES),
        (RetrievalConfig, {"data": {"dataset": "activitynet_qa"}}, "data.dataset: activitynet_qa has questions, not"),
        (CaptionConfig, {"data": {"dataset": "activitynet_qa"}}, "data.dataset: activitynet_qa has questions, not"),
        (VqaConfig, {"data": {"dataset": "didemo"}}, "data.dataset: didemo has captions, not questions; use train_"),
        (VqaConfig, {"data": {"max_words": 9}}, "data.max_words: has no effect on questions"),
        (VqaConfig, {"data": {"clean_captions": False}}, "data.clean_captions: has no effect on questions"),
        (VqaConfig, {"objective": {"label_smoothing": 1.0}}, r"objective.label_smoothing: 1.0 is not in \[0, 1\)"),
        (VqaConfig, {"objective": {"queue_size": 3}}, "objective.queue_size: unknown key"),
        (VqaConfig, {"evaluation": {"shortlist": 0}}, "evaluation.shortlist: 0 is less than 1"),
        (VqaConfig, {"evaluation": {"num_beams": 4}}, "evaluation.num_beams: has no effect with evaluation.inference"),
        (
            VqaConfig,
            {"evaluation": {"max_tokens": 4}},
            "evaluation.max_tokens: has no effect with evaluation.inference",
        ),
        (
            VqaConfig,
            {"evaluation": {"inference": "generate", "answers": "evaluated_split"}},
            "evaluation.answers: has no effect with evaluation.inference generate",
        ),
        (
            VqaConfig,
            {"evaluation": {"inference": "generate", "shortlist": 3}},
            "evaluation.shortlist: has no effect with evaluation.inference generate",
        ),
        (
            VqaConfig,
            {"evaluation": {"best_metric": "acuracy"}},
            "evaluation.best_metric: 'acuracy' is neither accuracy",
        ),
        (CaptionConfig, {"evaluation": {"min_tokens": 0}}, "evaluation.min_tokens: 0 is less than 1"),
        (CaptionConfig, {"evaluation": {"top_p": 0.5}}, "evaluation.top_p: has no effect with evaluation.method beam"),
        (
            CaptionConfig,
            {"evaluation": {"method": "nucleus", "num_beams": 4}},
            "evaluation.num_beams: has no effect with evaluation.method nucleus",
        ),
        (
            CaptionConfig,
            {"evaluation": {"method": "nucleus", "top_p": 0.0}},
            r"evaluation.top_p: 0.0 is not in \(0, 1\]",
        ),
        (
            CaptionConfig,
            {"evaluation": {"min_tokens": 5, "max_tokens": 4}},
            "evaluation.max_tokens: 4 is less than evaluation.min_tokens 5",
        ),
        (CaptionConfig, {"evaluation": {"best_metric": "accuracy"}}, 'evaluation.best_metric: found "accuracy", expec'),
    ],
)
def test_a_task_refuses_what_is_another_tasks(
    config_class: type[RunConfig], sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^test: {message}"):
        made(config_class, **sections)


@pytest.mark.parametrize(
    ("data", "apart"),
    [
        ({}, False),
        ({"eval_manifest": "a"}, False),
        ({"eval_manifest": "a", "test_manifest": "b"}, True),
        ({"test_manifest": "b"}, True),
        ({"dataset": "queryd", "eval_split": "val"}, False),
        ({"dataset": "queryd", "eval_split": "val", "test_split": "test"}, True),
    ],
)
def test_a_test_set_is_apart_where_one_is_named(data: dict[str, Any], apart: bool) -> None:
    assert made(RetrievalConfig, data=data).data.test_is_apart == apart


def test_sources_may_differ_in_size_where_each_batch_is_of_one() -> None:
    source = {"file": "a.tsv", "num_frames": 1, "image_size": 32, "batch_size": 4}
    config = made(PretrainConfig, data={"sources": [source], "mixing": "batch"})
    assert config.data.sources == (SourceConfig(file="a.tsv", num_frames=1, image_size=32, batch_size=4),)


def test_cosine_alone_is_allowed_with_a_batch_of_one() -> None:
    cosine_alone: dict[str, Any] = {"objective": {"losses": ["vtc"]}, "evaluation": {"rerank": 0}}
    assert made(RetrievalConfig, **cosine_alone, train={"batch_size": 1}).train.batch_size == 1


@pytest.mark.parametrize("metric", ["t2v_r1", "v2t_r10", "t2v_mean_recall_cosine"])
def test_recalls_choose_the_best_checkpoint(metric: str) -> None:
    config = made(RetrievalConfig, evaluation={"best_metric": metric})
    assert isinstance(config, RetrievalConfig) and config.evaluation.best_metric == metric


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed: -1 is not from 0 to"),
        ({"output_dir": "~/run"}, "output_dir: ~/run begins with ~/, which only a shell spells out"),
        ({"data": DataConfig(root="~/data")}, "data.root: ~/data begins with ~/"),
    ],
)
def test_every_run_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(made(RetrievalConfig), **changes)
