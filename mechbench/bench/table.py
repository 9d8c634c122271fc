"""A bench as CSV, Markdown and JSON. No torch."""

from __future__ import annotations

import dataclasses
from typing import Any

from mechbench.bench.fit import crossover, exponent
from mechbench.bench.record import (
    ERROR,
    OK,
    OUT_OF_MEMORY,
    REFERENCE,
    Measured,
    Reading,
    Record,
    quartiles,
)
from mechbench.record.config import canonical_json
from mechbench.report.escape import csv_text
from mechbench.report.table import markdown_table

_NOTES = (
    "Each line is a sequence mixer alone, with its projections: input (batch, seqlen, d_model), "
    "batch = tokens / seqlen (at least 1), float32 parameters, autocast in the dtype above, run "
    "eagerly. Lines `fft_conv/BACKEND` are the causal long convolution alone, (batch, d_model, "
    "seqlen) with a float32 filter of full length.",
    "Times: milliseconds a batch, median [quartiles] of the repeats after a warm-up; on CUDA "
    "between events, with a cold L2 cache. Forward runs without gradients; forward+backward gives "
    "the gradients of input and parameters.",
    "Peak memory: the allocator's, over one forward+backward, with parameters, input and the "
    "output's gradient; CUDA only.",
    "Bandwidth: the least bytes over time over the measured bandwidth of a copy. The least bytes "
    "are the input and the output once (forward), these and their gradients once "
    "(forward+backward); of `fft_conv` also its filter.",
    "FLOPs: counted by PyTorch's formulas over time over the measured rate of a matrix product. "
    "Matrix products, FFTs (2.5 n log2 n a real one) and SDPA (its causal half, nothing computed "
    "again) count, elementwise work does not; \"-\" where it cannot be counted.",
    "Speed-up: attention's time over the line's, at the same length. Crossover: the length from "
    "which a line is faster than attention, interpolated on log-log between neighbours; \"below\" "
    "and \"above\" where the measured lengths have none. Exponent: e of the fit L^e to the time "
    "(forward+backward) and to the peak memory of one sequence, batch's over batch, over the upper "
    "half of the lengths.",
    "`attention` is PyTorch's SDPA with the flash and the cuDNN kernel forced in turn, the better "
    "of the two at each length (on a CPU: PyTorch's choice). The backend of any other operator is "
    "that of the `fft_conv` in it.",
)  # fmt: skip


def flat(record: Record, reading: Reading) -> dict[str, Any]:
    """Return all that is known of a reading, as a row of the CSV file; None where it is not."""
    m, work, rates, setting = reading.measured, reading.work, record.rates, record.setting
    out: dict[str, Any] = {
        "line": reading.line,
        "seqlen": reading.seqlen,
        "batch": reading.batch,
        "status": reading.status,
        "reason": reading.reason,
        "backend": reading.backend,
    }
    for name, samples in (
        ("forward", m.forward_ms if m else None),
        ("forward_backward", m.both_ms if m else None),
    ):
        backward = name == "forward_backward"
        ms = record.medians(reading.line, backward=backward).get(reading.seqlen)
        reference = record.medians(REFERENCE, backward=backward).get(reading.seqlen)
        low, high = quartiles(samples) if samples else (None, None)
        moved = (work.both_bytes if backward else work.forward_bytes) if work else None
        flops = (work.both_flops if backward else work.forward_flops) if work else None
        compared = ms and reference and compares(reading.line)
        out |= {
            f"{name}_ms": ms,
            f"{name}_ms_q1": low,
            f"{name}_ms_q3": high,
            f"{name}_least_bytes": moved,
            f"{name}_bandwidth_fraction": _rate(moved, ms, rates.copy_gb_s * 1e9),
            f"{name}_flops": flops,
            f"{name}_flops_fraction": _rate(flops, ms, rates.matmul_tflop_s * 1e12),
            f"{name}_speedup": reference / ms if compared and ms and reference else None,
        }
    return out | {
        "peak_memory_mib": m.peak_mib if m else None,
        "d_model": setting.d_model,
        "dtype": setting.dtype,
        "device": record.provenance["device"],
        "torch": record.provenance["torch"],
        "mechbench": record.provenance["mechbench"],
        "date": record.provenance["date"],
    }


def compares(line: str) -> bool:
    """Say whether a line is a whole mixer, to be set against attention."""
    return not line.startswith("fft_conv/")


def _rate(amount: float | None, ms: float | None, full: float) -> float | None:
    return None if amount is None or not ms else amount / (ms / 1e3) / full


def summary(record: Record, line: str) -> dict[str, Any]:
    """Return crossovers with attention and exponents of growth a sequence, None where unknown."""
    setting = record.setting
    both, forward = record.medians(line), record.medians(line, backward=False)
    against = compares(line) and line != REFERENCE
    memory = {
        n: reading.measured.peak_mib / reading.batch
        for n, reading in record.of(line).items()
        if reading.measured is not None and reading.measured.peak_mib is not None
    }
    return {
        "crossover": crossover(both, record.medians(REFERENCE)) if against else None,
        "crossover_forward": (
            crossover(forward, record.medians(REFERENCE, backward=False)) if against else None
        ),
        "time_exponent": exponent({n: ms / setting.batch(n) for n, ms in both.items()}),
        "memory_exponent": exponent(memory),
    }


