"""Make everything in leaderboards/ anew from the stored results: no training, no GPU.

python scripts/regenerate_leaderboards.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from mechbench.cli import main

if __name__ == "__main__":
    root = sys.argv[1:] or [str(Path(__file__).resolve().parents[1] / "leaderboards")]
    sys.argv = ["mechbench", "leaderboard", "build", *root]
    main()
