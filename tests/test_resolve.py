from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from mechbench.errors import ConfigError, SeqlenError
from mechbench.registry import load_plugin
from mechbench.resolve import check_without_torch, resolve, task_of
from mechbench.spec import Config
from mechbench.tasks.recall import Recall


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
    assert found.batch_size == found.curriculum[-1][1] == 32
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
