"""Write tests/golden/streams.json anew; do so only with a raised task version and a reason.

python scripts/refresh_golden.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "golden"))

from golden_streams import FILE, digests


def main() -> None:
    old = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    new = digests()
    FILE.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            verb = "added" if name not in old else "changed" if name in new else "removed"
            print(f"{verb}: {name}")
    print(f"{len(new)} streams in {FILE}")


if __name__ == "__main__":
    main()
