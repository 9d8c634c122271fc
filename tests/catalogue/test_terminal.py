from __future__ import annotations

from mechbench.catalogue.terminal import COLUMNS, wrapped


def test_lines_fit_and_names_with_hyphens_stay_whole() -> None:
    lines = wrapped("gated-deltanet " * 20, "    ", "  ")
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0].startswith("  gated-deltanet")
    assert all(line.startswith("    gated-deltanet") for line in lines[1:])
    assert " ".join(lines).split() == ["gated-deltanet"] * 20
    assert wrapped("", "  ") == []
