"""TESTA's cases: encoders, text towers, one step of fine-tuning and pre-training, answers."""

import torch
from einops import rearrange
from torch.nn import functional as F

from configs.schema import AggregationConfig, ObjectiveConfig, TestaConfig, TextConfig, VideoConfig
from datasets.samples import Clip
from models.parts.bert import TextDecoder, TextEncoder
from models.parts.tokenizer import with_first
from models.testa.model import VisionLanguageModel
from models.testa.video_encoder import VideoEncoder
from tasks.objectives.momentum import MomentumObjective
from tests.parity.cases import Case, Compute, Meta, Tensors, outputs_to_match, weights_of


def set_schedules(encoder: VideoEncoder, meta: Meta, reducer: str) -> None:
    """Give each block its numbers from the case; they may ask for more than an axis holds."""
    frames, patches = meta.get("reduce_frames_per_block", []), meta.get("reduce_patches_per_block", [])
    for index, block in enumerate(encoder.blocks):
        if encoder.attention == "joint":
            tokens = meta.get("reduce_tokens_per_block", [])
            aggregators = {block.merge_tokens: tokens}
        else:
            aggregators = {block.merge_frames: frames, block.merge_patches: patches}
        for aggregator, amounts in aggregators.items():
            aggregator.reducer, aggregator.r = reducer, amounts[index] if amounts else 0


@torch.no_grad()
def check_encoder(tensors: Tensors, meta: Meta) -> Tensors:
    """Tokens of a video, in the reference's order: class token, then patch by patch the frames."""
    attention = {"divided_space_time": "divided", "joint_space_time": "joint", "space_only": "space"}[meta["attention"]]
    sizes = {name: meta[name] for name in ("depth", "width", "heads", "patch_size")}
    encoder = VideoEncoder(
        TestaConfig(attention=attention, **sizes),
        VideoConfig(num_frames=meta["num_frames"], image_size=meta["image_size"]),
    ).eval()
    merging = "tome" if attention == "joint" else "geometry"
    set_schedules(encoder, meta, {"none": "none", "merge": merging, "prune": "prune"}[meta["reduction"]])
    encoder.load_state_dict(weights_of(tensors, "state_dict."))
    video = rearrange(tensors["video"], "B C T H W -> B T C H W")
    encoded = encoder(video, return_origins=True)
    tokens = encoded.tokens
    if attention == "divided":
        # Sizes are constant over the patches of a frame's cells in time, so the frame count follows from the schedule.
        num_frames = frames_left(encoder, video.shape[1])
        patches = rearrange(tokens[:, 1:], "B (T L) D -> B (L T) D", T=num_frames)
        tokens = torch.cat([tokens[:, :1], patches], dim=1)
    return {"tokens": tokens}


def frames_left(encoder: VideoEncoder, num_frames: int) -> int:
    """How many frames come out of a divided encoder that `num_frames` go into."""
    for block in encoder.blocks:
        if block.merge_frames.reducer != "none":
            num_frames -= block.merge_frames.num_leaving(num_frames)
    return num_frames


def text_config(bert: Meta) -> TextConfig:
    return TextConfig(
        vocab_size=bert["vocab_size"],
        depth=bert["num_hidden_layers"],
        width=bert["hidden_size"],
        heads=bert["num_attention_heads"],
        intermediate=bert["intermediate_size"],
        max_positions=bert["max_position_embeddings"],
        dropout=bert["hidden_dropout_prob"],
    )


@torch.no_grad()
def check_text_towers(tensors: Tensors, meta: Meta) -> Tensors:
    """Both towers alone: hidden states with and without video, logits and caption losses."""
    text = text_config(meta["bert"])
    encoder = TextEncoder(text, meta["bert"]["encoder_width"]).eval()
    decoder = TextDecoder(text, meta["bert"]["encoder_width"]).eval()
    encoder.load_state_dict(weights_of(tensors, "text_encoder."))
    decoder.load_state_dict(weights_of(tensors, "text_decoder."))
    ids, mask, video = tensors["input_ids"], tensors["attention_mask"], tensors["video_tokens"]
    started = with_first(ids, meta["dec_token_id"])
    grounded = encoder(with_first(ids, meta["enc_token_id"]), mask, encoder.project(video))
    logits = decoder(started, mask, decoder.bert.project(video))
    labels = started.masked_fill(mask == 0, -100)[:, 1:]
    losses = F.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels, reduction="none", label_smoothing=meta["label_smoothing"]
    ).sum(dim=1)
    return {
        "text_hidden": encoder(ids, mask),
        "grounded_hidden": grounded,
        "decoder_logits": logits,
        "caption_loss": losses.sum() / (labels != -100).sum(),
        "caption_loss_per_sample": losses,
    }


