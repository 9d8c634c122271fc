"""What every filter family promises, whatever its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mechbench
from mechbench.catalogue.options import signature_options
from mechbench.catalogue.registry import FILTERS
from mechbench.errors import ConfigError, MechbenchError, OperatorError
from mechbench.filters.base import make_filter, own_options
from mechbench.filters.explicit import ExplicitFilter
from mechbench.operators.base import depends_on_max_seqlen, operator_options
from mechbench.operators.hyena import Hyena
from mechbench.plan.resolve import resolve

N, D, P = 2, 3, 50
FAMILIES = ["ckconv", "conv1d", "fno", "hyena", "ssm", "transfer"]
STORED = {
    "emb_dim": 5, "filter_width": 64, "filter_layers": 2, "sine_freq": 10.0, "fast_decay": 0.3,
    "slow_decay": 1.5, "window_shift": 1.0, "filter_init_std": 0.02, "filter_time": "relative",
    "filter_norm": "length", "n_taps": 64, "n_modes": 64, "d_state": 64, "n_poles": 64,
}  # fmt: skip


def make(family: str, max_seqlen: int = P, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return make_filter(family, N, D, max_seqlen, options)


def test_the_families_of_the_paper_are_there() -> None:
    assert set(FAMILIES) <= set(FILTERS.names())


@pytest.mark.parametrize("family", FILTERS.names())
@pytest.mark.parametrize("seqlen", [1, 2, 7, P - 1, P])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype(family: str, seqlen: int, dtype: torch.dtype) -> None:
    taps = make(family).to(dtype)(seqlen)
    assert taps.shape == (N, D, seqlen)
    assert taps.dtype == dtype
    assert taps.isfinite().all()


@pytest.mark.parametrize("family", FILTERS.names())
def test_of_a_single_token(family: str) -> None:
    assert make(family, max_seqlen=1)(1).shape == (N, D, 1)


@pytest.mark.parametrize("family", FILTERS.names())
def test_shorter_inputs_see_the_same_first_taps(family: str) -> None:
    released = {"filter_time": "absolute", "filter_norm": "none"}
    filters = make(family, **(released if family in ("ckconv", "hyena") else {})).double()
    for seqlen in (1, 7, P - 1):
        torch.testing.assert_close(filters(seqlen), filters(P)[..., :seqlen], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FILTERS.names())
def test_same_taps_in_float32_under_autocast(family: str, device: str) -> None:
    filters = make(family).to(device)
    with torch.autocast(device, torch.bfloat16):
        taps = filters(P)
    assert taps.dtype == torch.float32
    assert torch.equal(taps, filters(P))


@pytest.mark.parametrize("family", FILTERS.names())
def test_every_parameter_moves_the_taps(family: str) -> None:
    filters = make(family)
    weight = torch.randn(N, D, P, generator=torch.Generator().manual_seed(1))
    (weight * filters(P)).sum().backward()
    for label, parameter in filters.named_parameters():
        assert parameter.grad.isfinite().all(), label
        assert parameter.grad.abs().max() > 0, label


@pytest.mark.parametrize("family", FILTERS.names())
@pytest.mark.parametrize("variant", ["released", "paper"])
def test_hyena_takes_every_family(family: str, variant: str) -> None:
    torch.manual_seed(0)
    op = mechbench.make_operator("hyena", d_model=4, max_seqlen=20, filter=family, variant=variant)
    op = op.double()
    u = torch.randn(2, 13, 4, dtype=torch.float64)
    v, _ = op.signals(u)
    H = mechbench.materialize(op, u)
    y = op.out_proj((H @ v[..., None])[..., 0].transpose(1, 2))
    torch.testing.assert_close(op(u), y, rtol=1e-9, atol=1e-9)
    assert all(p.optim["weight_decay"] == 0.0 for p in op.filter.parameters())


def test_the_default_family_draws_what_it_always_drew() -> None:
    torch.manual_seed(0)
    op = mechbench.make_operator("hyena", d_model=4, max_seqlen=20, window_shift=0.0)
    torch.manual_seed(0)
    named = mechbench.make_operator(
        "hyena", d_model=4, max_seqlen=20, filter="hyena", window_shift=0.0
    )
    assert type(op.filter).__name__ == "ImplicitFilter"
    for one, other in zip(op.parameters(), named.parameters(), strict=True):
        assert torch.equal(one, other)
    # As of the version in which there was no other family.
    torch.testing.assert_close(
        op.filter(20)[0, 1, :3] * 20 / 1024,  # since scaled by the length
        torch.tensor([0.0062504709, -0.0202698950, -0.0280283410]),
    )


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown filter 'conv1': did you mean 'conv1d'"):
        make("conv1")


@pytest.mark.parametrize(
    ("family", "options", "refused"),
    [
        ("hyena", {"n_taps": 8}, "n_taps"),
        ("conv1d", {"n_taps": 8, "d_state": 8}, "d_state"),
        ("ckconv", {"fast_decay": 0.1}, "fast_decay"),
        ("fno", {"sine_freq": 1.0}, "sine_freq"),
        ("ssm", {"n_modes": 3}, "n_modes"),
        ("transfer", {"filter_time": "absolute"}, "filter_time"),
    ],
)
def test_option_of_another_family_is_refused(
    family: str, options: dict[str, Any], refused: str
) -> None:
    with pytest.raises(ConfigError, match=f"option '{refused}' has no effect on filter '{family}'"):
        mechbench.make_operator("hyena", d_model=4, max_seqlen=20, filter=family, **options)


def test_hyena_declares_no_option_of_a_family() -> None:
    own = set(signature_options(Hyena, ("d_model", "max_seqlen", "filter_options")))
    for family in FAMILIES:
        assert not own & set(own_options(family))
        assert set(operator_options("hyena", {"filter": family})) == own | set(STORED)


def test_options_in_every_stored_configuration_stay_what_they_were() -> None:
    """They are part of every result's id."""
    for family in FAMILIES:
        found = operator_options("hyena", {"filter": family})
        assert {key: found[key] for key in STORED} == STORED


