"""Copy: repeat a string of letters.

One example with V = 8 (`.` = 0, letters a to e = 1 to 5, `$` = 6, `|` = 7) and L = 4:

    position   0  1  2  3  4  5  6  7  8
    inputs     $  d  a  b  a  |  d  a  b
    targets    .  .  .  .  .  d  a  b  a

Letters are uniform and independent. With min_seqlen, the string has a length uniform in
[min_seqlen, L], and `.` (token 0) stands behind the last letter but one of the answer, up to the
end. Source: Jelassi et al. 2024 (arXiv:2402.01032), whose examples are `$ s | s .` with 26 letters.
Several stand behind each other in one context there and here one does; the final `.` is scored
there and not here, where all the answers are letters.

This is not `compression`: there a model is shown nothing of the answer, and has to know the place.
Here it reads what it has copied so far and can go on from the same letters in the string.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mechbench.catalogue.registry import register_task
from mechbench.tasks.repeating import Repeating


@register_task("copy", source="Jelassi et al. 2024 (arXiv:2402.01032)", measures="copying")
@dataclass(frozen=True)
class Copy(Repeating):
    """Copy: repeat a string of letters, token by token.

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
    name: ClassVar[str] = "copy"
    backwards: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check()