def build_model(tensors: Tensors, meta: Meta, decoder: str) -> VisionLanguageModel:
    """The whole model of a case with its weights."""
    sizes = meta["model"]
    attention = {"divided_space_time": "divided", "joint_space_time": "joint"}[sizes["attention_type"]]
    model = VisionLanguageModel(
        TestaConfig(
            attention=attention,
            depth=sizes["depth"],
            width=sizes["vision_width"],
            heads=sizes["num_heads"],
            patch_size=sizes["patch_size"],
            temporal_scaling=sizes.get("learnable_temporal_scaling", False),
            embed_dim=meta.get("embed_dim", sizes["vision_width"]),
            text=text_config(meta["bert"]),
        ),
        VideoConfig(num_frames=sizes["num_frames"], image_size=sizes["image_size"]),
        AggregationConfig(),
        enc_token_id=meta["enc_token_id"],
        dec_token_id=meta.get("dec_token_id", meta["enc_token_id"]),
        sep_token_id=3,
        decoder=decoder,
    ).eval()
    merging = "tome" if attention == "joint" else "geometry"
    reducer = {"none": "none", "merge": merging, "prune": "prune"}[meta.get("reduction", "none")]
    set_schedules(model.visual_encoder, meta, reducer)
    stored = weights_of(tensors, "state_dict.")
    model.load_state_dict({name: stored[name] for name in model.state_dict() if name in stored}, strict=False)
    unset = {name for name in model.state_dict() if name not in stored}
    if any(not name.startswith(("vision_proj", "text_proj", "itm_head", "temp")) for name in unset):
        raise ValueError(f"the case lacks weights: {sorted(unset)}")
    return model


@torch.no_grad()
def check_step(tensors: Tensors, meta: Meta, losses: tuple[str, ...], positives: str) -> Tensors:
    """One forward of training: the twin moves, the losses are taken with the old queue, then it takes the batch."""
    model = build_model(tensors, meta, "tied" if "cap" in losses else "none")
    objective = ObjectiveConfig(
        losses=losses,
        queue_size=meta["queue_size"],
        alpha=meta["alpha"],
        alpha_ramp_epochs=0,
        momentum=meta["momentum"],
    )
    objectives = MomentumObjective(model, objective, positives, seed=0).eval()
    stored = weights_of(tensors, "state_dict.")
    objectives.twin.load_state_dict(
        {n: t for n, t in stored.items() if n.startswith(tuple(f"{p}_m." for p in VisionLanguageModel.twinned))}
    )
    pointer, queue = "queue_ptr" if positives == "row" else "ptr_queue", objectives.queue
    queue.load_state_dict(
        {
            "video": stored["image_queue"].T,
            "text": stored["text_queue"].T,
            "index": stored["idx_queue"].flatten() if positives == "index" else queue.index,
            "pointer": stored[pointer].reshape(()),
        }
    )
    index = tensors["idx"].flatten() if positives == "index" else torch.arange(len(tensors["video"]))
    batch = {
        "clip": Clip.of_pixels(rearrange(tensors["video"], "B C T H W -> B T C H W")),
        "ids": tensors["input_ids"],
        "mask": tensors["attention_mask"],
        "index": index,
    }
    objectives.begin_step(model, 0, 0.0, [batch], [tensors["attention_mask"]])
    found = {f"loss_{name}": loss for name, loss in objectives(model, batch).items()}
    found |= {f"after.{name}": tensor for name, tensor in objectives.twin.state_dict().items()}
    found |= {"after.image_queue": queue.video.T, "after.text_queue": queue.text.T, "after.temp": model.temp}
    found |= {f"after.{pointer}": queue.pointer.reshape(1), "after.idx_queue": queue.index.reshape(1, -1)}
    return found


@torch.no_grad()
def check_vqa(tensors: Tensors, meta: Meta) -> Tensors:
    """The best answer of a list for each question, and the weighted training loss."""
    model = build_model(tensors, meta, "separate")
    mask = tensors["question_mask"]
    video = model.encode_video(rearrange(tensors["video"], "B C T H W -> B T C H W"))
    states = model.ground_text(video.tokens, tensors["question_ids"], mask)
    per_question = tensors["answers_per_question"]
    asked = torch.arange(len(per_question)).repeat_interleave(per_question)
    answers = slice(0, len(asked))
    losses = model.context_loss(
        states[asked], tensors["answer_ids"][answers], tensors["answer_mask"][answers], mask[asked]
    )
    return {
        "best_answer": model.answer(states, mask, tensors["answer_ids"], tensors["answer_mask"], meta["k_test"]),
        "train_loss": (tensors["answer_weights"] * losses).sum() / len(per_question),
    }


KINDS: dict[str, Compute] = {
    "encoder_": check_encoder,
    "text_towers": check_text_towers,
    "retrieval_step": lambda tensors, meta: check_step(tensors, meta, ("vtc", "vtm"), "index"),
    "pretrain_step": lambda tensors, meta: check_step(tensors, meta, ("vtc", "vtm", "cap"), "row"),
    "vqa": check_vqa,
}
INPUTS = {
    "video", "video_tokens", "input_ids", "attention_mask", "idx", "question_ids", "question_mask", "answer_ids",
    "answer_mask", "answer_weights", "answers_per_question",
}  # fmt: skip


def expected_outputs(case: Case) -> set[str]:
    """Every tensor of a case that is neither weight nor input."""
    return outputs_to_match(case.tensors, INPUTS, ("state_dict.", "text_encoder.", "text_decoder."))
