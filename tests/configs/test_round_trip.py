"""Every setting of every task survives being written and read, and what differs between two configurations is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from configs.fusion import FusionObjectiveConfig
from configs.load import apply_overrides, differences, dump, from_dict, load, to_dict
from configs.models.stoa import StoaConfig
from configs.models.tvts import TvtsConfig
from configs.recognition import ClassObjectiveConfig, ProbeObjectiveConfig, RecognitionEvaluationConfig
from configs.remote import RemoteConfig
from configs.schema import (
    CONFIG_CLASSES,
    AggregationConfig,
    AnsweringConfig,
    AnsweringObjectiveConfig,
    CaptionConfig,
    CaptioningConfig,
    ChoiceConfig,
    ChoosingConfig,
    DataConfig,
    DecoderObjectiveConfig,
    EvaluationConfig,
    ObjectiveConfig,
    OptimConfig,
    ParameterGroupConfig,
    PretrainConfig,
    RecognitionConfig,
    RetrievalConfig,
    RunConfig,
    SortingEvaluationConfig,
    SortingObjectiveConfig,
    SourceConfig,
    SpeechConfig,
    TestaConfig,
    TextConfig,
    TrainConfig,
    VideoConfig,
    VqaConfig,
)

MINIMAL: dict[str, Any] = {
    "data": {"root": "/data"},
    "optim": {"lr": 1e-5},
    "train": {"batch_size": 8, "max_epochs": 2},
}
TRAIN = TrainConfig(
    batch_size=16, max_epochs=3, accumulate=4, precision="fp16", activation_checkpointing="offload",
    deterministic=True, workers=0, eval_every=2, save_every=5, log_every=1,
    keep_checkpoints=3, sample_timeout=9.5, stall_timeout=60.0, max_skipped=4,
)  # fmt: skip
MODEL = TestaConfig(
    depth=2, width=24, heads=3, patch_size=8, mlp_ratio=2.5, drop_path=0.1, init="scratch", embed_dim=16,
    text=TextConfig(
        tokenizer="tok", vocab_size=99, depth=2, width=32, heads=4, intermediate=64, max_positions=40, dropout=0.0
    ),
)  # fmt: skip
VIDEO = VideoConfig(
    num_frames=9, image_size=64, train_sampling="random", eval_sampling="uniform_floor", augment=True, resize=80,
    pixel_mean=(0.5, 0.25, 0.1 + 0.2), pixel_std=(0.5, 1 / 3, 1.0),
)  # fmt: skip
GEOMETRY = AggregationConfig(
    reducer="geometry", frames_per_block=(0, 2), patches_per_block=3, frame_match="mean", order="sorted",
    merge_weight="saliency",
    proportional_attention=True, weighted_pooling=True,
)  # fmt: skip
OPTIM = OptimConfig(
    lr=1 / 3, min_lr=1e-30, warmup_lr=1e-8, warmup_steps=7, weight_decay=0.0, betas=(0.5, 0.1 + 0.2), eps=1e-06,
    clip_norm=2.0, layer_decay=0.75, freeze=("visual_encoder", "true"), schedule="exponential", decay_rate=0.95,
    groups=(
        ParameterGroupConfig(names=("temp", "*.norm1"), lr_scale=1e-30, weight_decay=0.0),
        ParameterGroupConfig(names=("no",), lr=1 / 3),
    ),
)  # fmt: skip
STEPPED = OptimConfig(lr=1, schedule="step", milestones=(1, 2), decay_rate=0.1)
# Together they move every setting off its default; one alone cannot, as some are refused beside others.
FULL: dict[str, RunConfig] = {
    "pretrain": PretrainConfig(
        data=DataConfig(
            root="1e-5",
            sources=(
                SourceConfig(file="é: #x.csv", media="null"),
                SourceConfig(file="b.tsv", weight=1e-3, num_frames=2, image_size=48, batch_size=32, losses=("vtc",)),
            ),
            mixing="batch", order="turns", epoch_source="b.tsv",
            max_words=9, clean_up="caption", cache="memory", cache_gb=1e20,
            remote=RemoteConfig(cache_dir="c", cache_gib=0.5, tries=2, stall_seconds=1e-3),
        ),
        optim=OPTIM, train=TRAIN, video=VIDEO,
        model=replace(MODEL, temporal_scaling=True),
        aggregation=AggregationConfig(reducer="prune", patches_per_block=1),
        objective=ObjectiveConfig(
            losses=("cap", "vtm", "vtc"), queue_size=5, alpha=0.1, alpha_ramp_epochs=0.0, momentum=0.9,
            temperature=0.1, label_smoothing=0.2, vtc_keys="local", negatives="same_rank",
        ),
        checkpoint="2024-01-01", output_dir="~", seed=0, wandb_project="yes",
    ),
    "retrieval": RetrievalConfig(
        data=DataConfig(
            root="/d", dataset="didemo", train_split="on", eval_split="val", test_split="test", videos="a\nb",
            first_seconds=30.5,
            train_list="1", eval_list="no", test_list="#", clean_captions=False, max_tokens=64,
        ),
        optim=OptimConfig(lr=1.0, warmup_ratio=0.1, update="epoch", decay="all"),
        train=replace(TRAIN, activation_checkpointing="recompute", compile=True),
        model=MODEL, video=replace(VIDEO, working_memory=0.75, time_table="windows"), aggregation=GEOMETRY,
        objective=ObjectiveConfig(
            losses=("vtm", "vtc"), queue_size=0, alpha=0.0, alpha_ramp_epochs=0.5, momentum=0.5, temperature=0.2,
            vtc_keys="local", negatives="same_rank",
        ),
        evaluation=EvaluationConfig(
            batch_size=3, rerank=7, rerank_rule="logit", rerank_batch_size=2, rerank_tokens=0.5,
            rerank_choice="text", same_captions="together", best_metric="v2t_r5_cosine",
        ),
        output_dir="~", seed=0,
    ),
    "retrieval over windows": RetrievalConfig(
        data=DataConfig(root="/d", dataset="msrvtt", eval_split="full_val"),
        optim=OPTIM, train=TRAIN, video=VideoConfig(eval_sampling="interval_middle"),
        evaluation=EvaluationConfig(
            rerank=0, windows=3, window_stride=2, dual_softmax=True, dual_softmax_temperature=0.02, predictions=4
        ),
    ),
    "pre-training with objects": PretrainConfig(
        data=DataConfig(root="/d", objects="a.objects", tags="a.tags", clean_up="none"),
        optim=OptimConfig(lr=1e-4, optimizer="bert_adam", schedule="cosine_of_run", clip_each_norm=1.0),
        train=TRAIN, model=StoaConfig(), video=VideoConfig(num_frames=12),
        aggregation=AggregationConfig(
            reducer="tempme", join_blocks=(8, 9, 10), join_frames=(2, 2, 3), across_frames=0.2, within_groups=0.0,
        ),
        objective=FusionObjectiveConfig(losses=("vtc", "align"), vtc_epochs=1, reference_form=True),
    ),
    "pre-training by sorting": PretrainConfig(
        data=DataConfig(
            root="/d",
            sources=(SourceConfig(file="a.jsonl", kind="speech"), SourceConfig(file="b.csv", losses=("contrastive",))),
            mixing="batch", speech=SpeechConfig(tries=2), eval_manifest="c", test_manifest="d",
        ),
        optim=OPTIM, train=TRAIN,
        objective=SortingObjectiveConfig(
            losses=("sorting", "contrastive"), temperature=0.2, sort_weight=1.5, gather="own_gradient",
            idle_head="moves",
        ),
        evaluation=SortingEvaluationConfig(batch_size=3, segments="permuted", best_metric="sort_accuracy"),
    ),
    "pre-training on whole videos": PretrainConfig(
        data=DataConfig(
            root="/d", sources=(SourceConfig(file="a", kind="speech"),),
            speech=SpeechConfig(cut="whole", frames="span"),
        ),
        optim=OPTIM, train=TRAIN, objective=SortingObjectiveConfig(),
    ),
    "vqa ranking": VqaConfig(
        data=DataConfig(root="/d", dataset="activitynet_qa", eval_split="val"),
        optim=OPTIM, train=TRAIN, video=VIDEO,
        model=replace(MODEL, attention="joint"),
        aggregation=AggregationConfig(reducer="tome", tokens_per_block=(1, 3)),
        objective=AnsweringObjectiveConfig(label_smoothing=0.0, questions="all", weights="shares"),
        evaluation=AnsweringConfig(batch_size=2, answers="evaluated_split", shortlist=3, best_metric="accuracy_what"),
    ),
    "vqa from a file": VqaConfig(
        data=DataConfig(root="/d", dataset="msvd_qa", eval_split="val"), optim=OPTIM, train=TRAIN,
        evaluation=AnsweringConfig(answers="file", answer_file="a.json"),
    ),
    "vqa generating": VqaConfig(
        data=DataConfig(root="/d", manifest="a.jsonl", eval_manifest="b.jsonl", test_manifest="c.jsonl"),
        optim=STEPPED, train=TRAIN,
        evaluation=AnsweringConfig(inference="generate", num_beams=5, max_tokens=4),
    ),
    "choice": ChoiceConfig(
        data=DataConfig(root="/d", dataset="msrvtt_mc", eval_split="test"),
        optim=OPTIM, train=TRAIN, model=MODEL, video=VIDEO, aggregation=GEOMETRY,
        objective=ObjectiveConfig(
            losses=("vtm", "vtc"), queue_size=0, alpha=0.0, alpha_ramp_epochs=0.5, momentum=0.5, temperature=0.2,
            vtc_keys="local", negatives="same_rank",
        ),
        evaluation=ChoosingConfig(batch_size=3, matching=0.25),
    ),
    "captioning of run-length tokens that merge": CaptionConfig(
        data=DataConfig(root="/d"), optim=OPTIM, train=TRAIN, model=TestaConfig(attention="joint"),
        aggregation=AggregationConfig(
            reducer="run_length", keep=0.5, inside="tome", tokens_per_block=(9, 3), merge_weight="saliency",
            weighted_pooling=True,
        ),
    ),
    "captioning by sampling": CaptionConfig(
        data=DataConfig(root="/d", dataset="msrvtt"),
        optim=OPTIM, train=TRAIN, model=MODEL, video=VIDEO,
        aggregation=AggregationConfig(reducer="importance", keep=0.5),
        objective=DecoderObjectiveConfig(label_smoothing=0.3, contrast=True),
        evaluation=CaptioningConfig(
            batch_size=5, method="nucleus", top_p=0.5, min_tokens=2, max_tokens=30, best_metric="rouge_l"
        ),
    ),
    "captioning by beams": CaptionConfig(
        data=DataConfig(root="/d"), optim=OPTIM, train=TRAIN, evaluation=CaptioningConfig(num_beams=7),
        video=VideoConfig(fit="crop", interpolation="nearest", augment="crop", resize=268),
    ),
    "fine-tuning by classes": RecognitionConfig(
        data=DataConfig(root="/d", dataset="kinetics400", first_label=1, eval_split="val"),
        optim=OPTIM, train=TRAIN, model=MODEL, video=VIDEO,
        objective=ClassObjectiveConfig(label_smoothing=0.2, dropout=0.5),
        evaluation=RecognitionEvaluationConfig(
            batch_size=2, classify="prompts", prompts=("{}", "a {}"), class_words="w.json", best_metric="top5"
        ),
    ),
    "fine-tuning on half of the patches": RecognitionConfig(
        data=DataConfig(root="/d", dataset="labelled"), optim=OPTIM, train=TRAIN, model=TvtsConfig(),
        objective=ClassObjectiveConfig(hide_patches=True),
    ),
    "a probe by SGD": RecognitionConfig(
        data=DataConfig(root="/d", dataset="labelled"), train=TRAIN,
        objective=ProbeObjectiveConfig(
            solver="sgd", epochs=3, batch_size=5, lr=0.2, weight_decay=0.0, warmup_epochs=1
        ),
        video=VideoConfig(eval_sampling="interval_middle"), model=TestaConfig(attention="joint"),
        aggregation=AggregationConfig(
            reducer="quadtree", spatial_threshold=0.1 + 0.2, temporal_threshold=0.5, root_level=1
        ),
        evaluation=RecognitionEvaluationConfig(prompt_file="prompts.md#UCF101", windows=3, mirror=True),
    ),
    "a probe in closed form": RecognitionConfig(
        data=DataConfig(root="/d", dataset="hmdb51"), train=TRAIN, objective=ProbeObjectiveConfig(penalty=0.5),
        model=TestaConfig(attention="joint"),
        aggregation=AggregationConfig(reducer="run_length", threshold=0.2, weigh_lengths=True),
    ),
    "drawn budgets": RetrievalConfig(
        data=DataConfig(root="/d"), optim=OPTIM, train=TRAIN,
        aggregation=AggregationConfig(reducer="run_length", keep=0.5, kept_by="random", train_keep=(0.1, 1.0)),
    ),
}  # fmt: skip


PAIRS = (RetrievalConfig, ChoiceConfig)


def minimal(config_class: type[RunConfig]) -> RunConfig:
    dataset = {"dataset": "labelled"} if config_class is RecognitionConfig else {}
    return from_dict(config_class, {**MINIMAL, "data": {**MINIMAL["data"], **dataset}}, "test")


def keys(data: dict[str, Any], prefix: str = "") -> set[str]:
    """The dotted keys of all values in nested sections and lists of sections."""
    found: set[str] = set()
    for name, value in data.items():
        items = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        for item in items:
            found |= keys(item, f"{prefix}{name}.") if isinstance(item, dict) else {f"{prefix}{name}"}
    return found


@pytest.mark.parametrize("case", FULL)
def test_dump_and_load_give_an_equal_configuration(tmp_path: Path, case: str) -> None:
    config_class = type(FULL[case])
    for config in (FULL[case], minimal(config_class)):
        dump(config, tmp_path / "dumped.yaml")
        assert load(config_class, tmp_path / "dumped.yaml", []) == config
        assert from_dict(config_class, json.loads(json.dumps(to_dict(config))), "test") == config
        assert (tmp_path / "dumped.yaml").read_text().startswith("task: "), "in the schema's order"


def test_the_round_trip_above_moves_every_setting_of_every_task_off_its_default() -> None:
    assert {type(config) for config in FULL.values()} == set(CONFIG_CLASSES)
    source = to_dict(SourceConfig(file="a"))
    for config_class in CONFIG_CLASSES:
        cases = [to_dict(config) for config in FULL.values() if type(config) is config_class]
        default = to_dict(minimal(config_class))
        own = {key for key in keys(default) if key.partition(".")[0] in ("objective", "evaluation")}
        moved = {line.partition(":")[0] for case in cases for line in differences(default, case)}
        # Pre-training and recognition have several objectives, and label smoothing is captioning's.
        unmoved = set() if config_class in (PretrainConfig, RecognitionConfig) else {"objective.name"}
        assert own - moved == unmoved | ({"objective.label_smoothing"} if config_class in PAIRS else set())
    default = to_dict(minimal(PretrainConfig))
    moved = {line.partition(":")[0] for case in FULL.values() for line in differences(default, to_dict(case))}
    assert not keys(default) - moved
    written = [to_dict(item) for case in FULL.values() for item in case.data.sources]
    assert {name for item in written for name in item if item[name] != source[name]} == source.keys()
    group = to_dict(ParameterGroupConfig(names=("a",), lr_scale=2.0, weight_decay=1.0))
    groups = [to_dict(item) for item in OPTIM.groups]
    assert {name for item in groups for name in item if item[name] != group[name]} == group.keys()


def test_overrides_change_a_plain_dictionary_without_touching_it() -> None:
    config = FULL["retrieval"]
    data = to_dict(config)
    before = json.dumps(data)
    changed = apply_overrides(
        data, ["aggregation={reducer: none}", "model.text.depth=1", "output_dir="], RetrievalConfig
    )
    assert json.dumps(data) == before
    assert from_dict(RetrievalConfig, changed, "test") == replace(
        config,
        aggregation=AggregationConfig(),
        output_dir=None,
        model=replace(config.model, text=replace(config.model.text, depth=1)),
    )


def test_a_list_of_sections_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("data: {sources: [{file: a.csv, media: m, weight: 2}, {file: b.csv}]}\n")
    with (tmp_path / "config.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump({"base": "low.yaml", **MINIMAL}, file)
    path = tmp_path / "config.yaml"
    low = load(PretrainConfig, path, []).data
    assert low.sources == (SourceConfig(file="a.csv", media="m", weight=2.0), SourceConfig(file="b.csv"))
    assert load(PretrainConfig, path, ["data.sources=[{file: c.csv}]"]).data.sources == (SourceConfig(file="c.csv"),)
    assert load(PretrainConfig, path, ["data.sources=[]"]).data.sources == ()


def test_differences_are_named_with_both_values() -> None:
    config = FULL["retrieval"]
    a = to_dict(config)
    assert differences(a, to_dict(config)) == []
    b = to_dict(replace(config, seed=1, video=replace(config.video, num_frames=17), output_dir=None))
    assert differences(a, b) == ["video.num_frames: 9 -> 17", 'output_dir: "~" -> null', "seed: 0 -> 1"]
    assert differences({"a": {"b": [1, 2]}, "c": 1}, {"a": {"b": [1, 3]}, "d": 2}) == [
        "a.b: [1, 2] -> [1, 3]",
        "c: 1 -> nothing",
        "d: nothing -> 2",
    ]
