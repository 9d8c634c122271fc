from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechbench.errors import ConfigError
from mechbench.record.config import (
    ADDED,
    PROTOCOL,
    TUNING_SEED,
    Config,
    canonical_json,
    default_batch_size,
    default_budget_tokens,
    default_examples,
    tunes,
)
from mechbench.report.results_csv import read_rows

# Every field is given, so that a new default does not touch the golden value.
BASE = Config(
    "hyena",
    "recall",
    operator_options={"order": 2, "filter_lr": None},
    task_options={"min_distance": 0},
    task_version=1,
    seqlen=256,
    vocab_size=20,
    eval_seqlens=(64, 128),
    d_model=64,
    n_layers=2,
    short_conv=0,
    lr=4e-3,
    weight_decay=0.1,
    warmup_steps=50,
    grad_clip=1.0,
    batch_size=128,
    curriculum=((64, 128), (256, 64)),
    budget_tokens=1000,
    seed=0,
    dtype="float32",
    device_type="cpu",
    loss_on="dense",
    n_train=0,
    n_validation=512,
    n_test=2048,
    validate_every=25,
    allow_noncausal=False,
    plugins={"mine.py": "ab12"},
    schedule="averaged",
    protocol=3,
)
FIELDS = [field.name for field in dataclasses.fields(Config)]


def other_value(name: str) -> Any:
    value = getattr(BASE, name)
    if name == "loss_on":
        return "scored"
    if name == "schedule":
        return "wsd"
    if name == "n_train":
        return 12_800  # at least a batch
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 1
    if isinstance(value, dict):
        return {**value, "another": "1"}
    return value[:-1] if isinstance(value, tuple) else value + "x"


def test_cell_id_is_golden() -> None:
    # It names every stored result. Changing a field of Config changes it: that is meant, but then
    # results of before are not found again.
    assert BASE.cell_id == "43a6b0b98656e466"


@pytest.mark.parametrize("name", FIELDS)
def test_cell_id_changes_with_every_field_but_the_budget(name: str) -> None:
    other = dataclasses.replace(BASE, **{name: other_value(name)})
    assert (other.cell_id == BASE.cell_id) == (name == "budget_tokens")


def test_under_protocol_2_the_budget_decided_and_there_was_one_schedule() -> None:
    before = dataclasses.replace(BASE, protocol=2, schedule="cosine")
    assert before.cell_id == "cebfa0f7c22ca5c2"
    assert dataclasses.replace(before, budget_tokens=2000).cell_id != before.cell_id
    stored = before.to_dict()
    del stored["schedule"]
    assert Config.from_dict(stored) == before
    with pytest.raises(ConfigError, match="schedule is 'cosine'"):
        Config.from_dict({**stored, "protocol": 3})


def test_cell_id_does_not_depend_on_the_order_of_options() -> None:
    swapped = dict(reversed(BASE.operator_options.items()))
    assert list(swapped) != list(BASE.operator_options)
    assert dataclasses.replace(BASE, operator_options=swapped).cell_id == BASE.cell_id


def test_plugin_counts_by_its_content_not_by_its_path() -> None:
    moved = dataclasses.replace(BASE, plugins={"/else/where.py": "ab12"})
    edited = dataclasses.replace(BASE, plugins={"mine.py": "cd34"})
    assert moved.cell_id == BASE.cell_id
    assert edited.cell_id != BASE.cell_id


def test_round_trip_through_json() -> None:
    data = json.loads(json.dumps(BASE.to_dict()))
    again = Config.from_dict(data)
    assert again == BASE
    assert again.cell_id == BASE.cell_id


def test_stored_configuration_that_lacks_a_field_is_refused() -> None:
    accepted = []
    for name in FIELDS:
        data = BASE.to_dict()
        del data[name]
        try:
            Config.from_dict(data)
        except ConfigError:
            continue
        accepted.append(name)
    # Today's default would stand for what the run really had; those are what it had.
    assert sorted([*accepted, "schedule"]) == sorted(ADDED)  # a schedule only before protocol 3


