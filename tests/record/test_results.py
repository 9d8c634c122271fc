from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechbench.errors import ConfigError, ResultError
from mechbench.record.config import Config
from mechbench.record.results import (
    RETRIED,
    Result,
    answers,
    find_results,
    read_config,
    read_json,
    read_or_set_aside,
    read_result,
    wilson_interval,
    write_json,
    write_json_once,
)

Z = 1.959964


def evaluation(seqlen: int, accuracy: float = 0.5) -> dict[str, Any]:
    return {
        "seqlen": seqlen, "n": 100, "correct": round(100 * accuracy), "accuracy": accuracy,
        "ci_low": 0.0, "ci_high": 1.0, "dense_n": 100, "dense_accuracy": accuracy,
        "shortcuts": {"last": 0.1}, "required_context": {"16": 0.5},
    }  # fmt: skip


def stored(root: Path, name: str = "one", **changes: Any) -> Path:
    config = Config(
        changes.pop("operator", "hyena"),
        "recall",
        budget_tokens=10,
        seed=changes.pop("seed", 0),
        lr=3e-3,
    )
    data = {
        "schema_version": 1,
        "cell_id": config.cell_id,
        "status": "ok",
        "reason": None,
        "config": config.to_dict(),
        "chance": 0.1,
        "evaluations": [evaluation(64), evaluation(128, 0.25)],
        "seconds": {"train": 1.5, "total": 2.0},
        "provenance": {"device": "CPU", "torch": "2", "date": "today", "command": "x"},
    }
    path = root / name / "result.json"
    path.parent.mkdir(parents=True)
    write_json(path, data | changes)
    return path


@pytest.mark.parametrize(
    ("correct", "n", "expected"),
    [
        (8, 10, (0.4901625, 0.9433178)),
        (0, 10, (0.0, 0.2775328)),
        (10, 10, (0.7224672, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_interval_of_known_values(
    correct: int, n: int, expected: tuple[float, float]
) -> None:
    assert wilson_interval(correct, n) == pytest.approx(expected, abs=1e-6)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_ends_where_the_score_test_does(counts: tuple[int, int]) -> None:
    correct, n = counts
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= high <= 1
    # |p - x| = z sqrt(x (1 - x) / n), as a quadratic in x
    p = correct / n
    a, b, c = 1 + Z * Z / n, -(2 * p + Z * Z / n), p * p
    root = math.sqrt(b * b - 4 * a * c)
    assert (low, high) == pytest.approx(((-b - root) / (2 * a), (-b + root) / (2 * a)), abs=1e-9)


def test_round_trip(tmp_path: Path) -> None:
    path = stored(tmp_path)
    result = read_result(path)
    assert result.path == path
    assert result.data == json.loads(path.read_text())
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is corrupt"),
        ('{"status": "o', "is corrupt"),
        ("\udcff", "is corrupt"),  # no UTF-8
        ("[1]", "is no result of schema version 1"),
        ('{"schema_version": 2}', "is no result of schema version 1"),
        ('{"schema_version": 1, "status": "ok"}', "is damaged: cell_id is missing"),
        ('{"schema_version": NaN}', "is corrupt: Out of range float values"),
        ('{"schema_version": 1e999}', "is corrupt: Out of range float values"),
        ('{"schema_version": 1, "reason": "\\ud800"}', "is corrupt: 'utf-8' codec can't encode"),
        (
            '{"schema_version": 1, "a": {"b": 1, "b": 2}}',
            "is corrupt: field 'b' is given twice",
        ),
        ("[" * 100_000, "is corrupt: it is nested too deeply"),
        ('{"schema_version": ' + "9" * 5000 + "}", "is corrupt: Exceeds the limit"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ResultError, match=f"{path} {message}") as got:
        read_result(path)
    assert "\n" not in str(got.value)


def test_unknown_status_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="status is 'fine': expected 'ok', 'diverged'"):
        read_result(stored(tmp_path, status="fine"))


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(ResultError, match="is corrupt: expected a file"):
        read_json(tmp_path / "result.json")


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "result.json").open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(ResultError, match="is corrupt: it is larger than 64 MiB"):
        read_json(tmp_path / "result.json")


def test_result_of_another_cell_is_not_taken(tmp_path: Path) -> None:
    path = stored(tmp_path)
    known = read_result(path).cell_id
    assert read_result(path, known).cell_id == known
    with pytest.raises(ResultError, match=f"is of cell {known}: expected 00"):
        read_result(path, "00")
    assert "set aside as result.json.corrupt-1" in str(read_or_set_aside(path, "00")[1])


def test_configuration_is_read_with_its_types(tmp_path: Path) -> None:
    config = Config(
        "hyena", "recall", budget_tokens=10, eval_seqlens=(64,), curriculum=((8, 4), (16, 2))
    )
    path = tmp_path / "config.json"
    write_json(path, config.to_dict())
    assert read_config(path) == config
    for changes, text in (
        ({"seqlen": "64"}, "seqlen is '64': expected a valid integer"),
        ({"curriculum": [[8]]}, r"curriculum\[0\]\[1\] is missing"),
        ({"plugins": 3}, "plugins is 3: expected an object"),
        ({"batch_size": 0}, "batch_size is 0: expected at least 1"),
        ({"colour": 0}, "does not fit this version"),
    ):
        write_json(path, config.to_dict() | changes)
        with pytest.raises(ResultError, match=f"{path} is damaged: .*{text}"):
            read_config(path)
    path.write_text("[]")
    with pytest.raises(ResultError, match=r"it is \[\]: expected an object"):
        read_config(path)


def test_absent_file_is_a_result_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="No such file"):
        read_result(tmp_path / "result.json")


def test_corrupt_file_is_set_aside_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert read_or_set_aside(path) == (None, None)
    path.write_text("{")
    result, warning = read_or_set_aside(path)
    assert result is None
    assert str(warning).startswith(f"{path} is corrupt: ")
    assert str(warning).endswith("; set aside as result.json.corrupt-1")
    assert os.listdir(tmp_path) == ["result.json.corrupt-1"]
    whole, warning = read_or_set_aside(stored(tmp_path))
    assert (whole.status, warning) == ("ok", None)


def test_fields_are_attributes_and_read_only(tmp_path: Path) -> None:
    result = read_result(stored(tmp_path))
    assert result.status == "ok"
    assert result.chance == 0.1
    with pytest.raises(AttributeError, match="result has no field 'colour'"):
        _ = result.colour
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.status = "error"


def test_result_may_be_copied_and_sent_to_another_process(tmp_path: Path) -> None:
    result = read_result(stored(tmp_path))
    assert copy.deepcopy(result) == result
    assert pickle.loads(pickle.dumps(result)) == result


def test_accuracy_is_that_of_the_trained_length_unless_another_is_asked_for(
    tmp_path: Path,
) -> None:
    result = read_result(stored(tmp_path))
    assert (result.accuracy(), result.accuracy(64), result.accuracy(128)) == (0.5, 0.5, 0.25)
    with pytest.raises(ResultError, match=r"no evaluation at seqlen 32: there are \[64, 128\]"):
        result.accuracy(32)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_written(tmp_path: Path, value: float) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": value})
    assert not path.exists()


def test_results_are_found_at_any_depth_once(tmp_path: Path) -> None:
    deep, flat = stored(tmp_path, "b/c/d"), stored(tmp_path, "a")
    (tmp_path / "a" / "config.json").write_text("{}")
    assert find_results(tmp_path, flat, str(tmp_path / "b")) == [flat, deep]


def test_files_of_several_names_are_found(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("result.json", "results.csv", "results.txt")]
    for file in files:
        file.write_text("")
    assert find_results(tmp_path, names=("result.json", "results.csv")) == files[:2]
    with pytest.raises(ResultError, match="no a or b below"):
        find_results(tmp_path, names=("a", "b"))


def test_nothing_to_find_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="absent does not exist"):
        find_results(tmp_path / "absent")
    with pytest.raises(ResultError, match=f"no result.json below {tmp_path}"):
        find_results(tmp_path)