def test_unknown_option_of_the_mapping_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"filter 'fno' has no option 'modes': .*'n_modes'"):
        Hyena(4, 20, filter="fno", filter_options={"modes": 3})
    assert Hyena(4, 20, filter="fno", filter_options={"n_modes": 3}).filter.spectrum.shape[2] == 3
    with pytest.raises(ConfigError, match="operator 'hyena' has no option 'filter_options'"):
        mechbench.make_operator("hyena", d_model=4, max_seqlen=20, filter_options={"emb_dim": 9})


PLUGIN = """import mechbench
import torch


@mechbench.register_filter("decay", source="nobody, 2026")
class Decay(torch.nn.Module):
    \"\"\"One exponential a channel.\"\"\"

    depends_on_max_seqlen = staticmethod(lambda options: options["scaled"])

    def __init__(self, n_filters, d_model, max_seqlen, rate: float = 0.5, scaled: bool = False,
                 d_state: int = 8):
        super().__init__()
        self.shape, self.state = (n_filters, d_model, 1), d_state
        self.rate = torch.nn.Parameter(torch.full(self.shape, rate))

    def forward(self, seqlen):
        return torch.exp(-self.rate * torch.arange(seqlen))
"""


@pytest.fixture
def plugin(tmp_path: Path, clean_registry: None) -> Path:
    """Return a plugin file, loaded, that registers the family `decay`."""
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    mechbench.load_plugin(path)
    return path


def id_of(**options: Any) -> str:
    return resolve("hyena", "recall", operator_options=options, device="cpu")[0].cell_id


@pytest.mark.usefixtures("plugin")
def test_options_of_a_plugins_family_are_typed_and_reach_it() -> None:
    given = {"filter": "decay", "rate": "0.25", "order": "3"}
    op = mechbench.make_operator("hyena", d_model=4, max_seqlen=20, **given)
    assert op.filter.rate.tolist() == [[[0.25]] * 4] * 2
    assert op.filter.state == 8  # its own default, and not that of another family's d_state
    assert op(torch.zeros(1, 7, 4)).shape == (1, 7, 4)
    with pytest.raises(ConfigError, match="option 'rate' of operator 'hyena' is 'fast': expected"):
        operator_options("hyena", {"filter": "decay", "rate": "fast"})
    with pytest.raises(ConfigError, match=r"operator 'hyena' has no option 'rates': .*'rate'"):
        operator_options("hyena", {"filter": "decay", "rates": 1})
    with pytest.raises(ConfigError, match="option 'n_taps' has no effect on filter 'decay', which "
                       "takes: d_state, rate, scaled"):  # fmt: skip
        mechbench.make_operator("hyena", d_model=4, max_seqlen=20, filter="decay", n_taps=3)


