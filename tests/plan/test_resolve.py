from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechbench.catalogue.plugins import load_plugin
from mechbench.catalogue.registry import register_operator, register_task
from mechbench.errors import ConfigError, SeqlenError
from mechbench.operators.base import implied_options, make_operator
from mechbench.plan.resolve import check_without_torch, resolve, scored_task, task_of
from mechbench.record.config import SCHEDULE, SCHEDULES, Config
from mechbench.tasks.flip_flop import FlipFlop
from mechbench.tasks.recall import Recall
from mechbench.training.model import build_model


def config(operator: str = "hyena", task: str = "recall", **settings: Any) -> Config:
    return resolve(operator, task, **{"device": "cpu", **settings})[0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"operator": "hyna"}, "unknown operator 'hyna': did you mean 'hyena'"),
        ({"task": "recal"}, "unknown task 'recal': did you mean 'recall'"),
        ({"n_layer": 2}, "unknown setting 'n_layer': did you mean 'n_layers'"),
        ({"dtype": "bfloat"}, "unknown dtype 'bfloat': did you mean 'bfloat16'"),
        ({"device": "cude"}, "unknown device 'cude': choose from auto, cpu, cuda, cuda:N"),
        ({"device": "cpu:0"}, "unknown device 'cpu:0'"),
        ({"device": "cuda:x"}, "unknown device 'cuda:x'"),
        ({"curriculum": "yes"}, "curriculum is 'yes': choose from auto, none"),
        ({"operator_options": {"ordr": 2}}, "'ordr'.*did you mean 'order'"),
        ({"operator_options": {"order": "two"}}, "order"),
        ({"task_options": {"min_distence": 2}}, "'min_distence'.*did you mean 'min_distance'"),
        ({"vocab_size": 3}, "vocab_size is 3: recall needs at least 4"),
        ({"seqlen": 0}, "seqlen is 0: expected at least 1"),
        ({"d_model": 0}, "d_model is 0: expected at least 1"),
        ({"n_layers": -1}, "n_layers is -1: expected at least 1"),
        ({"lr": float("nan")}, "lr is nan: expected a positive number"),
        ({"batch_size": -3}, "batch_size is -3: expected at least 1"),
        ({"budget_tokens": 0}, "budget_tokens is 0: expected at least 1"),
        ({"n_test": 0}, "n_test is 0: expected at least 1"),
        ({"n_validation": 0}, "n_validation is 0"),
        ({"validate_every": 0}, "validate_every is 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1"),
        ({"n_train": 5}, "n_train is 5: expected 0 .* at least the 64 sequences"),
        ({"loss_on": "scores"}, "loss_on is 'scores'"),
    ],
)
def test_wrong_setting_is_one_line_that_says_what_is_right(
    settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text) as got:
        config(**settings)
    assert "\n" not in str(got.value)


