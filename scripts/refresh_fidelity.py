"""Write the table of docs/fidelity.md anew, from the attribute `fidelity` of every operator.

python scripts/refresh_fidelity.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from operators.fidelity_page import FILE, built_in, page


def main() -> None:
    FILE.write_text(page(FILE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{len(built_in())} operators in {FILE}")


if __name__ == "__main__":
    main()
