from __future__ import annotations

import csv
import io
import json

import pytest

from bench.records import SEQLENS, record
from mechbench.bench.table import flat, summary, to_csv, to_json, to_markdown


def test_csv_has_a_line_a_cell_with_what_follows_from_the_figures() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(record()))))
    assert len(rows) == 4 * len(SEQLENS)
    first = rows[0]
    assert (first["line"], first["seqlen"], first["batch"]) == ("hyena", "1024", "8")
    assert (first["forward_ms"], first["forward_backward_ms"]) == ("2.0", "8.0")
    assert float(first["forward_bandwidth_fraction"]) == pytest.approx(0.5)  # 1 GB in 2 ms
    assert float(first["forward_flops_fraction"]) == pytest.approx(0.5)
    assert first["forward_backward_flops_fraction"] == ""  # not counted
    assert float(first["forward_backward_speedup"]) == pytest.approx(2 / 8)
    assert (first["device"], first["torch"]) == ("a GPU", "2.9")


def test_what_was_not_measured_has_its_status_and_no_figure() -> None:
    made = record()
    (reading,) = [r for r in made.readings if r.status == "out of memory"]
    line = flat(made, reading)
    assert (line["seqlen"], line["batch"]) == (2048, 4)
    assert {line[k] for k in ("forward_ms", "forward_backward_speedup", "peak_memory_mib")} == {
        None
    }


def test_summary_is_against_attention_and_per_sequence() -> None:
    made = record()
    hyena = summary(made, "hyena")
    assert hyena["crossover"] == "4096"
    assert hyena["time_exponent"] == pytest.approx(1)  # the same ms for half as many sequences
    assert hyena["memory_exponent"] == pytest.approx(1)
    attention = summary(made, "attention")
    assert attention["crossover"] is None
    assert attention["time_exponent"] == pytest.approx(2)
    assert summary(made, "fft_conv/torch")["crossover"] is None
    assert summary(made, "fft_conv/torch")["memory_exponent"] is None


def test_convolution_alone_has_no_speedup_over_a_whole_layer() -> None:
    made = record()
    (reading, *_) = made.of("fft_conv/torch").values()
    assert flat(made, reading)["forward_speedup"] is None


def test_markdown_tells_times_provenance_and_losses() -> None:
    text = to_markdown(record())
    assert "| hyena | 2 / 8 | 2 / 8 | 2 / 8 | 2 / 8 |" in text
    assert "command: `mechbench bench | tee`" in text
    assert "a GPU" in text
    assert "torch 2.9" in text
    assert "not run: out of memory at 2048" in text
    assert "- eager-attention at 2048 (batch 4): out of memory, Tried to allocate 96" in text
    assert "- at 1024: flash 0.5 / 2, cuDNN No available kernel." in text
    assert "commit" not in text.split("##")[0].replace("command", "")


def test_json_keeps_every_repeat() -> None:
    data = json.loads(json.dumps(to_json(record()), allow_nan=False))
    assert data["rows"][0]["measured"]["both_ms"] == [4.0, 8.0, 12.0]
    assert data["summary"]["hyena"]["crossover"] == "4096"


def test_tables_of_a_bench_on_its_way() -> None:
    made = record()
    del made.readings[1:]
    assert "| attention | - | - | - | - |" in to_markdown(made)
    assert len(to_csv(made).splitlines()) == 2