def test_attribute_access_does_not_hide_the_fields_of_the_class(tmp_path: Path) -> None:
    result = Result(tmp_path, {"path": "mine", "status": "ok"})
    assert result.path == tmp_path


@pytest.mark.parametrize("path", [None, 3, b"runs", ["runs"]])
def test_results_lie_below_paths(path: Any) -> None:
    with pytest.raises(ConfigError, match=r"^path is .*: expected a path$"):
        find_results(path)


def test_a_file_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_json_once(path, {"a": 1})
    first = path.stat()
    write_json_once(path, {"a": 1})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    write_json_once(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    path.write_text("{")
    write_json_once(path, {"a": 2})
    assert read_json(path) == {"a": 2}


def test_a_result_answers_for_budgets_up_to_its_own_and_for_all_once_it_is_decided() -> None:
    data = {"status": "ok", "solved": False, "config": {"budget_tokens": 100}}
    assert [answers(data, budget) for budget in (50, 100, 101)] == [True, True, False]
    assert answers({**data, "solved": True}, 101)
    assert answers({**data, "status": "diverged"}, 101)
    for status in RETRIED:
        assert not answers({**data, "status": status}, 50)


def test_a_result_shows_in_two_lines_what_came_of_it(tmp_path: Path) -> None:
    path = stored(tmp_path)
    first, second = repr(read_result(path)).splitlines()
    assert first.startswith("Result(hyena on recall, seqlen 64, vocab_size 20, seed 0: accuracy 50")
    assert second == f"       {path})"
    failed = stored(tmp_path, "two", status="error", reason="x", evaluations=[])
    assert "seed 0: error, failed after 0 tokens;" in repr(read_result(failed))
