"""The files of a scorecard. No torch."""

from __future__ import annotations

from pathlib import Path

from mechbench.record.files import make_folder, write_text
from mechbench.record.results import write_json
from mechbench.report.escape import html_text
from mechbench.scorecard.card import Card
from mechbench.scorecard.figure import draw_card
from mechbench.scorecard.text import lines, to_dict, to_latex, to_markdown

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font-family: sans-serif; max-width: 70em; margin: 1em auto; padding: 0 1em; }}
div {{ overflow-x: auto; }} td, th {{ padding: 0.2em 0.7em; text-align: right; }}
td:first-child, th:first-child {{ text-align: left; }} tr:nth-child(even) {{ background: #f3f3f3; }}
svg {{ max-width: 100%; height: auto; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def write_card(card: Card, folder: Path) -> list[Path]:
    """Write card.md, card.tex, card.json, card.html, card.png, card.svg and card.pdf; return them.

    Raises:
        ConfigError: the folder cannot be written.
        ResultError: a file cannot be written.
    """
    make_folder(folder)
    markdown, latex, data, page = (
        folder / f"card.{kind}" for kind in ("md", "tex", "json", "html")
    )
    figures = draw_card(card, folder / "card")
    write_text(markdown, to_markdown(card))
    write_text(latex, to_latex(card))
    write_json(data, to_dict(card))
    drawn = [path.read_text("utf-8") for path in figures if path.suffix == ".svg"]
    write_text(page, _page(card, drawn[0] if drawn else ""))
    return [markdown, latex, data, page, *figures]


def _page(card: Card, svg: str) -> str:
    title = html_text(f"Scorecard: {', '.join((*card.own, *card.unsound))}")
    blocks = [svg[svg.find("<svg") :]] if svg else []
    for operator in card.own:
        head, *body = lines(card, operator)
        rows = [_row(head, "th"), *(_row(line, "td") for line in body)]
        blocks += [f"<h2>{html_text(operator)}</h2>", f"<div><table>{''.join(rows)}</table></div>"]
    for operator, reason in card.unsound.items():
        blocks.append(f"<p>{html_text(operator)} is not sound: {html_text(reason)}</p>")
    return _PAGE.format(title=title, body="\n".join(blocks))


def _row(cells: list[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html_text(cell)}</{tag}>' for cell in cells)}</tr>"
