"""A bench from its operators to its files; each reading is on disk before the next one begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mechbench.bench.plot import plot_times
from mechbench.bench.rates import machine_rates
from mechbench.bench.readings import take_reading
from mechbench.bench.record import NOT_RUN, OUT_OF_MEMORY, Line, Reading, Record, Setting
from mechbench.bench.table import to_csv, to_json, to_markdown
from mechbench.catalogue.bounds import BENCH
from mechbench.catalogue.settings import check_product
from mechbench.catalogue.settings import setting as check_setting
from mechbench.errors import ConfigError, nearest
from mechbench.operators.base import declared_options, operator_options
from mechbench.ops.fft_conv import available_backends
from mechbench.record.files import make_folder, write_text
from mechbench.record.provenance import provenance
from mechbench.record.results import write_json
from mechbench.training.devices import wake_autograd

STEM = "bench"  # of the files


def lines_of(operators: Sequence[str], given: dict[str, Any], *, fft_conv: bool) -> list[Line]:
    """Return the lines to measure; an option goes to every operator that declares it.

    Args:
        operators: registered names.
        given: options, strings or values.
        fft_conv: measure each backend of `fft_conv` too.

    Raises:
        ConfigError: an unknown operator, or an option that none of them takes or that has a value
            of the wrong type.
    """
    names = list(dict.fromkeys(operators))
    declared = {n: set(declared_options(n, given)) for n in names}
    known = set().union(*declared.values()) - {"**"}
    own: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in given.items():
        # "**" takes what is declared nowhere: an operator of a package, say, that hands options on
        takers = [n for n in names if (key if key in known else "**") in declared[n]]
        if not takers:
            told = ", ".join(names) or "fft_conv"
            raise ConfigError(f"none of {told} has an option {key!r}: {nearest(key, known)}")
        for name in takers:
            own[name][key] = value
    lines = [Line(name, operator_options(name, own[name])) for name in names]
    if fft_conv:
        lines += [Line(f"fft_conv/{name}", {}, name) for name in available_backends()]
    return lines


def run_bench(
    lines: Sequence[Line], seqlens: Sequence[int], setting: Setting, out: Path
) -> tuple[Record, list[Path]]:
    """Measure every line at every length, the short lengths first; return what was found.

    OUT/bench.csv, bench.md and bench.json are written anew after each reading, the plot at the end,
    also of an interrupted bench. After an out-of-memory error the longer lengths of that line are
    not run.

    Raises:
        ConfigError: the folder cannot be written.
        ResultError: a file cannot be written.
    """
    lengths = sorted(set(check_setting("eval_seqlens", seqlens)))
    for seqlen in lengths:
        check_product(BENCH, tokens=setting.batch(seqlen) * seqlen, d_model=setting.d_model)
    make_folder(out)
    wake_autograd(setting.device)
    rates = machine_rates(setting.device, setting.dtype)
    record = Record(list(lines), lengths, setting, rates, provenance(setting.device))
    files: list[Path] = []
    full: dict[str, int] = {}  # line to the length at which memory ran out
    try:
        with tqdm(
            total=len(lengths) * len(lines),
            unit="reading",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        ) as bar:
            for seqlen in lengths:
                for line in lines:
                    bar.set_description(f"{line.name} {seqlen}")
                    if line.name in full:
                        reason = f"{OUT_OF_MEMORY} at {full[line.name]}"
                        reading = Reading(line.name, seqlen, setting.batch(seqlen), NOT_RUN, reason)
                    else:
                        reading = take_reading(line, seqlen, setting)
                    if reading.status == OUT_OF_MEMORY:
                        full[line.name] = seqlen
                    record.readings.append(reading)
                    files = _write(record, out)
                    bar.update()
    finally:
        if record.readings:
            files += plot_times(record, out / STEM)
    return record, files


def _write(record: Record, out: Path) -> list[Path]:
    paths = [out / f"{STEM}{suffix}" for suffix in (".csv", ".md", ".json")]
    write_text(paths[0], to_csv(record))
    write_text(paths[1], to_markdown(record))
    write_json(paths[2], to_json(record))
    return paths