def to_csv(record: Record) -> str:
    """Return a row for each reading."""
    return csv_text([flat(record, reading) for reading in record.readings])


def to_json(record: Record) -> dict[str, Any]:
    """Return everything, each repeat included, as JSON types."""
    return {
        "schema_version": 1,
        "provenance": record.provenance,
        "setting": dataclasses.asdict(record.setting),
        "rates": dataclasses.asdict(record.rates),
        "lines": [dataclasses.asdict(line) for line in record.lines],
        "seqlens": record.seqlens,
        "rows": [dataclasses.asdict(reading) for reading in record.readings],
        "summary": {line.name: summary(record, line.name) for line in record.lines},
    }


def to_markdown(record: Record) -> str:
    """Return provenance, times by length, crossovers and exponents, every reading, and notes."""
    s, p, r = record.setting, record.provenance, record.rates
    facts = [
        f"device: {p['device']}; measured: copy {r.copy_gb_s:,.3g} GB/s (read and written), matrix "
        f"product in {s.dtype} {r.matmul_tflop_s:,.3g} TFLOP/s",
        f"torch {p['torch']}, mechbench {p['mechbench']}, python {p['python']}, {p['platform']}"
        + (f", commit {p['git_commit']}" if p["git_commit"] else ""),
        f"date: {p['date']}",
        f"command: `{p['command']}`",
        f"setting: d_model {s.d_model}, {s.tokens:,} tokens a batch, {s.dtype}, "
        f"{s.repeats} repeats",
    ]
    options = [
        f"options of {x.name}: {canonical_json(x.options)}" for x in record.lines if x.options
    ]
    reasons = [
        f"{r.line} at {r.seqlen} (batch {r.batch}): {r.status}, {r.reason}"
        for r in record.readings
        if r.status in (OUT_OF_MEMORY, ERROR)
    ]
    blocks = ["# Time and memory against sequence length", _bullets(facts + options)]
    blocks += ["## Forward / forward+backward, ms a batch, by sequence length", _times(record)]
    blocks += ["## Crossover with attention, and growth of one sequence", _summaries(record)]
    blocks += ["## Every reading", _details(record)]
    kernels = [_kernels(reading) for reading in record.readings if reading.candidates]
    if kernels:
        blocks += ["Kernels of attention, forward / forward+backward, ms:", _bullets(kernels)]
    if reasons:
        blocks += ["Not measured:", _bullets(reasons)]
    return "\n\n".join([*blocks, "## How it is measured", _bullets(_NOTES)]) + "\n"


def _bullets(lines: list[str] | tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _times(record: Record) -> str:
    table = [["", *map(str, record.seqlens)]]
    for line in record.lines:
        found = record.of(line.name)
        cells = [_pair(found[n]) if n in found else "-" for n in record.seqlens]
        table.append([line.name, *cells])
    return markdown_table(table)


def _pair(reading: Reading) -> str:
    return reading.outcome if reading.measured is None else _both(reading.measured)


def _both(measured: Measured) -> str:
    return f"{_show(measured.forward)} / {_show(measured.both)}"


def _summaries(record: Record) -> str:
    table = [["", "crossover", "crossover, forward alone", "time exponent", "memory exponent"]]
    for line in record.lines:
        found = summary(record, line.name)
        table.append([line.name, *(_show(value) for value in found.values())])
    return markdown_table(table)


def _details(record: Record) -> str:
    table = [[
        "", "seqlen", "batch", "backend", "forward, ms", "forward+backward, ms",
        "peak memory, MiB", "bandwidth, f / f+b", "FLOPs, f / f+b", "speed-up, f / f+b",
    ]]  # fmt: skip
    for line in record.lines:
        for reading in record.of(line.name).values():
            start = [reading.line, str(reading.seqlen), str(reading.batch)]
            if reading.status != OK or reading.measured is None:
                table.append([*start, reading.backend or "-", reading.outcome, *["-"] * 5])
                continue
            f, m = flat(record, reading), reading.measured
            table.append([
                *start, reading.backend or "-", _spread(m, "forward_ms"), _spread(m, "both_ms"),
                "-" if m.peak_mib is None else f"{m.peak_mib:,.0f}",
                *(
                    f"{_show(f[f'forward_{key}'])} / {_show(f[f'forward_backward_{key}'])}"
                    for key in ("bandwidth_fraction", "flops_fraction", "speedup")
                ),
            ])  # fmt: skip
    return markdown_table(table)


def _kernels(reading: Reading) -> str:
    told = (
        f"{name} {found}" if isinstance(found, str) else f"{name} {_both(found)}"
        for name, found in reading.candidates.items()
    )
    return f"at {reading.seqlen}: {', '.join(told)}"


def _spread(measured: Measured, name: str) -> str:
    samples = getattr(measured, name)
    low, high = quartiles(samples)
    middle = measured.both if name == "both_ms" else measured.forward
    return f"{_show(middle)} [{_show(low)}, {_show(high)}]"


def _show(value: Any) -> str:
    """Return three digits of a number."""
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
