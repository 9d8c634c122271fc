from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mechbench.leaderboard.board import read_board

pytest.importorskip("plotly", reason="needs mechbench[html]")
pytest.importorskip("itables", reason="needs mechbench[html]")

from mechbench.leaderboard.page import missing_packages, write_page


@pytest.fixture
def page(folder: Path) -> Path:
    return write_page([read_board(folder)], folder.parent / "index.html")


def test_page_is_the_same_each_time_and_asks_for_nothing(page: Path, folder: Path) -> None:
    assert missing_packages() == []
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=.?https?:", text)
    write_page([read_board(folder)], page)
    assert page.read_text(encoding="utf-8") == text


@pytest.fixture
def browser() -> Iterator[Any]:
    """A real headless Chromium without a network; skipped where it or selenium is absent."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1500,1400",
                 "--host-resolver-rules=MAP * ~NOTFOUND"):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield made
    made.quit()


def test_sort_filter_and_hover_in_a_browser(page: Path, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(page.as_uri())
    wait = WebDriverWait(browser, 30)

    def heads() -> list[Any]:
        return list(browser.find_elements(By.CSS_SELECTOR, "#table-mine thead th"))

    def column(name: str) -> list[str]:
        place = [" ".join(h.text.split()) for h in heads()].index(name)
        rows = browser.find_elements(By.CSS_SELECTOR, "#table-mine tbody tr")
        return [r.find_elements(By.TAG_NAME, "td")[place].text for r in rows]

    accuracy = "accuracy, %"
    wait.until(lambda _: len(heads()) > 5)
    wait.until(lambda _: len(column("operator")) == 8)
    head = next(h for h in heads() if " ".join(h.text.split()) == accuracy)
    head = head.find_element(By.CSS_SELECTOR, ".dt-column-order")
    head.click()
    rising = sorted(filter(None, column(accuracy)), key=float)
    assert rising[0] < rising[-1]
    wait.until(lambda _: list(filter(None, column(accuracy))) == rising)
    head.click()
    wait.until(lambda _: list(filter(None, column(accuracy))) == rising[::-1])
    search = browser.find_element(By.CSS_SELECTOR, "tfoot input[placeholder=operator]")
    search.send_keys("attention")
    wait.until(lambda _: column("operator") == ["attention"] * 4)

    plot = browser.find_element(By.ID, "plot-mine-0")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    point = plot.find_elements(By.CSS_SELECTOR, ".scatterlayer .point")[0]
    from selenium.webdriver.common.action_chains import ActionChains

    wait.until(lambda _: point.is_displayed())
    ActionChains(browser).move_to_element(point).perform()
    shown = wait.until(lambda _: plot.find_elements(By.CSS_SELECTOR, ".hoverlayer .hovertext"))
    assert "tokens" in shown[0].text
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
