from pathlib import Path

import pytest

from benchmarks.reducers.recipes import encoder_of
from benchmarks.reducers.schedules import priced
from benchmarks.reducers.settings import load_comparison

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "configs" / "comparison").glob("*.yaml"))
FILES = [path for path in FILES if not path.name.startswith("base_")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_comparison_loads_and_its_recipes_agree(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    comparison = load_comparison(path, [])
    model, video = encoder_of(comparison)
    if comparison.own_data:
        assert comparison.weights is not None
        return
    assert comparison.data.size == video.image_size and video.image_size % model.patch_size == 0
    assert comparison.data.scenes * comparison.data.frames_per_scene == video.num_frames


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["target=1.5"], "target: 1.5 is not a share"),
        (["seeds=[1, 1]"], "each seed once"),
        (["data.seed=3"], "draws its own videos"),
        (["reducers=[{name: none}]"], "left out does not go with reducer 'none'"),
        (["reducers=[{name: a, matched_by: nothing}]", "findings=[]"], "must be called none"),
        (["reducers=[{name: none, matched_by: nothing}, {name: none, matched_by: nothing}]"], "a name of its own"),
        (["reducers=[{name: none, matched_by: nothing}, {name: a, matched_by: nothing}]"], "exactly one"),
        (["reducers=[{name: none, matched_by: nothing}]"], "findings: geometry is none of the reducers none"),
        (
            ["reducers=[{name: none, matched_by: nothing}, {name: a, aggregation: {reducer: prune, keep: 0.5}}]"],
            "follow from the target",
        ),
        (
            [
                "reducers=[{name: none, matched_by: nothing}, "
                "{name: a, matched_by: nothing, frames: 8, attention: joint}]"
            ],
            "none of divided attention over 8 frames is matched_by nothing",
        ),
        (["sweeps={}"], "unknown key"),
        (["retrieval.config=null"], "retrieval.config: missing"),
        (["reducers=[{name: a, matched_by: nothing, aggregation: {reducer: prune}}]"], "leave one of them out"),
        (["reducers=[{name: a, matched_by: given, aggregation: {reducer: prune}}]"], "set matched_by to given"),
        (
            ["reducers=[{name: a, matched_by: given, target: 0.5, aggregation: {reducer: prune}}]"],
            "target: has no effect",
        ),
        (["reducers=[{name: a, matched_by: keep, blocks: 2, aggregation: {reducer: prune}}]"], "blocks: has no effect"),
    ],
)
def test_settings_that_compare_nothing_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=r"stories64\.yaml.*|command line.*") as refused:
        load_comparison(ROOT / "configs" / "comparison" / "stories64.yaml", overrides)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["overrides=[]"], "add aggregation.reducer=none"),
        (["vqa.overrides=[video.num_frames=32]"], "have to agree on video"),
        (["pretrain.overrides=[model.depth=2]"], "have to agree on the model"),
    ],
)
def test_recipes_that_disagree_are_refused(overrides: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=said):
        encoder_of(load_comparison(ROOT / "configs" / "comparison" / "stories64.yaml", overrides))


def test_the_released_weights_are_compared_at_the_cost_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    comparison = load_comparison(ROOT / "configs" / "comparison" / "testa_didemo.yaml", [])
    model, video = encoder_of(comparison)
    none, as_trained, *others = comparison.reducers
    gmacs = [priced(one.name, model, video, one.aggregation).cost.gmacs for one in (none, as_trained)]
    assert gmacs == pytest.approx([786.8, 420], abs=1) and comparison.target == pytest.approx(
        gmacs[1] / gmacs[0], abs=1e-3
    )
    assert all(one.aggregation.reducer in model.reducers for one in others)
