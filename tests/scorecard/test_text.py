from __future__ import annotations

import json

import pytest
from made_card import made_card

from mechbench.scorecard.card import Card, make_card
from mechbench.scorecard.text import HEAD, lines, to_dict, to_latex, to_markdown


@pytest.fixture(scope="module")
def card() -> Card:
    return made_card()


def test_a_line_says_what_was_solved_and_where_that_stands(card: Card) -> None:
    head, recall, induction, parity = lines(card, "mine")
    assert head == list(HEAD)
    assert recall == [
        "recall at 64, above 90% up to 256", "3 of 3", "400", "200 hyena", "200",
        "2 [2, 2] of 3", "-",
    ]  # fmt: skip
    assert induction[:4] == ["induction at 64", "1 of 3", "> 900", "500 hyena"]
    assert induction[5].startswith("2 to 3 [")
    assert induction[6] == "90.0%, 2 rising"
    assert parity[3:] == ["-", "-", "-", "-"]
    assert lines(card, "other")[3] == [
        "parity at 64", "0 of 1", "> 10 K", "-", "-", "-", "1 diverged",
    ]  # fmt: skip
    assert lines(card, "other")[2] == [
        "induction at 64",
        "failed",
        "-",
        "500 hyena",
        "500",
        "-",
        "-",
    ]


def test_markdown_says_where_the_known_come_from_and_who_is_not_ranked(card: Card) -> None:
    text = to_markdown(card)
    assert text.startswith("# Scorecard: mine, other, ahead\n")
    assert "stored results of 2 operators: h3, hyena (2026-01-02 to 2026-01-02, CPU, 1" in text
    assert "ahead is not sound, so it is not ranked: causal, by value: position 3 sees 4" in text
    assert "Solves 2 of 3 tasks." in text
    assert "\n- mine at 64, seed 3: error: it went \\| wrong" in text
    assert "Most alike, by how many times tokens to solve differ at a task: h3 (1.6 times)" in text
    assert "parameters 1.23 K (known: 1.23 K to 1.23 K)" in text


def test_without_stored_results_nothing_is_ranked(card: Card) -> None:
    text = to_markdown(make_card(card.own_rows, []))
    assert "No stored result is of these tasks and protocol 3: nothing is ranked." in text
    assert "Most alike" not in text


def test_latex_has_a_table_for_each_and_escapes(card: Card) -> None:
    text = to_latex(card)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    assert r"above 90\% up to 256" in text
    assert r"$>$ 900" in text
    assert all(line.count("&") == 6 for line in text.splitlines() if line.endswith(r"\\"))


def test_json_holds_every_operator(card: Card) -> None:
    found = json.loads(json.dumps(to_dict(card)))
    recall = found["tasks"][0]
    assert recall["operators"]["mine"] == {
        "solved": 3, "seeds": 3, "tokens": 400, "given_up_at": None, "held_up_to": 256,
        "place": "2 [2, 2] of 3",
    }  # fmt: skip
    assert recall["operators"]["h3"]["given_up_at"] == 1000
    assert recall["operators"]["h3"]["place"] is None
    assert found["unsound"] == {"ahead": "causal, by value: position 3 sees 4"}
