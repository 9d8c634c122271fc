"""Independent, reproducible random streams: what is drawn depends on labels, not on order."""

from __future__ import annotations

import hashlib


def derive(seed: int, *labels: str | int) -> int:
    """Return the 63-bit seed of the stream named by `labels` under `seed`.

    Streams with different labels are independent (SHA-256), so the batch of (seed, split, step)
    never depends on which batches were drawn before it.
    """
    text = "\x1f".join([str(int(seed)), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
