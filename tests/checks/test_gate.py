from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mechbench.checks import blame, check_causality, check_contract, leak, naming
from mechbench.errors import ConfigError, OperatorError
from mechbench.model import Backbone
from mechbench.registry import load_plugin, register_operator

pytestmark = pytest.mark.usefixtures("clean_registry")
V, D, L = 8, 8, 20


def register(forward: Callable[[Tensor], Any], name: str = "mine") -> None:
    """Register an operator that computes `forward`."""

    @register_operator(name)
    class Mine(nn.Module):
        def __init__(self, d_model: int, max_seqlen: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(d_model))

        def forward(self, u: Tensor) -> Any:
            return forward(u * self.scale)


def oom(u: Tensor) -> Tensor:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def model(operator: str = "mine", max_seqlen: int = L, **options: object) -> Backbone:
    torch.manual_seed(0)
    return Backbone(
        operator, options, vocab_size=V, d_model=D, n_layers=2, max_seqlen=max_seqlen
    ).eval()


def tokens(length: int = L, vocab_size: int = V) -> Tensor:
    return torch.randint(vocab_size, (2, length), generator=torch.Generator().manual_seed(0))


def next_token(u: Tensor) -> Tensor:
    """Look one token ahead."""
    return torch.cat([u[:, 1:], u[:, -1:]], 1)


def whole_mean(u: Tensor) -> Tensor:
    return u.mean(1, keepdim=True).expand_as(u)


def last_token_only(u: Tensor) -> Tensor:
    """Only the very last token is seen too early, and only at the position before it."""
    return torch.cat([u[:, :-2], u[:, -1:], u[:, -1:]], 1)


def faint(u: Tensor) -> Tensor:
    """Hide in float32's rounding what the future holds."""
    return u + 1e-5 * next_token(u)


def causal_mean(u: Tensor) -> Tensor:
    steps = torch.arange(1, u.shape[1] + 1, device=u.device)[:, None]
    return u.cumsum(1) / steps


@pytest.mark.parametrize(
    ("forward", "text"),
    [
        (lambda u: u[:, :-1], r"returned shape \(2, 19, 8\): expected \(2, 20, 8\)"),
        (lambda u: u.transpose(1, 2), r"returned shape \(2, 8, 20\): expected \(2, 20, 8\)"),
        (lambda u: (u, None), r"returned a tuple: expected a tensor of shape \(2, 20, 8\)"),
        (lambda u: None, "returned a NoneType: expected a tensor"),
        (lambda u: u / 0, "gives NaN or infinity"),
        (lambda u: u.log(), "gives NaN or infinity"),
        (lambda u: u @ u, r"raised RuntimeError on an input of shape \(2, 20, 8\): .*size"),
        (lambda u: u.nothing(), "raised AttributeError on an input of shape"),
    ],
)
def test_broken_contract_is_named_with_its_operator(
    forward: Callable[[Tensor], Any], text: str
) -> None:
    register(forward)
    with pytest.raises(OperatorError, match=f"operator 'mine' {text}") as got:
        check_contract("mine", {}, D, L, "cpu")
    assert "\n" not in str(got.value)


@pytest.mark.parametrize("name", ["hyena", "attention"])
@pytest.mark.parametrize("length", [1, 2, 1 << 20])
def test_built_ins_keep_the_contract_at_any_length(name: str, length: int, device: str) -> None:
    check_contract(name, {}, D, length, device)


def test_error_of_the_user_stays_one() -> None:
    with pytest.raises(ConfigError, match="order is 1"):
        check_contract("hyena", {"order": 1}, D, L, "cpu")


def test_running_out_of_memory_is_no_breach_of_contract() -> None:
    register(oom)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        check_contract("mine", {}, D, L, "cpu")


@pytest.mark.parametrize(
    ("name", "options"),
    [("hyena", {}), ("hyena", {"variant": "paper", "order": 3}), ("attention", {})],
)
@pytest.mark.parametrize("length", [1, 2, 3, L])
def test_built_ins_do_not_leak(name: str, options: dict[str, Any], length: int) -> None:
    built = model(name, **options)
    assert leak(built.double(), tokens(length), V) < 1e-12
    built = model(name, **options)
    assert leak(built, tokens(length), V) < 1e-5
    assert check_causality(built, tokens(length), V, name, "cpu")


@pytest.mark.parametrize("forward", [whole_mean, next_token, last_token_only])
@pytest.mark.parametrize("length", [2, 3, L, 33])
def test_looking_ahead_is_found(forward: Callable[[Tensor], Tensor], length: int) -> None:
    register(forward)
    built = model(max_seqlen=length)
    assert leak(built, tokens(length), V) > 1e-3
    assert not check_causality(built, tokens(length), V, "mine", "cpu")