@pytest.mark.parametrize("change", [{"colour": 1}, {"eval_seqlens": 3}, {"curriculum": [64]}])
def test_stored_configuration_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="stored configuration does not fit"):
        Config.from_dict(BASE.to_dict() | change)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((n, 0) for n in ("d_model", "n_layers", "batch_size", "budget_tokens", "n_test")),
        *(("lr", v) for v in (0.0, -1e-3, float("inf"), float("nan"))),
    ],
)
def test_values_out_of_range_raise(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}: expected"):
        dataclasses.replace(BASE, **{name: value})


def test_configuration_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.lr = 1.0


def test_canonical_json_is_one_text() -> None:
    assert canonical_json({"b": (1, 2), "a": None}) == '{"a":null,"b":[1,2]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_option_that_is_no_number_is_an_error_of_the_user(value: float) -> None:
    with pytest.raises(ConfigError):
        _ = dataclasses.replace(BASE, operator_options={"rate": value}).cell_id


def test_default_batch_size_keeps_many_sequences_and_is_the_papers_at_its_length() -> None:
    found = [default_batch_size(1 << i) for i in range(5, 22)]
    assert found == sorted(found, reverse=True)
    assert 64 <= found[0] <= 128
    assert default_batch_size(131072) == found[-1] == 32


def test_default_budget_is_a_number_of_steps() -> None:
    steps = default_budget_tokens(1, 1)
    assert 1000 <= steps <= 5000
    assert default_budget_tokens(128, 66) == steps * 128 * 66


def test_default_examples_shrink_with_the_length_to_a_floor() -> None:
    found = {n: default_examples(n) for n in (64, 16384, 32768, 131072, 1 << 20)}
    assert found == {
        64: (512, 2048),
        16384: (512, 2048),
        32768: (256, 1024),
        131072: (128, 256),
        1 << 20: (128, 256),
    }


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("seed", np.int64(0)),
        ("lr", np.float64(4e-3)),
        ("lr", torch.tensor(4e-3, dtype=torch.float64)),
        ("budget_tokens", 1e3),
        ("seqlen", 256.0),
        ("eval_seqlens", [64, 128]),
        ("curriculum", [[64, 128], [256.0, 64]]),
        ("operator_options", {"order": np.int64(2), "filter_lr": None}),
    ],
)
def test_what_means_the_same_is_the_same_cell(name: str, given: Any) -> None:
    found = dataclasses.replace(BASE, **{name: given})
    assert found == BASE
    assert found.cell_id == BASE.cell_id
    assert repr(found) == repr(BASE)


def test_tuples_among_the_options_are_lists() -> None:
    a, b = (dataclasses.replace(BASE, operator_options={"x": v}) for v in ((1, 2), [1, 2]))
    assert a == b
    assert a.cell_id == b.cell_id


def test_committed_results_keep_their_names() -> None:
    boards = sorted((Path(__file__).parents[2] / "leaderboards").glob("*/results.csv"))
    rows = [row for board in boards for row in read_rows(board)]
    assert len(rows) > 1000
    assert all(row.config.cell_id == row.data["cell_id"] for row in rows)


def test_seeds_that_choose_rates_are_known_by_their_number() -> None:
    for seed, protocol, expected in (
        (TUNING_SEED, PROTOCOL, True), (TUNING_SEED - 1, PROTOCOL, False),
        (TUNING_SEED + 5, 2, False), (2**62, PROTOCOL, True),
    ):  # fmt: skip
        config = dataclasses.replace(BASE, seed=seed, protocol=protocol)
        assert config.tunes == tunes(seed, protocol) == expected


def test_a_cell_of_another_rate_and_seed_is_as_if_made_anew() -> None:
    options = {"operator_options": {"order": 3}, "curriculum": ((16, 4), (64, 4))}
    config = Config("hyena", "recall", budget_tokens=1000, lr=4e-3, **options)
    made = config.varied(2e-3, 7)
    assert made == dataclasses.replace(config, lr=2e-3, seed=7)
    assert made.cell_id == dataclasses.replace(config, lr=2e-3, seed=7).cell_id != config.cell_id
    assert (config.lr, config.seed) == (4e-3, 0)
