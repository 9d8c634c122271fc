from __future__ import annotations

import json

from golden_streams import FILE, digests, settings

from mechbench.catalogue.registry import TASKS


def test_evaluation_streams_are_those_of_every_published_number() -> None:
    expected = json.loads(FILE.read_text(encoding="utf-8"))
    assert digests() == expected, (
        "the same seed gives other examples: raise `version` of the task, then run "
        "scripts/refresh_golden.py and say why in the changelog"
    )


def test_every_built_in_task_has_two_golden_settings() -> None:
    named = [name for name, _ in settings()]
    for name in TASKS.names():
        if TASKS.entry(name).origin == "built-in":
            assert named.count(name) >= 2, f"the test of {name!r} names no GOLDEN"
