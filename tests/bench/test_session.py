from __future__ import annotations

from pathlib import Path

import pytest

from bench.records import measured
from mechbench.bench import session
from mechbench.bench.record import Line, Rates, Reading, Setting
from mechbench.bench.session import lines_of, run_bench
from mechbench.catalogue.registry import register_filter
from mechbench.errors import ConfigError
from mechbench.filters.explicit import ExplicitFilter

SETTING = Setting(8, 256, "cpu", "float32", 2)


def test_an_option_goes_to_those_that_take_it() -> None:
    hyena, attention = lines_of(["hyena", "attention"], {"n_heads": "2"}, fft_conv=False)
    assert attention.options["n_heads"] == 2
    assert "n_heads" not in hyena.options
    assert hyena.options["order"] == 2  # the default is on record too


@pytest.mark.usefixtures("clean_registry")
def test_options_of_a_chosen_component_are_taken_too() -> None:
    @register_filter("mine")
    class Mine(ExplicitFilter):
        def __init__(
            self, n_filters: int, d_model: int, max_seqlen: int, *, rate: float = 1.0
        ) -> None:
            super().__init__(n_filters, d_model, max_seqlen)

    given = {"filter": "mine", "rate": "2"}
    hyena, _ = lines_of(["hyena", "attention"], given, fft_conv=False)
    assert (hyena.options["filter"], hyena.options["rate"]) == ("mine", 2.0)
    with pytest.raises(ConfigError, match="none of hyena has an option 'rate'"):
        lines_of(["hyena"], {"rate": "2"}, fft_conv=False)


def test_every_backend_of_fft_conv_is_a_line() -> None:
    lines = lines_of([], {}, fft_conv=True)
    assert "fft_conv/torch" in {line.name for line in lines}
    assert {f"fft_conv/{line.conv_backend}" for line in lines} == {line.name for line in lines}


@pytest.mark.parametrize(
    ("operators", "given", "says"),
    [
        ([], {"order": "3"}, "none of fft_conv has an option 'order'"),
        (["hyna"], {}, "did you mean 'hyena'"),
        (["hyena", "attention"], {"ordre": "3"}, "none of hyena, attention has an option 'ordre'"),
        (["hyena"], {"order": "three"}, "expected a whole number"),
    ],
)
def test_wrong_use(operators: list[str], given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        lines_of(operators, given, fft_conv=False)


@pytest.fixture
def _no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "machine_rates", lambda device, dtype: Rates(1.0, 1.0))


@pytest.mark.usefixtures("_no_rates")
def test_after_out_of_memory_the_longer_ones_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading_of(line: Line, seqlen: int, setting: Setting) -> Reading:
        if line.name == "b" and seqlen >= 128:
            return Reading("b", seqlen, setting.batch(seqlen), "out of memory", "too large")
        return Reading(line.name, seqlen, setting.batch(seqlen), "ok", "", "", measured(1.0, None))

    monkeypatch.setattr(session, "take_reading", reading_of)
    record, files = run_bench([Line("a"), Line("b")], [256, 64, 128, 512, 64], SETTING, tmp_path)
    assert [reading.outcome for reading in record.of("b").values()] == [
        "ok", "out of memory", "not run: out of memory at 128", "not run: out of memory at 128",
    ]  # fmt: skip
    assert [reading.status for reading in record.of("a").values()] == ["ok"] * 4
    assert sorted(tmp_path.iterdir()) == sorted(files)


@pytest.mark.usefixtures("_no_rates")
def test_interrupted_bench_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading_of(line: Line, seqlen: int, setting: Setting) -> Reading:
        if seqlen > 64:
            assert len((tmp_path / "bench.csv").read_text().splitlines()) == 2
            raise KeyboardInterrupt
        return Reading(line.name, seqlen, 4, "ok", "", "", measured(1.0, None))

    monkeypatch.setattr(session, "take_reading", reading_of)
    with pytest.raises(KeyboardInterrupt):
        run_bench([Line("a")], [64, 128], SETTING, tmp_path)
    suffixes = sorted(path.suffix for path in tmp_path.iterdir())
    assert suffixes == [".csv", ".json", ".md", ".png", ".svg"]