def test_looking_ahead_at_all_tokens_but_the_last_is_found() -> None:
    register(lambda u: torch.cat([u[:, 1:-1], u[:, -2:]], 1))
    assert leak(model(), tokens(), V) > 1e-3


@pytest.mark.parametrize("vocab_size", [2, 3, 4, 5])
def test_looking_ahead_is_found_in_any_vocabulary(vocab_size: int) -> None:
    register(whole_mean)
    assert leak(model(), tokens(vocab_size=vocab_size), vocab_size) > 1e-3


def test_looking_ahead_below_the_rounding_of_float32_is_found() -> None:
    register(faint)
    assert leak(model(), tokens(), V) < 1e-3
    assert not check_causality(model(), tokens(), V, "mine", "cpu")


def test_looking_ahead_far_into_a_long_input_is_found() -> None:
    register(lambda u: torch.cat([u[:, :600], u[:, 601:], u[:, -1:]], 1))
    assert not check_causality(model(max_seqlen=1200), tokens(1200), V, "mine", "cpu")


@pytest.mark.parametrize("error", [RuntimeError, TypeError, AssertionError, ValueError])
def test_operator_for_single_precision_alone_is_judged_at_full_length(
    error: type[Exception],
) -> None:
    def single(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(u: Tensor) -> Tensor:
            if u.dtype == torch.float64:
                raise error("float32 only")
            return forward(u)

        return run

    register(single(causal_mean), "causal")
    register(single(next_token), "ahead")
    assert check_causality(model("causal"), tokens(), V, "causal", "cpu")
    assert not check_causality(model("ahead"), tokens(), V, "ahead", "cpu")


def test_nan_at_full_length_is_an_error_not_a_verdict() -> None:
    register(lambda u: u if u.shape[1] < L else u / 0)
    check_contract("mine", {}, D, L - 1, "cpu")
    with pytest.raises(OperatorError, match=f"'mine' gives NaN or infinity at {L} tokens"):
        check_causality(model(), tokens(), V, "mine", "cpu")


def test_out_of_memory_passes_and_the_mode_is_given_back() -> None:
    register(oom)
    for training in (True, False):
        built = model().train(training)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            check_causality(built, tokens(), V, "mine", "cpu")
        assert built.training is training


def test_dropout_does_not_look_like_a_look_ahead() -> None:
    register(causal_mean)
    built = model().train()
    built.norm = nn.Sequential(built.norm, nn.Dropout(0.5))
    assert check_causality(built, tokens(), V, "mine", "cpu")
    assert built.training


PLUGIN = """import mechbench
from torch import nn

@mechbench.register_operator("mine")
class Mine(nn.Module):
    def __init__(self, d_model, max_seqlen):
        super().__init__()

    def forward(self, u):
        if u.shape[1] > 3:
            raise ValueError("too\\n long")
        return u @ u
"""


def raised(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as got:  # noqa: PT011 - any
        call()
    return got.value


def test_blame_names_the_operator_its_line_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    load_plugin(tmp_path / "plugin.py")
    built = model()
    found = blame("mine", raised(lambda: built(tokens())))
    assert isinstance(found, OperatorError)
    assert str(found) == "operator 'mine' raised ValueError at line 11 of its file: too long"
    # also for what torch raises on its behalf
    deep = blame("mine", raised(lambda: built(tokens(3))))
    assert "raised RuntimeError at line 12 of its file" in str(deep)


def test_blame_leaves_errors_of_others_alone(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    load_plugin(tmp_path / "plugin.py")
    assert blame("mine", raised(lambda: torch.ones(2) @ torch.ones(3))) is None
    error = raised(lambda: model()(tokens()))
    assert blame("hyena", error) is None
    register(oom, "greedy")
    assert blame("greedy", raised(lambda: model("greedy")(tokens()))) is None
    assert blame("mine", OperatorError("said already")) is None


def test_naming_raises_what_blame_finds_and_passes_the_rest(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    load_plugin(tmp_path / "plugin.py")
    built = model()
    with pytest.raises(OperatorError, match="'mine' raised ValueError at line 11"), naming("mine"):
        built(tokens())
    with pytest.raises(RuntimeError, match="no operator's"), naming("mine"):
        raise RuntimeError("no operator's")


@pytest.mark.parametrize(("operator", "causal"), [("hyena", True), ("mine", False)])
def test_causality_is_checked_on_numbers_too(operator: str, causal: bool) -> None:
    register(whole_mean)
    torch.manual_seed(0)
    built = Backbone(operator, {}, vocab_size=V, d_model=D, n_layers=2, max_seqlen=L, input_dim=3)
    numbers = torch.randn(2, L, 3)
    assert check_causality(built, numbers, V, operator, "cpu") == causal
