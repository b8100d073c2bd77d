"""TVTSv2's video tower: against plain attention with masks, CLIP, and itself when nothing merges."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.parts.aggregation import AggregationStep
from models.parts.clip.blocks import ClipMlp
from models.parts.clip.image_tower import ImageTower
from models.parts.clip.sizes import Activation, ImageTowerSizes
from models.tvts.blocks import TvtsBlock
from models.tvts.sizes import TVTS_PUBLISHED, kept_patches
from models.tvts.video_tower import VideoTower
from models.tvts.weights import fresh_time, load_clip_video
from tests.models.parts.clip.copies import our_towers, their_clip
from tests.models.tvts.tiny import IMAGE, make_tower, make_video


def masked_attention(attention: torch.nn.Module, tokens_BND: Tensor, group_N: Tensor) -> Tensor:
    """Plain attention over all tokens with a mask: token 0 sees all, others their group and token 0."""
    query, key, value = (
        part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in attention.qkv(tokens_BND).chunk(3, -1)
    )
    allowed = group_N[:, None] == group_N[None]
    allowed[0], allowed[:, 0] = True, True
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    probabilities = scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
    return attention.proj((probabilities @ value).transpose(1, 2).flatten(2))


def plain_block(block: TvtsBlock, x: Tensor, frames: int, patches: int) -> Tensor:
    place = torch.arange(patches).repeat(frames)
    time = torch.arange(frames).repeat_interleave(patches)
    nobody = torch.tensor([-1])
    u = x + masked_attention(block.timeattn, block.ln_3(x), torch.cat([nobody, place]))
    y = x + masked_attention(block.attn, block.ln_1(u), torch.cat([nobody, time]))
    return y + block.mlp(block.ln_2(y))


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 4])
def test_blocks_equal_plain_attention_with_masks(frames: int) -> None:
    tower, video = make_tower(), make_video(frames=frames)
    x = tower._embed(video, None)
    for block in tower.blocks:
        x = plain_block(block, x, frames, 16)
    encoded = tower(video)
    assert_close(encoded.tokens, x, atol=1e-5, rtol=1e-5)
    assert_close(encoded.embedding, tower.ln_post(x)[:, 0] @ tower.proj, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("raw_patches", [False, True])
def test_one_frame_without_time_is_transformers_clip(raw_patches: bool) -> None:
    activation = "gelu" if raw_patches else "quick_gelu"
    theirs = their_clip(activation)
    image_tower, _ = our_towers(theirs, activation)
    tower = VideoTower(image_tower.sizes, num_frames=4, raw_patches=raw_patches).eval()
    weights = {f"visual.{name}": tensor for name, tensor in image_tower.state_dict().items()}
    load_clip_video(tower, weights, "a test")
    pixels = torch.randn(3, 3, 16, 16)
    expected = theirs.visual_projection(theirs.vision_model(pixels).pooler_output)
    assert (tower(pixels).embedding - expected).abs().max() > 1e-3  # the temporal embedding is random
    fresh_time(tower)
    assert_close(tower(pixels).embedding, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_masking_equals_leaving_patches_out_of_the_embedding() -> None:
    tower, video = make_tower(), make_video()
    keep = torch.stack([torch.randperm(16)[:7] for _ in range(2)])
    all_tokens = tower._embed(video, None)
    patches = all_tokens[:, 1:].unflatten(1, (6, 16))
    kept = torch.stack([patches[row][:, keep[row]] for row in range(2)]).flatten(1, 2)
    assert_close(tower._embed(video, keep), torch.cat([all_tokens[:, :1], kept], dim=1), atol=1e-6, rtol=0)
    # The order of patches changes no embedding.
    assert_close(tower(video, keep).embedding, tower(video, keep.flip(1)).embedding, atol=1e-5, rtol=0)
    everything = torch.arange(16).expand(2, -1)
    assert_close(tower(video, everything).embedding, tower(video).embedding, atol=1e-5, rtol=0)


@torch.no_grad()
def test_any_number_of_frames_and_any_size() -> None:
    tower = make_tower()
    short = tower(make_video(frames=2))
    assert torch.equal(tower._time(2), tower.temporal_embedding[:2])
    assert torch.equal(tower._time(12), tower.temporal_embedding.repeat_interleave(2, dim=0))
    assert short.tokens.shape == (2, 1 + 2 * 16, 24) and tower(make_video(frames=9)).embedding.isfinite().all()
    wide = torch.randn(1, 3, 3, 8, 24)
    assert tower(wide).tokens.shape == (1, 1 + 3 * 12, 24)
    with pytest.raises(ValueError, match="10 x 24 pixels cannot be cut into patches of 4"):
        tower(torch.randn(1, 3, 3, 10, 24))


@torch.no_grad()
@pytest.mark.parametrize("reducer", ["geometry", "importance", "prune", "saliency"])
def test_no_merging_is_bit_equal_to_no_aggregation(reducer: str) -> None:
    video = make_video()
    plain, merging = make_tower()(video), make_tower(reducer=reducer, frames_per_block=0, patches_per_block=0)(video)
    assert torch.equal(plain.tokens, merging.tokens) and torch.equal(plain.embedding, merging.embedding)


@torch.no_grad()
@pytest.mark.parametrize("reducer", ["geometry", "importance", "prune"])
def test_frames_and_patches_leave_by_the_schedule(reducer: str) -> None:
    tower = make_tower(reducer=reducer, frames_per_block=(1, 0, 2), patches_per_block=(3, 2, 0))
    encoded = tower(make_video(), return_origins=True)
    assert encoded.size.shape == (2, 3, 11) and encoded.tokens.shape[1] == 1 + 33
    cells = encoded.origins[encoded.origins >= 0]
    assert cells.min() == 1 and cells.max() == 33
    if reducer != "prune":
        assert_close(encoded.size.sum(dim=(1, 2)), torch.full((2,), 6.0 * 16))
        # Every token holds as many cells as its size says.
        for row in range(2):
            counts = encoded.origins[row].flatten().bincount(minlength=34)[1:]
            assert torch.equal(counts, encoded.size[row].flatten().long())


@torch.no_grad()
def test_x_and_u_merge_by_the_plan_of_attention_over_time() -> None:
    """Without attention over space and MLP, a block only merges x."""
    tower = make_tower(reducer="geometry", frames_per_block=(2, 0, 0))
    block, video = tower.blocks[0], make_video()
    for parameter in (block.attn.proj.weight, block.attn.proj.bias, block.mlp.c_proj.weight, block.mlp.c_proj.bias):
        parameter.zero_()
    for other in list(tower.blocks)[1:]:
        for parameter in other.parameters():
            parameter.zero_()
    steps: list[list[AggregationStep]] = []
    encoded = tower(video, steps=steps)
    (step,) = steps[0]
    before = tower._embed(video, None)[:, 1:].unflatten(1, (6, 16))
    assert step.axis == "time" and len(step.plan.source[0]) == 2
    for row in range(2):
        held = [before[row, kept].clone() for kept in step.plan.keep[row]]
        sizes = [1.0] * len(held)
        for source, destination in zip(step.plan.source[row], step.plan.destination[row], strict=True):
            held[destination] = held[destination] * sizes[destination] + before[row, source]
            sizes[destination] += 1
            held[destination] /= sizes[destination]
        assert_close(encoded.tokens[row, 1:].unflatten(0, (4, 16)), torch.stack(held), atol=1e-5, rtol=0)


@torch.no_grad()
def test_fresh_attention_over_time_ties_and_the_first_frames_leave() -> None:
    torch.manual_seed(0)
    tower = make_tower(reducer="geometry", frames_per_block=(2, 0, 0))
    for block in tower.blocks:
        block.timeattn.qkv.weight.zero_()
        block.timeattn.qkv.bias.zero_()
    steps: list[list[AggregationStep]] = []
    tower(make_video(), steps=steps)
    assert steps[0][0].plan.source.tolist() == [[0, 2]] * 2


@torch.no_grad()
@pytest.mark.parametrize("axis", ["time", "space"])
def test_a_token_of_size_two_is_seen_as_two_equal_tokens(axis: str) -> None:
    block, patches = make_tower().blocks[0], torch.randn(1, 3, 4, 24)
    attention = block.timeattn if axis == "time" else block.attn
    cls, dim = torch.randn(1, 1, 24), 1 if axis == "time" else 2
    doubled = torch.cat([patches, patches.narrow(dim, 2, 1)], dim=dim)
    size = torch.ones(1, 3, 4)
    size.narrow(dim, 2, 1).fill_(2)

    def update(tokens: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
        found, _ = attention(torch.cat([cls, tokens.flatten(1, 2)], dim=1), tokens.shape[1], size)
        return found[:, 0], found[:, 1:].unflatten(1, tokens.shape[1:3])

    of_cls, of_patches = update(patches, size)
    expected_of_cls, expected = update(doubled, None)
    assert_close(of_patches, expected.narrow(dim, 0, patches.shape[dim]), atol=1e-6, rtol=0)
    assert_close(of_cls, expected_of_cls, atol=1e-6, rtol=0)
    assert (update(patches, None)[1] - of_patches).abs().max() > 1e-4


@torch.no_grad()
def test_saliency_merges_patches_weighted_by_their_sharpness_within_frames() -> None:
    tower = make_tower(reducer="saliency", patches_per_block=(4, 0, 0))
    steps: list[list[AggregationStep]] = []
    encoded = tower(make_video(), steps=steps)
    (step,) = steps[0]
    assert encoded.size.shape == (2, 6, 12) and step.plan.weight is not None
    assert (encoded.size.sum(dim=(1, 2)) <= 6 * 16).all()

    block = tower.blocks[0]
    x = tower._embed(make_video(), None)
    u = x + block.timeattn(block.ln_3(x), 6)[0]
    query, key, _ = (part.unflatten(-1, (3, 8)) for part in block.attn.qkv(block.ln_1(u)).chunk(3, dim=-1))
    sharp = torch.empty(6, 16)
    for frame in range(6):
        rows = slice(1 + 16 * frame, 17 + 16 * frame)
        probabilities = (torch.einsum("qhk,nhk->hqn", query[0, rows], key[0, rows]) * 8**-0.5).softmax(-1).mean(0)
        sharp[frame] = (probabilities * probabilities.log()).sum(-1)
    # Weights are relative to the whole clip.
    weight = ((sharp - sharp.mean()) / (sharp.max() - sharp.mean())).clamp(0, 1)
    assert_close(step.plan.weight[0], weight.gather(1, step.plan.source[0]), atol=1e-4, rtol=1e-3)


def test_importance_is_the_attention_that_patches_receive() -> None:
    attention, tokens = make_tower().blocks[0].attn, torch.randn(1, 1 + 2 * 5, 24)
    with torch.no_grad():
        _, attended = attention(tokens, 2, needs="probabilities")
        update, _ = attention(tokens, 2)
        assert_close(attended.context, update, atol=1e-6, rtol=0)
        query, key, _ = (part.unflatten(-1, (3, 8)) for part in attention.qkv(tokens).chunk(3, dim=-1))
        for frame in range(2):
            rows = slice(1 + 5 * frame, 6 + 5 * frame)
            keys = torch.cat([key[0, :1], key[0, rows]])
            scores = torch.einsum("qhk,nhk->hqn", query[0, rows], keys) * 8**-0.5
            given = scores.softmax(dim=-1).mean(dim=0)[:, 1:]
            expected = given.sum(dim=0) - given.diagonal()
            assert_close(attended.importance[0, frame], expected, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("raw_patches", [False, True])
def test_folding_changes_nothing(raw_patches: bool) -> None:
    for aggregation in ({}, {"reducer": "importance", "frames_per_block": (1, 0, 1), "patches_per_block": 2}):
        tower = make_tower(raw_patches, **aggregation)
        plain = tower(make_video())
        folded = tower.fold_for_inference()(make_video())
        assert_close(folded.embedding, plain.embedding, atol=1e-5, rtol=0)
        assert_close(tower.sequence(folded), tower.sequence(plain), atol=1e-5, rtol=0)
        assert tower.fold_for_inference() is tower


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_folded_mlp_computes_the_same(activation: Activation) -> None:
    mlp, tokens = ClipMlp(24, activation), 3 * torch.randn(50, 24)
    folded = mlp.folded(torch.float32)
    assert folded is not mlp
    with torch.no_grad():
        assert_close(folded(tokens), mlp(tokens), atol=1e-6, rtol=1e-5)


@pytest.mark.soak
@torch.no_grad()
@pytest.mark.parametrize("reducer", ["none", "geometry", "importance", "saliency"])
def test_the_tower_compiles_to_one_graph(reducer: str) -> None:
    amounts = {} if reducer == "none" else {"patches_per_block": 2}
    tower, video = make_tower(reducer=reducer, **amounts), make_video()
    compiled = torch.compile(tower, fullgraph=True, dynamic=False, backend="eager")
    assert_close(compiled(video).embedding, tower(video).embedding, atol=1e-5, rtol=0)


@torch.no_grad()
def test_bfloat16_stays_near() -> None:
    video = make_video()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = make_tower()(video).embedding
        merged = make_tower(reducer="importance", patches_per_block=2, frames_per_block=(1, 0, 0))(video).embedding
    expected = make_tower()(video).embedding
    assert torch.nn.functional.cosine_similarity(found.float(), expected).min() > 0.999
    assert merged.isfinite().all()


def test_recomputing_changes_no_gradient() -> None:
    tower, video, gradients = make_tower().train(), make_video(), []
    for recompute in (False, True):
        tower.recompute = recompute
        tower.zero_grad()
        tower(video).embedding.square().sum().backward()
        gradients.append(tower.temporal_embedding.grad)
    assert_close(gradients[0], gradients[1])


def test_wrong_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="'tome' does not go with divided attention"):
        make_tower(reducer="tome", tokens_per_block=1)
    with pytest.raises(ValueError, match="tokens_per_block: has no effect with divided attention"):
        make_tower(reducer="saliency", tokens_per_block=1)
    with pytest.raises(ValueError, match="frames_per_block: block 0 is to lose 3 of the 6 frames"):
        make_tower(reducer="geometry", frames_per_block=3)
    tower = make_tower(reducer="geometry", frames_per_block=(2, 0, 0), patches_per_block=(8, 0, 0))
    assert tower.capped(6, 16) == [] and len(tower.capped(2, 8)) == 2


@torch.no_grad()
def test_a_share_is_kept_over_both_axes() -> None:
    encoded = make_tower(reducer="geometry", keep=0.25)(make_video())
    assert encoded.size.shape[1:] == (3, 8)


@pytest.mark.parametrize("name", TVTS_PUBLISHED)
def test_published_towers_have_their_published_sizes(name: str) -> None:
    sizes = TVTS_PUBLISHED[name]
    with torch.device("meta"):
        tower = VideoTower(sizes.image, sizes.num_frames, sizes.raw_patches)
        clip = ImageTower(sizes.image)
    count = sum(parameter.numel() for parameter in tower.parameters())
    width, depth = sizes.image.width, sizes.image.depth
    # Attention over time, its norms and the temporal embedding come on top of CLIP.
    time = depth * (4 * width**2 + 4 * width + 2 * width) + 12 * width
    assert count == sum(parameter.numel() for parameter in clip.parameters()) + time
    assert round(count / 1e6, 1) == {"TVTSv2 B/32": 116.2, "TVTSv2 B/16": 114.6}.get(name, round(count / 1e6, 1))
    if name == "TVTSv2 B/16":
        assert len(tower.state_dict()) == 225


def test_masks_keep_the_published_numbers_of_patches() -> None:
    kept = [kept_patches(sizes.image.grid**2, sizes.mask_ratio) for sizes in TVTS_PUBLISHED.values()]
    assert kept == [49, 98, 76]


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="24 cannot be split into 5 heads"):
        ImageTowerSizes(IMAGE.width, 1, 5, 4, 16, 16)


def test_motion_adds_the_view_of_differences() -> None:
    """By hand: a tower without motion whose patches get the projected differences; in chunks, and kept patches, too."""
    torch.manual_seed(0)
    plain = make_tower()
    moving = VideoTower(IMAGE, 6, False, motion=True).eval()
    moving.load_state_dict(plain.state_dict(), strict=False)
    video = torch.randn(2, 5, 3, IMAGE.image_size, IMAGE.image_size)
    kernel = moving.conv1_motion
    assert kernel is not None

    # Each frame's difference to the next one, as a convolution; after the last frame nothing moves.
    differences = torch.cat([video[:, 1:] - video[:, :-1], torch.zeros_like(video[:, :1])], dim=1)
    views = torch.stack([kernel(frames).flatten(2).transpose(1, 2) for frames in differences.unbind(dim=1)], dim=1)
    project = plain._project_patches
    with torch.no_grad():
        expected = project(video, None) + views
        assert torch.allclose(moving._project_patches(video, None), expected, atol=1e-5)
        keep = torch.tensor([[0, 2], [3, 1]])
        kept = expected.gather(2, keep[:, None, :, None].expand(-1, 5, -1, expected.shape[-1]))
        assert torch.allclose(moving._project_patches(video, keep), kept, atol=1e-5)

        whole = moving(video).embedding
        assert not torch.allclose(whole, plain(video).embedding, atol=1e-3)
        moving.working_memory = 1e-6  # a frame or two at a time
        assert moving._chunks(video, None) is not None
        assert torch.allclose(moving(video).embedding, whole, atol=1e-5)

        kernel.weight.zero_()
        assert torch.allclose(moving(video).embedding, plain(video).embedding, atol=1e-6)
