"""leaderboards/index.html: every leaderboard on one page, with tables and plots to play with.

Plotly draws and DataTables (through itables) sorts and filters; both lie beside the page as files,
so that it needs no network and no server, and is small. They come with the extra `mechbench[html]`.
"""

from __future__ import annotations

import hashlib
import html
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mechbench.leaderboard.board import Board
from mechbench.record.files import make_folder, write_text
from mechbench.report.aggregate import Point, Section
from mechbench.report.escape import html_text, plain
from mechbench.report.overview import scaled
from mechbench.report.plot import references
from mechbench.report.solving_table import solved_after
from mechbench.report.style import HIGHEST, styles

_STYLE = """
body { font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; }
nav a { margin-right: 1.2rem; }
table.dataTable { font-size: 0.85rem; }
tfoot input { width: 5rem; }
.itables { overflow-x: auto; }
section { margin-top: 3rem; border-top: 1px solid #ccc; }
.question { max-width: 50rem; }
img { max-width: 100%; height: auto; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
"""
_PLOTS = 12  # of a leaderboard; the others stand in its folder


def missing_packages() -> list[str]:
    """Return what of the extra is not installed."""
    return [name for name in ("plotly", "itables") if importlib.util.find_spec(name) is None]


def write_page(boards: Sequence[Board], path: Path) -> list[Path]:
    """Write the page of `boards`, and beside it its libraries; return the files, the page first.

    If there is an atlas beside it, its map is shown.

    Raises:
        ConfigError: the folder of the libraries cannot be written.
        ResultError: a file cannot be written.
    """
    from plotly.offline import get_plotlyjs

    libraries = path.parent / "libraries"
    make_folder(libraries)
    script, rest = _table_scripts()
    plotly, tables = libraries / "plotly.min.js", libraries / "tables.js"
    write_text(plotly, get_plotlyjs())
    write_text(tables, script)
    links = [f'<a href="#{_anchor(board)}">{html_text(board.title)}</a>' for board in boards]
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><title>mechbench leaderboards</title>',
        '<link rel="icon" href="data:,">',  # or the browser asks a server for one
        f"<style>{_STYLE}</style>",
        *(f'<script src="libraries/{file.name}"></script>' for file in (plotly, tables)),
        rest,
        "</head><body>",
        "<h1>mechbench leaderboards</h1>",
        f"<nav>{''.join(links)}</nav>",
        _map(path.parent),
        *(_board(board) for board in boards),
        "</body></html>",
    ]
    write_text(path, "\n".join(parts) + "\n")
    return [path, plotly, tables]


def _map(folder: Path) -> str:
    if not (folder / "atlas" / "map.png").is_file():
        return ""
    text = "Operators by tasks: tokens to solve each"
    return f'<p><a href="atlas/README.md"><img src="atlas/map.png" alt="{text}"></a></p>'


def _table_scripts() -> tuple[str, str]:
    """Return the code that tables need, and the rest of the HTML that goes before them."""
    from itables import options
    from itables.javascript import generate_init_offline_itables_html

    options.display_logo_when_loading = False
    given = str(generate_init_offline_itables_html(options.dt_bundle))
    _, _, after = given.partition("<script>")
    script, _, rest = after.partition("</script>")
    return script, rest


def _anchor(board: Board) -> str:
    """Return the folder's name as an id; what is not plain goes, and a digest tells it apart."""
    name = board.folder.name
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _shown(text: str) -> str:
    """Return a text for plotly, which reads tags in it and knows few entities."""
    return html.escape(plain(text), quote=False)


