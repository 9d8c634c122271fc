"""The table of docs/fidelity.md, from what the operators' classes say of themselves."""

from __future__ import annotations

from pathlib import Path

from mechbench.catalogue.registry import OPERATORS
from mechbench.operators.fidelity import Fidelity

FILE = Path(__file__).parents[2] / "docs" / "fidelity.md"
BEGIN, END = "<!-- table: python scripts/refresh_fidelity.py -->\n", "<!-- end of table -->\n"
HEAD = "| operator | compared with | error, at most | deviations left, and why |\n"
RULE = 4 * "|---" + "|\n"


def built_in() -> list[str]:
    return [n for n in OPERATORS.names() if OPERATORS.entry(n).origin == "built-in"]


def row(name: str, of: Fidelity) -> str:
    options = f", `{of.variant}`" if of.variant else ""
    error = "" if of.error is None else f"{of.error:.0e}".replace("e-0", "e-")
    return f"| `{name}`{options} | {of.compared_with} | {error} | {of.deviations} |\n"


def table() -> str:
    """Return the rows of the built-in operators, in the order of `mechbench list operators`."""
    rows = (row(name, of) for name in built_in() for of in OPERATORS.load(name).fidelity)
    return HEAD + RULE + "".join(rows)


def page(old: str) -> str:
    """Return the page with its table written anew; the rest is written by hand."""
    before, rest = old.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{table()}{END}{after}"
