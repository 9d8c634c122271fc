from __future__ import annotations

import json
from pathlib import Path

import pytest

from mechbench.errors import ResultError
from mechbench.report.watch import curve, picture, read_runs

METRICS = """step,tokens,seqlen,loss,train_accuracy,validation_accuracy
5,100,64,2.5,0.1,
10,200,64,1.25,0.9,0.875
"""


CONFIG = json.dumps(
    {"operator": "x", "task": "recall", "seqlen": 64, "seed": 1, "budget_tokens": 400}
)


def run(root: Path, operator: str, metrics: str | None, status: str | None = None) -> None:
    folder = root / operator
    folder.mkdir(parents=True)
    config = {
        "operator": operator, "task": "recall", "seqlen": 64, "seed": 1, "budget_tokens": 400,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    if metrics is not None:
        (folder / "metrics.csv").write_text(metrics)
    if status is not None:
        (folder / "result.json").write_text(json.dumps({"status": status}))


def test_runs_are_shown_with_their_curves(tmp_path: Path) -> None:
    run(tmp_path, "hyena", METRICS)
    run(tmp_path, "attention", METRICS, "ok")
    run(tmp_path, "h3", None)
    lines = {line.split()[0]: line.split() for line in picture(read_runs(tmp_path)[0]).splitlines()}
    assert lines["hyena"] == [
        "hyena", "recall", "64", "seed", "1", "10", "50%", "1.250", "90.0%", "87.5%", "training",
        "▁█",
    ]  # fmt: skip
    assert lines["attention"][-2:] == ["ok", "▁█"]
    assert lines["h3"][5:] == ["-"] * 5 + ["training"]


@pytest.mark.parametrize(
    ("name", "text", "warning"),
    [
        ("config.json", "{", "broken/config.json is corrupt: "),
        ("config.json", "[" * 100_000, "broken/config.json is corrupt: it is nested too deeply"),
        ("config.json", "[]", "broken/config.json is damaged: operator is None: expected str"),
        ("config.json", '{"operator": ["x"]}', "operator is ['x']: expected str"),
        ("config.json", CONFIG.replace("400", '"400"'), "budget_tokens is '400': expected int"),
        ("config.json", CONFIG.replace("400", "0"), "budget_tokens is 0: expected 1 or more"),
        ("result.json", '{"status": ["ok"]}', "result.json is damaged: status is ['ok']"),
        ("result.json", '{"status": "fine"}', "result.json is damaged: status is 'fine'"),
        ("result.json", "[1]", "result.json is damaged: status is None"),
        ("metrics.csv", METRICS.replace("1.25", "x"), "broken/metrics.csv is damaged: ValueError"),
        ("metrics.csv", METRICS.replace("0.9", "nan"), "accuracy is nan: expected 0 to 1"),
        ("metrics.csv", METRICS.replace("0.9", "1e300"), "accuracy is 1e300: expected 0 to 1"),
        ("metrics.csv", METRICS.replace("200", "2" * 400), "metrics.csv is damaged: ValueError"),
        ("metrics.csv", METRICS + "5,1", "metrics.csv is damaged: TypeError"),
        ("metrics.csv", METRICS.replace("loss", "lost"), "metrics.csv is damaged: KeyError"),
        ("metrics.csv", METRICS + "1" * 5000, "metrics.csv is damaged: ValueError"),
        ("metrics.csv", METRICS + '"' + "x" * 200_000, "metrics.csv is damaged: Error"),
        ("metrics.csv", METRICS + "\udcff", "metrics.csv is damaged: UnicodeDecodeError"),
    ],
)
def test_a_damaged_run_is_left_out_with_a_warning(
    tmp_path: Path, name: str, text: str, warning: str
) -> None:
    run(tmp_path, "hyena", METRICS)
    run(tmp_path, "broken", METRICS)
    (tmp_path / "broken" / name).write_bytes(text.encode(errors="surrogateescape"))
    runs, (line,) = read_runs(tmp_path)
    assert [r.name for r in runs] == ["hyena recall 64 seed 1"]
    assert line.startswith("skipped: broken/")
    assert warning in line
    assert str(tmp_path) not in line
    assert line.isprintable()
    (tmp_path / "hyena" / "config.json").unlink()
    with pytest.raises(ResultError, match="skipped: broken/"):
        read_runs(tmp_path)


def test_a_diverged_loss_and_a_vast_one_are_shown(tmp_path: Path) -> None:
    run(tmp_path, "hyena", METRICS.replace("1.25", "nan"))
    run(tmp_path, "h3", METRICS.replace("1.25", "1e300"))
    run(tmp_path, "x\x1b[2J" + 200 * "y", METRICS)
    text = picture(read_runs(tmp_path)[0])
    assert " nan " in text
    assert " 1e+300 " in text
    assert "x\\x1b[2Jyyy" in text
    assert max(map(len, text.splitlines())) < 200


def test_nothing_to_watch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no run below"):
        read_runs(tmp_path)
    with pytest.raises(ResultError, match="does not exist"):
        read_runs(tmp_path / "absent")


def test_curves_fit_their_width() -> None:
    assert curve([0.0, 0.5, 1.0], 8) == "▁▅█"
    assert curve([i / 99 for i in range(100)], 8) == "▁▂▃▄▅▆▇█"
