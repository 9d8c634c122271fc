from __future__ import annotations

from mechbench.tasks.letters import letter


def test_letters_go_on_with_a_number_behind_them() -> None:
    assert [letter(i) for i in (0, 25, 26, 51, 52)] == ["a", "z", "a2", "z2", "a3"]
    assert len({letter(i) for i in range(300)}) == 300