@pytest.mark.parametrize("name", ["task_version", "device_type", "plugins"])
def test_what_is_derived_cannot_be_set(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        config(**{name: 1})


@pytest.mark.parametrize("settings", [{"seqlen": 63}, {"eval_seqlens": (64, 63)}])
def test_length_that_the_task_cannot_have_is_found_before_training(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(SeqlenError, match=r"seqlen is 63: .*the nearest is 64"):
        config(**settings)


def test_defaults_are_complete_and_fit_the_length() -> None:
    found = config()
    assert (found.seqlen, found.vocab_size, found.eval_seqlens) == (64, 20, (64,))
    assert (found.batch_size, found.curriculum) == (64, ((64, 64),))
    assert found.budget_tokens == 1500 * 64 * 66
    assert (found.n_validation, found.n_test) == (512, 2048)
    assert (found.dtype, found.device_type) == ("float32", "cpu")
    assert found.task_options == {"min_distance": 0}
    assert found.operator_options["order"] == 2
    assert found.plugins == {}


def test_nothing_given_is_the_same_as_the_defaults_given() -> None:
    found = config()
    explicit = config(
        seqlen=64,
        vocab_size=20,
        batch_size=64,
        lr=found.lr,
        eval_seqlens=[64],
        budget_tokens=found.budget_tokens,
        operator_options={"order": "2"},
        task_options={"min_distance": "0"},
        dtype="float32",
        n_layers=None,
        short_conv=0,
    )
    assert explicit == found
    assert explicit.cell_id == found.cell_id == config().cell_id


def test_each_setting_that_counts_gives_another_cell() -> None:
    cells = [
        config(),
        config(seed=1),
        config("attention"),
        config(task="induction"),
        config(eval_seqlens=(128,)),
        config(short_conv=4),
        config(operator_options={"order": 3}),
        config(task_options={"min_distance": 4}),
        config(dtype="bfloat16"),
        config(allow_noncausal=True),
    ]
    assert len({c.cell_id for c in cells}) == len(cells)


def test_lengths_to_score_are_sorted_and_have_the_trained_one() -> None:
    assert config(eval_seqlens=(256, 32, 256), seqlen=128).eval_seqlens == (32, 128, 256)


def test_batch_size_is_the_last_stages() -> None:
    found = config(seqlen=16384, curriculum="auto")
    assert found.batch_size == found.curriculum[-1][1] == 8
    assert len(found.curriculum) > 1
    assert config(seqlen=4096, batch_size=6).curriculum == tuple(
        (length, 6) for length in (128, 512, 2048, 4096)
    )
    assert config(seqlen=4096, curriculum="none", batch_size=6).curriculum == ((4096, 6),)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_cuda_without_a_device_is_refused_and_auto_is_the_cpu() -> None:
    for device in ("cuda", "cuda:1"):
        with pytest.raises(ConfigError, match=f"device is '{device}': this machine has no CUDA"):
            resolve("hyena", "recall", device=device)
    found, device = resolve("hyena", "recall")
    assert (device, found.device_type, found.dtype) == ("cpu", "cpu", "float32")


def pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_cuda_is_taken_where_it_is_and_its_number_is_no_part_of_the_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_cuda(monkeypatch)
    (auto, device), (second, other) = (
        resolve("hyena", "recall", device=name) for name in ("auto", "cuda:1")
    )
    assert (device, other) == ("cuda", "cuda:1")
    assert (auto.device_type, auto.dtype) == ("cuda", "bfloat16")
    assert auto.cell_id == second.cell_id
    with pytest.raises(ConfigError, match="device is 'cuda:2': there are 2 CUDA devices"):
        resolve("hyena", "recall", device="cuda:2")


@pytest.mark.usefixtures("clean_registry")
def test_plugin_in_use_is_part_of_the_cell_and_another_is_not(tmp_path: Path) -> None:
    text = "import mechbench\n@mechbench.register_operator('{}')\nclass A:\n"
    text += "    def __init__(self, d_model, max_seqlen): ...\n"
    paths = {}
    for name in ("used", "idle"):
        paths[name] = tmp_path / f"{name}.py"
        paths[name].write_text(text.format(name))
        load_plugin(paths[name])
    digest = hashlib.sha256(paths["used"].read_bytes()).hexdigest()
    assert config("used").plugins == {str(paths["used"]): digest}
    assert config("hyena").plugins == {}


def test_task_is_rebuilt_from_the_configuration() -> None:
    found = config(seqlen=128, vocab_size=30, task_options={"min_distance": 5})
    assert task_of(found) == Recall(30, 128, 5)
    assert task_of(found, 256) == Recall(30, 256, 5)


def test_a_task_of_varying_length_is_scored_at_other_lengths_exactly(clean_registry: None) -> None:
    @register_task("varying")
    @dataclasses.dataclass(frozen=True)
    class Varying(Recall):
        min_seqlen: int = 0

    config, _ = resolve(
        "hyena", "varying", seqlen=64, task_options={"min_seqlen": 8}, eval_seqlens=[32, 128],
        device="cpu",
    )  # fmt: skip
    assert config.eval_seqlens == (32, 64, 128)
    assert [task_of(config, n).min_seqlen for n in config.eval_seqlens] == [0, 8, 0]


def test_the_test_set_is_of_the_task_that_the_task_names() -> None:
    made = config(task="flip-flop", seqlen=64, task_options={"tested_p_ignore": 0.98})
    assert task_of(made) == FlipFlop(5, 64, 0.8, 0.98)
    assert scored_task(made, 64) == FlipFlop(5, 64, 0.98)
    assert scored_task(made, 128) == FlipFlop(5, 128, 0.98)
    assert scored_task(config(), 64) == task_of(config(), 64)


def test_quick_check_finds_what_resolve_would() -> None:
    check_without_torch("hyena", "recall", seqlen=64, eval_seqlens=(32,))
    wrong: dict[str, Any]
    for wrong in ({"seqlen": 63}, {"eval_seqlens": (63,)}, {"vocab_size": 3}, {"lr": -1.0}):
        with pytest.raises(ConfigError):
            check_without_torch("hyena", "recall", **wrong)
    with pytest.raises(ConfigError, match="min_distance"):
        check_without_torch("hyena", "recall", task_options={"min_distance": 99})


def test_every_field_of_the_configuration_is_a_plain_value() -> None:
    found = config("hyena", "induction", seqlen=256)
    assert Config.from_dict(found.to_dict()) == found
    assert all(f.name in found.to_dict() for f in dataclasses.fields(Config))


def test_equal_settings_of_any_type_are_one_cell() -> None:
    plain = config(seed=3, lr=1.0, budget_tokens=20000, d_model=32, seqlen=64)
    found = config(
        seed=np.int64(3),
        lr=torch.tensor(1),
        budget_tokens=2e4,
        d_model=np.float32(32),
        seqlen=np.array(64),
        eval_seqlens=np.array([64]),
        task_options={"min_distance": np.int8(0)},
        operator_options={"sine_freq": np.int64(10), "order": 2.0},
        device=torch.device("cpu"),
    )
    assert found == plain
    assert found.cell_id == plain.cell_id
    assert found.to_dict() == plain.to_dict()
    assert config(lr=0.001).cell_id != config(lr=0.0010000004).cell_id


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"seed": 1.5}, "seed is 1.5: expected a whole number"),
        ({"seed": True}, "seed is True: expected a whole number"),
        ({"d_model": "64"}, "d_model is '64': expected a whole number"),
        ({"grad_clip": -1}, "grad_clip is -1: expected a positive number"),
        ({"n_layers": 2**31}, "n_layers is 2147483648: expected at most"),
        ({"short_conv": -1}, "short_conv is -1: expected 0 or more"),
        ({"short_conv": 2**11}, "short_conv is 2048: expected at most 1024"),
        ({"n_test": 10**25}, "n_test is 10000000000000000000000000: expected at most"),
        ({"operator": 3}, "operator is 3: expected a text"),
        ({"task": None}, "task is None: expected a text"),
        ({"device": 3}, "device is 3: expected a text"),
        ({"dtype": 3}, "dtype is 3: expected a text"),
        ({"curriculum": 3}, "curriculum is 3: expected a text"),
        ({"operator_options": "order=2"}, "operator_options is 'order=2': expected a mapping"),
        ({"task_options": [1]}, r"task_options is \[1\]: expected a mapping"),
        ({"eval_seqlens": 64}, "eval_seqlens is 64: expected a list of lengths"),
        ({"task_options": {"seqlen": 3}}, "'seqlen' is not an option of the task: give it as"),
        ({"task_options": {"name": "x"}}, "a task has no parameter 'name'"),
        ({"task_options": {"self": "x"}}, "has no option 'self'"),
        ({"operator_options": {"name": "x"}}, "has no option 'name'"),
        ({"operator_options": {"filter_width": 0}}, "filter_width is 0: expected at least 1"),
        ({"operator_options": {"filter_layers": 2**31}}, "filter_layers is 2147483648"),
        ({"operator_options": {"sine_freq": "nan"}}, "is nan: expected a finite number"),
        ({"operator": "attention", "operator_options": {"n_heads": 3}}, "64 over 3 heads"),
        ({"operator": "attention", "operator_options": {"rotary_base": 0}}, "rotary_base is 0"),
        ({"operator": "retnet", "operator_options": {"chunk": 0}}, "chunk is 0: expected at"),
        (
            {"operator": "hybrid", "operator_options": {"attention.n_heads": 3}},
            "64 over 3 heads",
        ),
        ({"operator": "hybrid", "operator_options": {"hyena.chunk": 3}}, "no option 'chunk'"),
        ({"d_model": 2**16}, "d_model is 65536: expected at most 8192"),
        ({"n_layers": 128, "d_model": 4096}, "n_layers 128 x weights_a_layer"),
        ({"n_test": 2**24, "seqlen": 2**20}, "tokens to score: expected at most"),
        ({"vocab_size": 2**20, "seqlen": 2**14}, "logits of one sequence: expected at most"),
        ({"batch_size": 2**20, "seqlen": 2**14}, "tokens a step: expected at most"),
        ({"n_train": 2**28}, "tokens of a training set: expected at most"),
        ({"budget_tokens": 1000}, "less than one step, 64 sequences at seqlen 64: .* least 4224"),
    ],
)
def test_python_calls_are_checked_as_the_command_line_is(
    settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text) as got:
        config(**settings)
    assert "\n" not in str(got.value)


