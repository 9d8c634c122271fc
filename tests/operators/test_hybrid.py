from __future__ import annotations

from pathlib import Path

import pytest

from mechbench.catalogue.plugins import load_plugin
from mechbench.errors import ConfigError
from mechbench.operators.attention import Attention
from mechbench.operators.base import components_used, make_operator
from mechbench.operators.hyena import Hyena
from mechbench.plan.resolve import resolve
from mechbench.training.model import Backbone

PLUGIN = """import mechbench
from torch import nn

@mechbench.register_operator("mine")
class Mine(nn.Module):
    def __init__(self, d_model, max_seqlen, layer=-1):
        super().__init__()
        self.layer = layer
        self.inner = nn.Linear(d_model, d_model)

    def forward(self, u):
        return self.inner(u)
"""


def kinds(n_layers: int, **options: object) -> list[type]:
    model = Backbone("hybrid", options, vocab_size=8, d_model=8, n_layers=n_layers, max_seqlen=8)
    return [type(block.operator) for block in model.blocks]


def test_layers_alternate_and_the_pattern_repeats() -> None:
    assert kinds(5) == [Hyena, Attention, Hyena, Attention, Hyena]
    assert kinds(3, pattern="attention, hyena,hyena") == [Attention, Hyena, Hyena]
    assert kinds(2, pattern="attention") == [Attention, Attention]


def test_options_reach_the_operator_that_they_name_and_no_other() -> None:
    model = Backbone(
        "hybrid",
        {"hyena.order": "3", "attention.n_heads": 2},
        vocab_size=8,
        d_model=8,
        n_layers=2,
        max_seqlen=8,
    )
    assert model.blocks[0].operator.order == 3
    assert model.blocks[1].operator.n_heads == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"order": 3}, "operator 'hybrid' has no option 'order': did you mean 'hyena.order'"),
        ({"hyna.order": 3}, "no option 'hyna.order': did you mean 'hyena.order'"),
        ({"hyena.ordre": 3}, "operator 'hyena' has no option 'ordre': did you mean 'order'"),
        ({"pattern": "hyena,nothing"}, "unknown operator 'nothing'"),
        ({"pattern": "hyena,,attention"}, "expected names of other operators"),
        ({"pattern": ""}, "expected names of other operators"),
        ({"pattern": "hybrid,hyena"}, "expected names of other operators"),
    ],
)
def test_what_is_wrong_is_one_line(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        kinds(2, **options)


@pytest.mark.usefixtures("clean_registry")
def test_plugin_in_the_pattern_stands_in_the_record(tmp_path: Path) -> None:
    """Else an edited plugin would be read as the same cell."""
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    load_plugin(path)
    options = {"pattern": "attention,mine"}
    used = [entry.name for entry in components_used("hybrid", options)]
    assert used == ["hybrid", "attention", "mine"]
    config, _ = resolve("hybrid", "recall", operator_options=options, device="cpu")
    assert list(config.plugins) == [str(path)]


@pytest.mark.usefixtures("clean_registry")
def test_operators_that_ask_for_their_layer_are_told(tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    load_plugin(path)
    plain = Backbone("mine", {}, vocab_size=8, d_model=8, n_layers=3, max_seqlen=8)
    assert [block.operator.layer for block in plain.blocks] == [0, 1, 2]
    mixed = make_operator("hybrid", d_model=8, max_seqlen=8, layer=3, pattern="hyena,mine")
    assert mixed.layer == 3
    with pytest.raises(ConfigError, match="has no option 'layer'"):
        make_operator("hybrid", d_model=8, max_seqlen=8, **{"mine.layer": 3, "pattern": "mine"})