def test_options_of_a_plugins_family_are_stored_where_it_is_chosen(plugin: Path) -> None:
    chosen = {**STORED, "rate": 0.5, "scaled": False, "d_state": 8}
    found = operator_options("hyena", {"filter": "decay"})
    assert {key: found[key] for key in chosen} == chosen
    assert not {"rate", "scaled"} & set(operator_options("hyena", {"filter": "ssm"}))
    with pytest.raises(ConfigError, match="operator 'hyena' has no option 'rate'"):
        operator_options("hyena", {"rate": 0.5})


def test_digest_of_the_plugin_is_part_of_the_id_where_its_family_is_chosen(plugin: Path) -> None:
    config, _ = resolve("hyena", "recall", operator_options={"filter": "decay"}, device="cpu")
    assert list(config.plugins) == [str(plugin)]
    hybrid = {"pattern": "attention,hyena", "hyena.filter": "decay"}
    config, _ = resolve("hybrid", "recall", operator_options=hybrid, device="cpu")
    assert list(config.plugins) == [str(plugin)]
    plain, chosen = id_of(), id_of(filter="decay")
    plugin.write_text(PLUGIN.replace("-self.rate", "-2 * self.rate"))
    mechbench.load_plugin(plugin)
    assert id_of() == plain
    assert id_of(filter="decay") != chosen


def test_family_of_a_script_counts_by_its_source(clean_registry: None) -> None:
    @mechbench.register_filter("typed-in")
    class TypedIn(ExplicitFilter):
        """Of no plugin file."""

    config, _ = resolve("hyena", "recall", operator_options={"filter": "typed-in"}, device="cpu")
    assert any("TypedIn" in name for name in config.sources)
    assert not resolve("hyena", "recall", device="cpu")[0].sources


@pytest.mark.usefixtures("plugin")
def test_family_says_whether_it_depends_on_the_longest_length() -> None:
    for scaled in (False, True):
        options = operator_options("hyena", {"filter": "decay", "scaled": scaled})
        assert depends_on_max_seqlen("hyena", options) is scaled


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("rate: float", "order: float", "option 'order' in filter_options of operator 'hyena' is"),
        ("rate: float = 0.5", "rate: float", "operator 'hyena' needs the option 'rate'"),
        (
            "        super",
            "        1 / 0\n        super",
            "filter 'decay' raised ZeroDivisionError",
        ),
    ],
)
def test_faults_of_a_family_are_one_line(plugin: Path, old: str, new: str, says: str) -> None:
    plugin.write_text(PLUGIN.replace(old, new))
    mechbench.load_plugin(plugin)
    with pytest.raises(MechbenchError, match=says) as caught:
        mechbench.make_operator("hyena", d_model=4, max_seqlen=20, filter="decay")
    assert "\n" not in str(caught.value)


def test_taps_of_another_shape_are_refused(plugin: Path) -> None:
    plugin.write_text(PLUGIN.replace("(n_filters, d_model, 1)", "(d_model, 1)"))
    mechbench.load_plugin(plugin)
    op = mechbench.make_operator("hyena", d_model=4, max_seqlen=20, filter="decay")
    with pytest.raises(OperatorError, match=r"Decay returned taps of shape \(4, 7\): expected"):
        op(torch.zeros(1, 7, 4))


@pytest.mark.usefixtures("clean_registry")
def test_what_is_no_module_is_refused() -> None:
    mechbench.register_filter("nothing")(lambda n_filters, d_model, max_seqlen: 3)
    with pytest.raises(OperatorError, match=r"filter 'nothing' gave a int: expected a torch\.nn"):
        make("nothing")


def test_a_default_of_before_of_another_family_is_no_choice() -> None:
    """Configurations store all families' options, and a default may have changed since."""
    assert Hyena(4, 20, filter="fno", filter_options={"window_shift": 0.0})
    with pytest.raises(ConfigError, match="'window_shift' has no effect on filter 'fno'"):
        Hyena(4, 20, filter="fno", filter_options={"window_shift": 0.5})