def test_what_resolves_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    config("gss", d_model=48)
    assert torch.equal(torch.rand(3), first)


def test_linear_attention_without_positions_is_still_sound() -> None:
    found = config("linear-attention", operator_options={"rotary_base": 0})
    assert found.operator_options["rotary_base"] == 0.0


def test_options_of_a_hybrids_parts_are_typed_by_them() -> None:
    one, two = (
        config("hybrid", operator_options={"hyena.filter_lr": value}) for value in (1, "1.0")
    )
    assert one.operator_options["hyena.filter_lr"] == 1.0
    assert one.cell_id == two.cell_id


@pytest.mark.usefixtures("clean_registry")
def test_tuples_and_what_a_component_keeps_are_no_trouble_to_a_configuration() -> None:
    @register_operator("tupled")
    class Tupled(torch.nn.Identity):
        def __init__(
            self, d_model: int, max_seqlen: int, *, sizes: tuple[int, ...] = (1, 2), act: Any = abs
        ) -> None:
            super().__init__()
            self.sizes = sizes

    @register_task("kept")
    @dataclasses.dataclass(frozen=True)
    class Kept(Recall):
        rates: tuple[float, float] = (0, 1)
        rule: Any = abs

    found = config("tupled", "kept", task_options={"rates": "0,0.5"})
    assert found.operator_options == {"sizes": [1, 2]}
    assert found.task_options == {"min_distance": 0, "rates": [0.0, 0.5]}
    assert Config.from_dict(found.to_dict()) == found
    assert config("tupled", "kept", operator_options={"sizes": "1,2"}).operator_options == {
        "sizes": [1, 2]
    }
    built = make_operator("tupled", d_model=4, max_seqlen=8, **found.operator_options)
    assert built.sizes == (1, 2)
    rebuilt: Any = task_of(found)
    assert (rebuilt.rates, rebuilt.rule) == ((0.0, 0.5), abs)
    with pytest.raises(ConfigError, match="option 'act' of operator 'tupled' cannot be set"):
        config("tupled", operator_options={"act": "relu"})


