from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mechbench.errors import ConfigError
from mechbench.record.config import Config
from mechbench.report.rows import NAN, age, identity, rows_of

Make = Callable[..., dict[str, Any]]


def test_seeds_share_an_identity_and_nothing_else_does() -> None:
    base = Config("hyena", "recall", budget_tokens=1, plugins={"a.py": "12"})
    same = [
        Config("hyena", "recall", budget_tokens=1, plugins={"/else/a.py": "12"}, seed=5),
        Config("hyena", "recall", budget_tokens=1, plugins={"a.py": "12"}, eval_seqlens=(1, 2)),
        Config("hyena", "recall", budget_tokens=1, plugins={"a.py": "12"}, allow_noncausal=True),
    ]
    other = [
        Config("hyena", "recall", budget_tokens=2, plugins={"a.py": "12"}),
        Config("hyena", "recall", budget_tokens=1, plugins={"a.py": "13"}),
        Config("hyena", "recall", budget_tokens=1, plugins={"a.py": "12"}, lr=1.0),
        Config("hyena", "recall", budget_tokens=1, plugins={"a.py": "12"}, max_seqlen=128),
        Config("hyena", "recall", budget_tokens=1, plugins={"a.py": "12"}, sources={"fla": "1"}),
    ]
    assert {identity(config) for config in same} == {identity(base)}
    assert len({identity(config) for config in (base, *other)}) == 6


def test_a_result_has_a_row_at_every_length_asked_for_or_scored(make: Make) -> None:
    data = make({64: 0.5, 128: 0.25}, seqlen=64)
    rows = rows_of(data)
    assert [(row.eval_seqlen, row.accuracy) for row in rows] == [(64, 0.5), (128, 0.25)]
    data["evaluations"] = data["evaluations"][:1]
    missing = {row.eval_seqlen: row for row in rows_of(data)}
    assert missing[64].accuracy == 0.5
    assert all(row.accuracy is None for length, row in missing.items() if length != 64)
    with pytest.raises(ConfigError):
        rows_of(data | {"config": {**data["config"], "seqlen": "long"}})


def test_outputs_that_are_not_finite_are_no_accuracy(make: Make) -> None:
    data = make({64: 0.5})
    data["evaluations"][0]["non_finite"] = 3
    (row,) = rows_of(data)
    assert (row.status, row.outcome, row.non_finite, row.accuracy) == ("ok", NAN, 3, None)
    (row,) = rows_of(make({64: 0.5}) | {"status": "diverged"})
    assert (row.outcome, row.accuracy) == ("diverged", None)


def test_results_are_sorted_by_date_then_by_whether_they_ended_well(make: Make) -> None:
    first, later = (
        make() | {"provenance": {"date": date}} for date in ("2026-01-01", "2026-01-02")
    )
    refused = first | {"status": "error"}
    assert sorted((later, first, refused), key=age) == [refused, first, later]
