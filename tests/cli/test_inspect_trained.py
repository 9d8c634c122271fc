from __future__ import annotations

from pathlib import Path

import pytest

import mechbench
from cli.conftest import call


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = mechbench.run(
        "hyena",
        "recall",
        seqlen=8,
        vocab_size=8,
        d_model=8,
        budget_tokens=1000,
        n_validation=16,
        n_test=16,
        device="cpu",
        out=tmp_path_factory.mktemp("runs"),
        quiet=True,
    )
    return result.path.parent


def test_matrix_filters_and_reach_of_a_run_are_drawn(
    stored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        call(monkeypatch, "inspect", "--run", str(stored), "--layer", "1", "--out", str(tmp_path))
        == 0
    )
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == [
        f"{stem}.{kind}"
        for stem in ("mixing_matrix", "filters", "gradient_reach")
        for kind in ("png", "svg")
    ]
    for name in names:
        assert (tmp_path / name).stat().st_size > 1000


def test_trained_and_fresh_look_different(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, "inspect", "--run", str(stored), "--out", str(tmp_path / "one")) == 0
    fresh = ("--operator", "hyena", "--seqlen", "10", "--d-model", "8")
    assert call(monkeypatch, "inspect", *fresh, "--out", str(tmp_path / "two")) == 0
    one, two = (tmp_path / name / "filters.png" for name in ("one", "two"))
    assert one.read_bytes() != two.read_bytes()


def test_energy_of_filters_is_drawn_instead(
    stored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = ("--run", str(stored), "--run", str(stored))
    assert call(monkeypatch, "inspect", "--energy", *runs, "--out", str(tmp_path / "new")) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == [tmp_path / "new" / f"filter_energy.{kind}" for kind in ("png", "svg")]
    assert sorted(printed) == sorted((tmp_path / "new").iterdir())


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "Missing option '--operator'."),
        (("--run", "nowhere"), "config.json does not exist"),
        (("--run", "x", "--operator", "hyena"), "--operator is set by the configuration of --run"),
        (("--run", "x", "--d-model", "8"), "--d-model is set by the configuration of --run"),
        (("--run", "x", "--option", "order=3"), "--option is set by the configuration of --run"),
        (("--operator", "hyena", "--layer", "1"), "--layer chooses a block of a trained model"),
        (("--run", "x", "--run", "y"), "Several runs beside each other: only with --energy"),
        (("--energy", "--operator", "hyena"), "--energy draws filters of trained models: it needs"),
        (("--energy", "--run", "x", "--layer", "1"), "--layer has no effect on --energy"),
        (("--energy", "--run", "x", "--seqlen", "8"), "--seqlen has no effect on --energy"),
        (("--energy", "--run", "nowhere"), "config.json does not exist"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    args: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "inspect", *args) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
