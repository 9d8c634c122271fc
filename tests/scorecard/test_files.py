from __future__ import annotations

import json
from pathlib import Path

from made_card import made_card

from mechbench.scorecard.card import make_card
from mechbench.scorecard.files import write_card


def test_all_files_are_written(tmp_path: Path) -> None:
    files = write_card(made_card(), tmp_path / "card")
    assert [path.name for path in files] == [
        "card.md", "card.tex", "card.json", "card.html", "card.png", "card.svg",
        "card.pdf",
    ]  # fmt: skip
    page = files[3].read_text()
    assert page.count("<table>") == 2
    assert "<svg" in page
    assert "<td>recall at 64, above 90% up to 256</td>" in page
    assert "ahead is not sound: causal, by value: position 3 sees 4" in page
    assert json.loads(files[2].read_text())["own"] == ["mine", "other"]


def test_of_unsound_operators_alone_the_reason_is_written(tmp_path: Path) -> None:
    files = write_card(make_card([], [], {"<b>": "it <i>looks</i> ahead"}), tmp_path)
    assert [path.name for path in files] == ["card.md", "card.tex", "card.json", "card.html"]
    assert "&lt;b&gt; is not sound: it &lt;i&gt;looks" in files[3].read_text()
