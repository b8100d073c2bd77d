"""UMT's model for each task, made from a configuration, with what `models.protocols` asks of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.models.umt import UMTConfig
from configs.schema import ObjectiveConfig, PretrainConfig, RecognitionConfig, TaskConfig, VqaConfig
from configs.unmasked_teacher import TeacherConfig, UnmaskedTeacherConfig
from models.parts.aggregation import AggregationStep
from models.parts.bert_attention import Memory, shares_of
from models.parts.features import EncodedVideo
from models.parts.pixels import normalise_pixels
from models.umt.model import UMT, VideoFeatures


class TaskModel(UMT):
    """UMT with what every task asks of a model."""

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch."""
        return self.vision_encoder.patch_size

    @property
    def num_blocks(self) -> int:
        """Blocks of the video encoder."""
        return len(self.vision_encoder.encoder.blocks)

    def trace_video(self, video_BTCHW: Tensor, steps: list[list[AggregationStep]] | None = None) -> EncodedVideo:
        """Tokens, sizes and origins of uint8 videos; `steps`, an empty list, gets what each block merges."""
        encoder = self.vision_encoder
        dtype = encoder.encoder.norm.weight.dtype
        shown = normalise_pixels(video_BTCHW, encoder.pixel_mean, encoder.pixel_std, dtype)
        encoded = encoder(shown, return_origins=True, steps=steps, kept=encoder.kept_patches(video_BTCHW))
        return EncodedVideo(encoded.tokens, encoded.size, encoded.origins, encoded.mask)

    def compile_towers(self) -> None:
        """Compile the video encoder; a graph for each size, as graphs of symbolic sizes take many times as long."""
        self.vision_encoder.compile(fullgraph=True, dynamic=False)

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Evaluate in `dtype` from now on, with outputs equal to 1e-5; the model no longer trains."""
        self.vision_encoder.fold_for_inference(dtype)


class RetrievalModel(TaskModel):
    """UMT as the tasks on pairs use it: texts are read and fused in one call, memories are of videos."""

    is_tied = False
    # Contrast takes the features of the batch itself; UMT has no momentum twin.
    twinned: tuple[str, ...] = ()

    @property
    def embed_dim(self) -> int:
        """Width of the space that videos and texts share."""
        return self.vision_proj.out_features

    @property
    def similarity_scale(self) -> float:
        """What similarities are multiplied by in training: 1 / temperature."""
        return 1 / float(self.temp.detach())

    def project_tokens(self, tokens: Tensor) -> Tensor:
        """Unit vectors (..., E) of video tokens (..., D) in the shared space, each pooled alone."""
        assert self.vision_encoder.pool_norm is not None
        return F.normalize(self.vision_proj(self.vision_encoder.pool_norm(tokens)).float(), dim=-1)

    def project(self, video_tokens_VND: Tensor) -> Memory:  # type: ignore[override]  # as the tasks have it
        """What texts attend to of videos (V, N, D), made once."""
        return Memory(self.text_encoder.project(video_tokens_VND), self._own_tokens(video_tokens_VND))

    def project_once(self, video_tokens: Tensor) -> Memory:
        """The same for one use."""
        return self.project(video_tokens)

    def match(  # type: ignore[override]  # as the tasks have it
        self, video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None
    ) -> Tensor:
        """Logits (P, 2) of texts with the videos `about` (P,), or P / V texts each in order."""
        memory = self.project(video_tokens)
        return self.match_groups([(len(ids), memory if about is None else memory.rows(about))], ids, mask)

    def match_groups(self, groups: Sequence[tuple[int, Memory]], ids: Tensor, mask: Tensor) -> Tensor:
        """The same for groups of texts one after the other: how many texts, and the memory of their videos."""
        return self.match_states(groups, self.text_encoder.read(ids, mask), mask)

    def match_states(self, groups: Sequence[tuple[int, Memory]], states: Tensor, mask: Tensor) -> Tensor:
        """The same for texts whose states (P, S, D) `encode_text` has read."""
        return self.itm_head(self.text_encoder.fuse_first(states, mask, shares_of(groups)))

    def embed_with(
        self, parts: Mapping[str, nn.Module], video_BTCHW: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Refused: there is no momentum twin."""
        raise ValueError("objective.momentum: this model has no momentum twin; set objective.momentum=0")

    def text_loss(self, memory: Memory, ids: Tensor, mask: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """Refused: no decoder writes captions."""
        raise ValueError("objective.losses: this model has no decoder; leave out cap")

    def freeze_unused(self, losses: tuple[str, ...]) -> None:
        """Freeze what none of the losses reaches: all that is trained has a gradient, as DDP requires."""
        trunk = "vision_encoder.encoder."
        reached: dict[str, tuple[str, ...]] = {
            "vtc": (trunk, "vision_encoder.pool_norm.", "text_encoder.embeddings", "vision_proj", "text_proj", "temp"),
            "vtm": (trunk, "text_encoder", "itm_head"),
            "mlm": (trunk, "text_encoder", "mlm_head"),
            "uta": (trunk, "vision_encoder.clip_decoder."),
            "classes": (trunk, "vision_encoder.pool_norm.", "vision_proj"),
        }
        layers = [f"text_encoder.encoder.layer.{index}." for index in range(self.text_encoder.fusion_layer)]
        starts = tuple(start for loss in losses for start in reached[loss])
        if "vtc" in losses:
            starts += tuple(layers)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(starts))


