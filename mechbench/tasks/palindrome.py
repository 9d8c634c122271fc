"""Palindrome: repeat a string of letters backwards.

One example with V = 8 (`.` = 0, letters a to e = 1 to 5, `$` = 6, `|` = 7) and L = 4:

    position   0  1  2  3  4  5  6  7  8
    inputs     $  d  a  b  a  |  a  b  a
    targets    .  .  .  .  .  a  b  a  d

Like `copy`, but the answer begins with the last letter, so that what is asked for lies 1, 3, 5, ...
tokens back: as far as the answer has been read, and once more. Source: the task `copy` of Jelassi
et al. 2024 (arXiv:2402.01032) with the string reversed; the distribution is that of `copy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.tasks.repeating import Repeating


@register_task(
    "palindrome", source="after Jelassi et al. 2024 (arXiv:2402.01032)", measures="copying"
)
@dataclass(frozen=True)
class Palindrome(Repeating):
    """Palindrome: repeat a string of letters backwards, token by token.

    Attributes:
        vocab_size: V: `.` (0), V - 3 letters, `$` (V-2) and `|` (V-1).
        seqlen: L, letters of the longest string; a model reads 2 L + 1 tokens.
        min_seqlen: letters of the shortest string; 0: all have L.

    Raises:
        ConfigError: vocab_size below 5, or min_seqlen out of range.
        SeqlenError: seqlen below 1.
    """

    vocab_size: int
    seqlen: int
    min_seqlen: int = 0

    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Any]] = {"vocab_size": 29, "seqlen": 64}
    name: ClassVar[str] = "palindrome"
    backwards: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.check()