# What results of the first protocol-2 versions mean: {operator: (options that say so, cell id)}.
BEFORE: dict[str, tuple[dict[str, Any], str]] = {
    "retnet": ({"decays": "consecutive"}, "60bfffef400f4b0f"),
    "h3": ({"variant": "plain"}, "403504008fea3d1c"),
    "linear-attention": ({"eps": 0}, "7160a225efc5d513"),
    "gated-deltanet": ({"min_rate": 1}, "eb3ee1e8405de2f4"),
    "gss": ({"variant": "small", "d_state": 64}, "5694c1d1a65eefcb"),
    "rwkv": ({}, "b3037055de34e4ab"),
    "mamba2": ({}, "ccc75fea67466348"),
    "deltanet": ({}, "50401a3bc99c6409"),
    "deltaproduct": ({}, "395a884895b3de17"),
    "hyena": ({"variant": "gate-first", "window_shift": 0}, "238f6cac07c5b463"),
    "attention": ({}, "96c202d4078b2b45"),
    "hybrid": (
        {"pattern": "hyena,retnet", "hyena.window_shift": 0, "retnet.decays": "consecutive"},
        "8810c1453129faba",
    ),
}  # fmt: skip


@pytest.mark.parametrize("operator", BEFORE)
def test_what_older_results_mean_keeps_its_id_and_its_model(operator: str) -> None:
    options, cell_id = BEFORE[operator]
    stored = config(operator, operator_options=options, d_model=16)
    then = config(operator, operator_options=options)
    then = dataclasses.replace(then, protocol=2, schedule="cosine", loss_on="dense")
    assert then.cell_id == cell_id
    for key in set(implied_options(operator, stored.operator_options)):
        assert key not in stored.operator_options
    torch.manual_seed(0)
    model = build_model(stored, 64)
    torch.manual_seed(0)
    direct = make_operator(operator, d_model=16, max_seqlen=64, **options)
    first = {key: x.shape for key, x in model.blocks[0].operator.state_dict().items()}
    assert first == {key: x.shape for key, x in direct.state_dict().items()}
    if operator in ("retnet", "hybrid"):
        retnet = model.blocks[-1].operator
        assert retnet.log_gamma.exp().flatten()[0].item() == pytest.approx(31 / 32)
    if operator == "linear-attention":
        assert model.blocks[0].operator.eps == 0


