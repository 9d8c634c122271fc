"""How a command ends whose cells a signal stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mechbench.sweep.plan import Plan


def end_if_interrupted(plan: Plan, signal_number: int | None) -> None:
    """Say how many cells are left and exit as a shell does for the signal, if there was one."""
    if signal_number is None:
        return
    left = len(plan.todo) + len(plan.waiting)
    click.echo(
        f"mechbench: interrupted with {left} cells to go; the same command continues", err=True
    )
    raise SystemExit(128 + signal_number)
