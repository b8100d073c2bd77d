"""TVTSv2's parameter groups as settings of `optim.groups`, against the list of names that parity checks."""

import pytest

from configs.schema import OptimConfig, ParameterGroupConfig
from engine.optim import build_optimizer, set_lr
from models.tvts.groups import parameter_groups, trained_names
from tests.models.tvts.tiny import make_model

NEW = ("*.timeattn", "*.ln_3", "pred_model")
NEW_UNDECAYED = ("*.timeattn.*bias", "*.ln_3", "pred_model.*bias", "pred_model.*norm*")
UNDECAYED = ("*bias", "*ln_*", "*norm*")


@pytest.mark.parametrize(("temporal_embedding", "more"), [("clip", ()), ("new", ("*.temporal_embedding",))])
def test_four_groups_of_two_rates(temporal_embedding: str, more: tuple[str, ...]) -> None:
    groups = (
        ParameterGroupConfig(names=NEW_UNDECAYED, lr=1e-4, weight_decay=0.0),
        ParameterGroupConfig(names=(*NEW, *more), lr=1e-4),
        ParameterGroupConfig(names=UNDECAYED, weight_decay=0.0),
    )
    model = make_model()
    optimizer = build_optimizer(model, OptimConfig(lr=1e-7, weight_decay=0.05, decay="all", groups=groups))
    set_lr(optimizer, 1e-7)
    found = {
        name: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for name in group["param_names"]
    }

    expected = {}
    for group in parameter_groups(trained_names(model), temporal_embedding=temporal_embedding):
        expected |= dict.fromkeys(group["names"], (group["lr"], group["weight_decay"]))
    assert found.keys() == expected.keys() and len(set(found.values())) == 4
    for name, (rate, weight_decay) in expected.items():
        assert found[name] == (pytest.approx(rate, rel=1e-12), weight_decay), name
