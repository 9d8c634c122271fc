from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mechbench.leaderboard.board import read_board

pytest.importorskip("plotly", reason="needs mechbench[html]")
pytest.importorskip("itables", reason="needs mechbench[html]")

from mechbench.leaderboard.page import missing_packages, write_page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1500,1400",
    "--virtual-time-budget=60000", "--dump-dom",
)  # fmt: skip

# Before anything else of the page: what goes wrong is kept.
LISTEN = """<script>
const wrong = [];
addEventListener("error", event => wrong.push(String(event.message || event.target.src)), true);
addEventListener("unhandledrejection", event => wrong.push(String(event.reason)));
addEventListener("securitypolicyviolation", event => wrong.push(event.blockedURI));
const say = console.error;
console.error = (...args) => { wrong.push(args.join(" ")); say(...args); };
</script>"""
# After the page: a person who sorts by accuracy, asks for one operator and points at a plot.
USE = """<script>
addEventListener("load", async () => {
  const found = {};
  const all = (selector, of = document) => [...of.querySelectorAll(selector)];
  const text = node => node.textContent.replace(/\\s+/g, " ").trim();
  const heads = () => all("#table-mine thead th");
  const place = name => heads().findIndex(head => text(head) === name);
  const column = name =>
    all("#table-mine tbody tr").map(row => text(all("td", row)[place(name)] ?? row));
  const pause = () => new Promise(done => setTimeout(done, 50));
  const until = async test => { for (let i = 0; i < 200 && !test(); i++) await pause(); };
  try {
    await until(() => heads().length > 5 && all("#table-mine tbody tr").length > 1);
    found.operators = column("operator");
    const order = all(".dt-column-order", heads()[place("accuracy, %")])[0];
    const before = column("accuracy, %").join();
    order.click();
    await until(() => column("accuracy, %").join() !== before);
    found.rising = column("accuracy, %");
    order.click();
    await until(() => column("accuracy, %").join() !== found.rising.join());
    found.falling = column("accuracy, %");
    const search = all("tfoot input[placeholder=operator]")[0];
    search.value = "attention";
    for (const kind of ["input", "keyup", "change"])
      search.dispatchEvent(new Event(kind, {bubbles: true}));
    await until(() => column("operator").length < found.operators.length);
    found.searched = column("operator");
    const plot = document.getElementById("plot-mine-0");
    plot.scrollIntoView({block: "center"});
    await until(() => all(".scatterlayer .point", plot).length);
    const point = all(".scatterlayer .point", plot)[0].getBoundingClientRect();
    const at = {clientX: point.x + point.width / 2, clientY: point.y + point.height / 2};
    for (const kind of ["mouseover", "mousemove"])
      all(".nsewdrag", plot)[0].dispatchEvent(new MouseEvent(kind, {bubbles: true, ...at}));
    await until(() => all(".hoverlayer .hovertext", plot).length);
    found.hover = all(".hoverlayer .hovertext", plot).map(text);
    found.plots = all(".plots .main-svg .scatterlayer .point").length;
    found.asked = performance.getEntriesByType("resource").map(entry => entry.name);
  } catch (error) { wrong.push(String(error.stack)); }
  found.wrong = wrong;
  document.documentElement.innerHTML = "<body><pre>" + btoa(unescape(encodeURIComponent(
    JSON.stringify(found)))) + "</pre></body>";
});
</script>"""


@pytest.fixture
def page(folder: Path) -> Path:
    return write_page([read_board(folder)], folder.parent / "index.html")[0]


def test_page_is_the_same_each_time_and_asks_for_nothing(page: Path, folder: Path) -> None:
    assert missing_packages() == []
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=.?https?:", text)
    write_page([read_board(folder)], page)
    assert page.read_text(encoding="utf-8") == text
    assert len(text) < 100_000
    assert "<img" not in text


def test_the_atlas_is_shown_where_there_is_one(page: Path, folder: Path) -> None:
    (page.parent / "atlas").mkdir()
    (page.parent / "atlas" / "map.png").write_bytes(b"drawn")
    write_page([read_board(folder)], page)
    assert '<img src="atlas/map.png"' in page.read_text(encoding="utf-8")


def used(page: Path, folder: Path) -> dict[str, Any]:
    """Open a copy of the page in a real Chromium without a network; return what `USE` found."""
    text = page.read_text(encoding="utf-8")
    copy = page.with_name("used.html")
    copy.write_text(
        text.replace("<head>", "<head>" + LISTEN, 1).replace(
            "</body></html>", USE + "</body></html>"
        ),
        encoding="utf-8",
    )
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", copy.as_uri()],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    told = re.search(r"<pre>([\w+/=]+)</pre>", done.stdout)
    assert told, (done.returncode, done.stderr[-2000:], done.stdout[-500:])
    found: dict[str, Any] = json.loads(base64.b64decode(told[1]))
    return found


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_sort_filter_and_hover_in_a_browser(page: Path, tmp_path: Path) -> None:
    found = used(page, tmp_path)
    assert found["wrong"] == []
    assert [name for name in found["asked"] if not name.startswith("data:")] == []
    assert len(found["operators"]) == 8
    rising = sorted(filter(None, found["rising"]), key=float)
    assert rising[0] < rising[-1]
    assert list(filter(None, found["rising"])) == rising
    assert list(filter(None, found["falling"])) == rising[::-1]
    assert found["searched"] == ["attention"] * 4
    assert "tokens" in found["hover"][0]
    assert found["plots"] > 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_an_error_of_the_page_would_be_seen(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    broken = "<script>console.error('told'); nothing();</script>"
    broken += '<img src="https://example.invalid/x.png">'
    page.write_text(text.replace("<h1>", broken + "<h1>", 1), encoding="utf-8")
    found = used(page, tmp_path)
    assert "https://example.invalid/x.png" in found["asked"]
    wrong = " ".join(found["wrong"])
    assert "told" in wrong
    assert "nothing is not defined" in wrong
    assert "https://example.invalid/x.png" in wrong
