"""How figures look: colours, markers, lines, letters, grid, legend and resolution. No torch."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

Styles = Mapping[str, tuple[str, str]]  # label: colour and marker
# Okabe and Ito 2008, safe for colour-blind readers; yellow last, as it is faint on white. Then the
# same once more, darker, and grey for black: a board has twelve operators.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442",
    "#00314D", "#6B2F00", "#004D38", "#7A2F57", "#2A6A8C", "#7A5400", "#9A9A9A", "#8F860A",
)  # fmt: skip
MARKERS = "osD^vPX<>"  # nine, so that colour and marker come together only after 144 labels
# Operators in the order of their looks, which they have in every figure. New ones are appended;
# those that are not here get what is left in a figure.
KNOWN = (
    "attention", "hyena", "mamba2", "gated-deltanet", "h3", "rwkv", "linear-attention", "gss",
    "rwkv7", "retnet", "deltanet", "based", "s4d", "aft", "sliding-attention", "hybrid", "mamba",
    "hyena-released", "hyena-paper", "gla", "kda", "deltaproduct", "longconv", "conv",
    "forgetting-attention", "mingru", "rg-lru", "hyena-se", "hyena-mr", "hyena-li",
    "eager-attention",
)  # fmt: skip
MAIN, ALARM = COLOURS[:2]  # of a figure's only line; of what failed
GREY = "#777777"  # what no operator is needed for, and remarks in the legend
ACCURACY_MAP, SIGNED_MAP = "viridis", "RdBu_r"  # from 0 to 1; around 0

FONT = "DejaVu Sans"  # comes with matplotlib
TITLE, BENCH_TITLE, SUPTITLE = 11, 10, 12  # points
LABEL, SMALL, SMALLER, SMALLEST = 9, 8, 7, 6

CURVE, THIN, REFERENCE, FINE = 1.8, 1.0, 1.2, 1  # widths of lines, points
SHADE = "#EEEEEE"  # of the lengths of training
BAND_ALPHA = 0.18  # of a confidence interval's colour
CAP = 4  # of an error bar
CROSS, LARGE_CROSS = 8, 9  # sizes of what marks a failure
RING, LEGEND_RING, RING_EDGE = 13, 11, 1.6  # of what marks a crossover
DOTS = {"markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 3}
SURE, UNSURE = "-", "--"  # a causal operator's line; another's
CHANCE, WINDOWED = "--", (":", (0, (1, 3)))  # dashes: chance; oracles that see less and less

DPI, DPI_MANY = 150, 75  # of panels; of more panels than `MANY`
MANY = 8
HEAT_DPI, HEAT_DPI_MANY, HEAT_MANY = 100, 60, 40
LEGEND_IN = 2.1  # inches that a legend's text may take beside a panel
PERCENTS = [i / 5 for i in range(6)], [f"{20 * i}%" for i in range(6)]  # ticks and their texts
HIGHEST = 1.02  # end of an axis of accuracies, so that markers at 100 percent are whole

_UNITS = (("B", 9), ("M", 6), ("K", 3), ("", 0))
_SHOWN = "\N{ZERO WIDTH SPACE}"  # before a label that begins with "_", which matplotlib would hide


@contextlib.contextmanager
def applied(spines: bool = False) -> Iterator[None]:
    """Draw as mechbench does, whatever the user's matplotlibrc says.

    Args:
        spines: frame each panel on all four sides.
    """
    import matplotlib
    from matplotlib import style

    settings: dict[Any, Any] = {
        "text.parse_math": False,  # an option may hold a dollar sign
        "font.family": FONT,
        "axes.spines.top": spines,
        "axes.spines.right": spines,
    }
    with style.context("default"), matplotlib.rc_context(settings):
        yield


def styles(labels: Iterable[str]) -> Styles:
    """Return a colour and a marker for each label.

    An operator of `KNOWN` has its own wherever it is one line of a figure. Its variants side by
    side, and other operators, have in the order given what those leave.
    """
    asked = list(dict.fromkeys(labels))
    operators = [re.split(r" \(|, ", label)[0] for label in asked]
    own = {
        label: KNOWN.index(operator)
        for label, operator in zip(asked, operators, strict=True)
        if operator in KNOWN and operators.count(operator) == 1
    }
    taken = {colour(i) for i in own.values()}
    fresh = [i for i in range(len(COLOURS)) if colour(i) not in taken]
    left = itertools.chain(
        fresh, (i for i in itertools.count() if i not in fresh and i not in own.values())
    )
    return {label: nth_style(own[label] if label in own else next(left)) for label in asked}


def nth_style(index: int) -> tuple[str, str]:
    """Return the colour and the marker of a figure's line number `index`, from 0."""
    return colour(index), MARKERS[index % len(MARKERS)]


def colour(index: int) -> str:
    """Return the colour of a figure's line number `index`, from 0."""
    return COLOURS[index % len(COLOURS)]


def side_by_side(n: int, apart: float, spread: float) -> list[float]:
    """Return how far each of n lines is drawn from its place, so that none hides another.

    Args:
        n: lines.
        apart: points between neighbours.
        spread: points between the outermost, at most.
    """
    apart = min(apart, spread / max(1, n - 1))
    return [(i - (n - 1) / 2) * apart for i in range(n)]


def tick_powers(axis: Any, text: Callable[[float], str]) -> None:
    """Tick a logarithmic axis, x or y, at 1, 2 and 5 times the powers of 10."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(NullLocator())


def grid(axis: Any) -> None:
    """Draw a faint grid behind everything."""
    axis.grid(color="#DDDDDD", linewidth=0.6)
    axis.set_axisbelow(True)


def tick(seqlen: int) -> str:
    """Return a length as axis text: 131072 as 128K, 1000 as it is."""
    return f"{seqlen // 1024}K" if seqlen and seqlen % 1024 == 0 else str(seqlen)


def amount(value: float) -> str:
    """Return a number of tokens as short text, to three digits: 5 M, 12.3 K, 200."""
    value = float(f"{value:.3g}")
    unit, power = next(pair for pair in _UNITS if value >= 10 ** pair[1] or not pair[1])
    return f"{value / 10**power:g} {unit}".strip()


def line_label(text: str) -> str:
    """Return a text as the label of a line, marked if matplotlib would keep it out of a legend."""
    return f"{_SHOWN}{text}" if text.startswith("_") else text


def line_text(label: str) -> str:
    """Return the text that `line_label` was given."""
    return label.removeprefix(_SHOWN)


def show_legend(axis: Any, handles: Sequence[Any] | None = None, gap: float = 0.01) -> None:
    """Draw a legend beside a panel, by default of all lines that have a label.

    Args:
        axis: of the panel; its lines' labels come from `line_label`.
        handles: lines in the order of the legend.
        gap: between the panel and the legend, as a share of the panel's width.
    """
    given = {} if handles is None else {"handles": handles}
    legend = axis.legend(
        loc="upper left", bbox_to_anchor=(1.0 + gap, 1.0), frameon=False, fontsize=LABEL,
        borderaxespad=0.0, **given,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_text(line_text(text.get_text()))