def _board(board: Board) -> str:
    question = board.suite.question.strip() if board.suite else ""
    name = _anchor(board)
    plots = [
        _plot(section, f"plot-{name}-{i}") for i, section in enumerate(board.sections[:_PLOTS])
    ]
    more = len(board.sections) - len(plots)
    note = (
        f"<p>{more} further plots: see the folder {html.escape(board.folder.name)}.</p>"
        if more
        else ""
    )
    return (
        f'<section id="{name}"><h2>{html_text(board.title)}</h2>'
        f'<p class="question">{html.escape(question)}</p>'
        f"{_table(board, f'table-{name}')}"
        f'<div class="plots">{"".join(plots)}</div>{note}</section>'
    )


def _table(board: Board, table_id: str) -> str:
    import pandas as pd
    from itables import to_html_datatable

    lines = [
        _line(section, point, point.label == section.best(point.eval_seqlen))
        for section in board.sections
        for points in section.curves.values()
        for point in points
    ]
    return str(
        to_html_datatable(
            pd.DataFrame(lines),
            table_id=table_id,
            connected=False,
            showIndex=False,
            maxBytes=0,
            column_filters="footer",
            classes="display compact",
            order=[],
        )
    )


def _line(section: Section, point: Point, best: bool) -> dict[str, Any]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(100 * value, 2)

    cost, solving = point.cost, point.solving
    return {
        "setting": plain(section.title),
        "operator": plain(point.label),
        "length": point.eval_seqlen,
        "accuracy, %": rounded(point.accuracy),
        "scaled, %": rounded(scaled(point.accuracy, section.chance[point.eval_seqlen])),
        "low": rounded(point.ci_low),
        "high": rounded(point.ci_high),
        "seeds": point.n_seeds,
        "best": "yes" if best else "",
        "status": point.failures or ("ok" if point.causal is not False else "non-causal"),
        "solved": f"{solving.solved} of {len(solving.cells)}" if solving.cells else "",
        "tokens to solve": solved_after(solving),
        "unsolved": ", ".join(f"{n} {trend}" for trend, n in solving.trends.items()),
        "parameters": _whole(cost.parameters),
        "training tokens": _whole(cost.train_tokens),
        "training FLOPs": None if cost.train_flops is None else float(f"{cost.train_flops:.3g}"),
        "training, s": None if cost.train_s is None else round(cost.train_s, 1),
        "lr": cost.lr + (" (edge)" if cost.lr_at_edge else ""),
        "trials for it": cost.tuning_trials or None,
        "device": plain(cost.devices),
    }


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _plot(section: Section, div_id: str) -> str:
    import plotly.graph_objects as go

    figure = go.Figure()
    looks = styles(sorted(section.curves))
    for label, points in section.curves.items():
        shown = [p for p in points if p.accuracy is not None]
        figure.add_scatter(
            x=[p.eval_seqlen for p in shown],
            y=[p.accuracy for p in shown],
            error_y={
                "array": [(p.ci_high or 0.0) - (p.accuracy or 0.0) for p in shown],
                "arrayminus": [(p.accuracy or 0.0) - (p.ci_low or 0.0) for p in shown],
                "thickness": 1,
            },
            name=_shown(label),
            mode="lines+markers",
            line={"color": looks[label][0]},
            hovertemplate="%{y:.1%} at %{x} tokens",
        )
    for name, grey, _, reached in references(section):
        lengths = sorted(reached)
        figure.add_scatter(
            x=lengths,
            y=[reached[n] for n in lengths],
            name=_shown(name),
            mode="lines",
            line={"color": grey, "dash": "dash" if name.startswith("chance") else "dot"},
        )
    figure.update_layout(
        title={"text": _shown(section.title), "font": {"size": 13}},
        width=640,
        height=420,
        template="plotly_white",
        hovermode="closest",
        xaxis={
            "type": "log",
            "title": {"text": "sequence length, tokens"},
            "tickvals": section.lengths,
        },
        yaxis={"range": [0, HIGHEST], "tickformat": ".0%", "title": {"text": "test accuracy"}},
    )
    return str(
        figure.to_html(
            full_html=False, include_plotlyjs=False, div_id=div_id, config={"displaylogo": False}
        )
    )