class PretrainingModel(RetrievalModel):
    """UMT as pre-training with a teacher and masked words uses it.

    Args:
        mask_id, num_words: of the vocabulary: what stands for a masked word, and how many words there are.
    """

    def __init__(self, *sections: Any, mask_id: int, num_words: int, **settings: Any) -> None:
        super().__init__(*sections, **settings)
        self.mask_id, self.num_words = mask_id, num_words

    def guess_words(self, memory: Memory, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits (P, S, words) of each place of texts, some of whose words are masked, given their videos."""
        return self.word_logits(list(memory.layers), ids, mask, memory.mask)

    def encode_visible(self, video_BTCHW: Tensor, keep_BV: Tensor) -> tuple[VideoFeatures, Tensor]:
        """Features of the visible tokens alone, and what is to meet the teacher's features of them (K, B, V, C)."""
        return self.encode_video_for_teacher(video_BTCHW, keep_BV)


class AnsweringModel(TaskModel):
    """UMT as question answering uses it.

    Answers come from the tokenizer with one [SEP]; UMT's models were trained with two, and get the second here.
    """

    def __init__(self, *sections: Any, sep_id: int, label_smoothing: float, **settings: Any) -> None:
        super().__init__(*sections, use="answers", **settings)
        self.sep_id, self.label_smoothing = sep_id, label_smoothing

    def ground_text(self, video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None) -> Tensor:
        """States (P, S, D) of questions that attend to the videos `about` (P,), or P / V questions each in order."""
        memory = Memory(self.text_encoder.project(video_tokens), self._own_tokens(video_tokens))
        videos = memory if about is None else memory.rows(about)
        return self.text_encoder.fuse(self.text_encoder.read(ids, mask), mask, videos.layers, videos.mask)

    def context_loss(self, context: Tensor, ids: Tensor, mask: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """Loss (P,) of each answer, summed over its tokens, given the states (B, S, D) of questions, P / B of each."""
        seen = torch.ones(context.shape[:2], device=context.device) if context_mask is None else context_mask
        question = self.text_decoder.bert.project(context)
        answers = ended_twice(ids, mask, self.sep_id)
        return self.text_decoder.losses(*answers, question, seen, self.label_smoothing)

    def answer(
        self,
        question_states: Tensor,
        question_mask: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        shortlist: int = 128,
    ) -> Tensor:
        """The best of a list of answers for each question, as rows (P,) of `answer_ids`."""
        answers = ended_twice(answer_ids, answer_mask, self.sep_id)
        return self.rank(question_states, question_mask, *answers, shortlist).rows[:, 0]

    def freeze_unused(self, losses: tuple[str, ...]) -> None:
        """Nothing to freeze: the answers' loss reaches all that this model has."""
        assert losses == ("vqa",), losses


def ended_twice(ids_BS: Tensor, mask_BS: Tensor, sep_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, S + 1) of texts that end in one more [SEP]."""
    end = mask_BS.sum(dim=1, keepdim=True)
    ids, mask = F.pad(ids_BS, (0, 1)), F.pad(mask_BS, (0, 1))
    return ids.scatter(1, end, sep_id), mask.scatter(1, end, 1)


def build_model(config: TaskConfig, tokenizer: Any) -> TaskModel:
    """The configured task's model with fresh weights; of the tokenizer only its size and special ids are used."""
    assert isinstance(config.model, UMTConfig)
    objective = config.objective
    if isinstance(config, VqaConfig):
        return _answering_model(config, config.model, tokenizer.sep_id)
    if isinstance(config, RecognitionConfig):
        return RetrievalModel(
            config.model, config.video, config.aggregation, activation_checkpointing=_checkpointing(config)
        )
    if isinstance(objective, UnmaskedTeacherConfig):
        return _pair_model(config, config.model, objective, tokenizer)
    if not isinstance(objective, ObjectiveConfig):
        raise ValueError(
            f"model.name: umt is for pairs and for answers, not for {config.task} by objective {objective.name}; take "
            "another model, or objective.name=unmasked_teacher for pairs"
        )
    if "cap" in objective.losses:
        raise ValueError("objective.losses: umt has no decoder that writes captions; leave out cap")
    if objective.momentum:
        raise ValueError("objective.momentum: umt has no momentum twin; set objective.momentum=0")

    return RetrievalModel(
        config.model,
        config.video,
        config.aggregation,
        temperature=objective.temperature,
        activation_checkpointing=_checkpointing(config),
    )


def _pair_model(
    config: TaskConfig, model: UMTConfig, objective: UnmaskedTeacherConfig, tokenizer: Any
) -> RetrievalModel:
    """The model for UMT's own objective, with the heads that its losses need."""
    sections = (model, config.video, config.aggregation)
    settings: dict[str, Any] = {
        "temperature": objective.temperature,
        "activation_checkpointing": _checkpointing(config),
    }
    if not {"mlm", "uta"} & set(objective.losses):
        return RetrievalModel(*sections, **settings)
    if not isinstance(config, PretrainConfig):
        raise ValueError(
            f"objective.losses: {list(objective.losses)}: fine-tuning has neither masked words nor a teacher; take vtc "
            "and vtm"
        )

    if "uta" in objective.losses:
        _check_teacher(config, model, objective.teacher)
        settings |= {"teacher_layers": objective.teacher.blocks, "teacher_width": objective.teacher.width}
    return PretrainingModel(
        *sections,
        use="pretraining" if "mlm" in objective.losses else "retrieval",
        mask_id=tokenizer.mask_id,
        num_words=len(tokenizer),
        **settings,
    )


def _check_teacher(config: TaskConfig, model: UMTConfig, teacher: TeacherConfig) -> None:
    """Refuse a teacher whose features are not of the model's patches, or that teaches more blocks than there are."""
    grid = config.video.image_size // model.patch_size
    if teacher.grid != grid:
        raise ValueError(
            f"objective.teacher.image_size: {teacher.image_size} pixels are {teacher.grid} patches a side, the model "
            f"has {grid}; set it to {grid * teacher.patch_size}"
        )
    if teacher.blocks > model.depth:
        raise ValueError(f"objective.teacher.blocks: the model has {model.depth} blocks to teach, not {teacher.blocks}")
    if config.aggregation.reducer != "none":
        raise ValueError(
            "aggregation.reducer: the teacher has features of single patches, none of merged ones; set it to none, or "
            "leave uta out of objective.losses"
        )


def _answering_model(config: VqaConfig, model: UMTConfig, sep_id: int) -> AnsweringModel:
    if config.evaluation.inference == "generate":
        raise ValueError("evaluation.inference: umt ranks answers and writes none; set it to rank")
    return AnsweringModel(
        model,
        config.video,
        config.aggregation,
        sep_id=sep_id,
        label_smoothing=config.objective.label_smoothing,
        activation_checkpointing=_checkpointing(config),
    )


def _checkpointing(config: TaskConfig) -> Literal["none", "recompute"]:
    if config.train.activation_checkpointing == "offload":
        raise ValueError("train.activation_checkpointing: offload is not to be had with umt; use recompute")
    return config.train.activation_checkpointing
