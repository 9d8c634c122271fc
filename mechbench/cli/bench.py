"""`mechbench bench`."""

from __future__ import annotations

from pathlib import Path

import click

from mechbench.catalogue.options import parse_pairs
from mechbench.catalogue.plugins import load_plugins
from mechbench.catalogue.registry import OPERATORS
from mechbench.cli.arguments import PLUGIN, Setting


@click.command("bench")
@click.option(
    "--operator",
    "operators",
    multiple=True,
    help="Operator to measure (repeatable); all: every built-in one.",
)
@click.option(
    "--fft-conv", is_flag=True, help="Measure fft_conv by itself too, with each of its backends."
)
@click.option(
    "--seqlen",
    "seqlens",
    type=Setting("seqlen"),
    multiple=True,
    default=(1024, 2048, 4096, 8192),
    show_default=True,
    help="Sequence length in tokens (repeatable).",
)
@click.option(
    "--d-model", type=Setting("d_model"), default=768, show_default=True, help="Model width."
)
@click.option(
    "--tokens",
    type=Setting("tokens"),
    default=131_072,
    show_default=True,
    help="Tokens in a batch, which holds tokens / seqlen sequences, but at least one.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of every operator that takes it (repeatable).",
)
@PLUGIN
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="auto: bfloat16 on CUDA, float32 on a CPU.",
)
@click.option(
    "--repeats",
    type=Setting("repeats"),
    default=10,
    show_default=True,
    help="How many passes to time.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="bench",
    show_default=True,
    help="Folder for bench.csv, .md, .json, .png and .svg.",
)
def command(
    operators: tuple[str, ...],
    fft_conv: bool,
    seqlens: tuple[int, ...],
    d_model: int,
    tokens: int,
    options: tuple[str, ...],
    plugins: tuple[str, ...],
    device: str,
    dtype: str,
    repeats: int,
    out: Path,
) -> None:
    """Measure time and memory of operators alone against the sequence length.

    If attention is among the operators, the speed-up over it is given too (over the faster of its
    flash and cuDNN kernels), and the length from which an operator is faster. The files are written
    anew after every reading. Running out of memory is a result; the exit code is 1 if an operator
    raised an error.
    """
    given = parse_pairs(options)
    if not operators and not fft_conv:
        raise click.UsageError("nothing to measure: name an --operator, or --fft-conv")
    load_plugins(plugins)
    names = [n for o in operators for n in (OPERATORS.built_in() if o == "all" else [o])]
    for name in names:
        OPERATORS.entry(name)
    from mechbench.plan.resolve import device_of

    device = device_of(device)
    from mechbench.bench.record import ERROR, Setting
    from mechbench.bench.session import lines_of, run_bench
    from mechbench.bench.table import to_markdown

    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    lines = lines_of(names, given, fft_conv=fft_conv)
    setting = Setting(d_model, tokens, device, dtype, repeats)
    record, files = run_bench(lines, seqlens, setting, out)
    for path in files:
        click.echo(path)
    click.echo(f"\n{to_markdown(record)}", nl=False)
    failed = [reading for reading in record.readings if reading.status == ERROR]
    for reading in failed:
        click.echo(
            f"mechbench: warning: {reading.line} at {reading.seqlen}: {reading.reason}", err=True
        )
    if failed:
        raise SystemExit(1)