@pytest.mark.parametrize("operator", ["retnet", "h3", "linear-attention", "gated-deltanet", "gss"])
def test_a_new_default_is_another_cell_that_says_so(operator: str) -> None:
    new = config(operator)
    assert new.cell_id != BEFORE[operator][1]
    assert set(BEFORE[operator][0]) <= set(new.operator_options)
    assert Config.from_dict(new.to_dict()).cell_id == new.cell_id


def test_a_hybrid_says_that_its_hyena_has_the_window_of_now() -> None:
    assert config("hybrid").operator_options["hyena.window_shift"] == 1
    older = config("hybrid", operator_options={"hyena.window_shift": 0})
    assert "hyena.window_shift" not in older.operator_options
    layers = build_model(older, 64).blocks
    assert layers[0].operator.filter.shift == 0


def test_a_curriculum_that_cannot_reach_full_length_is_refused() -> None:
    text = (
        "budget_tokens is 200000: the curriculum goes through seqlen 128, 512 first and cannot "
        "reach 2048: expected at least 1161600, or curriculum 'none'"
    )
    with pytest.raises(ConfigError) as got:
        config("attention", seqlen=2048, budget_tokens=200_000)
    assert str(got.value) == text
    assert config("attention", seqlen=2048, budget_tokens=1_161_600).budget_tokens == 1_161_600
    config("attention", seqlen=2048, budget_tokens=200_000, curriculum="none")


def test_the_budget_is_no_part_of_a_cell_and_the_schedule_is() -> None:
    one, two = (config("attention", budget_tokens=n) for n in (10_000, 20_000))
    assert one.cell_id == two.cell_id
    assert one != two
    assert config("attention").schedule == SCHEDULE
    others = {config("attention", schedule=name).cell_id for name in SCHEDULES}
    assert len(others) == len(SCHEDULES)
    assert one.cell_id in others
    with pytest.raises(ConfigError, match="schedule is 'cosine': it would depend on the budget"):
        config("attention", schedule="cosine")
    with pytest.raises(ConfigError, match="schedule is 'wsb': did you mean 'wsd'"):
        config("attention", schedule="wsb")
