"""`mechbench check`."""

from __future__ import annotations

from pathlib import Path

import click

from mechbench.catalogue.options import parse_pairs
from mechbench.catalogue.plugins import load_plugins
from mechbench.catalogue.registry import OPERATORS
from mechbench.cli.arguments import OPERATOR_OPTION, PLUGIN, Setting


@click.command("check")
@click.option("--operator", required=True, help="Operator to examine.")
@click.option(
    "--seqlen", type=Setting("seqlen"), default=512, show_default=True, help="Length in tokens."
)
@click.option(
    "--d-model", type=Setting("d_model"), default=64, show_default=True, help="Model width."
)
@click.option(
    "--seed", type=Setting("seed"), default=0, show_default=True, help="Seed of weights and inputs."
)
@OPERATOR_OPTION
@PLUGIN
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--out", default="report", show_default=True, help="Folder for check.json.")
def command(
    operator: str,
    seqlen: int,
    d_model: int,
    seed: int,
    options: tuple[str, ...],
    plugins: tuple[str, ...],
    device: str,
    out: str,
) -> None:
    """Say whether an operator is sound, and which properties of attention it has.

    Its contract, causality, data control, number of parameters, context, and growth of time and
    memory are measured, printed and stored in check.json. The exit code is 1 if anything is a FAIL.
    """
    given = parse_pairs(options)
    load_plugins(plugins)
    OPERATORS.entry(operator)
    from mechbench.plan.resolve import device_of

    device = device_of(device)
    from mechbench.checks.examination import check_operator, store

    examination = check_operator(
        operator, given, d_model=d_model, seqlen=seqlen, device=device, seed=seed
    )
    click.echo(examination.text())
    click.echo(store(examination, Path(out)))
    if not examination.sound:
        raise SystemExit(1)
