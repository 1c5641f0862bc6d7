"""`python -m demo [FOLDER]`: run the main job on a simulated Azure and prove what it did."""

from __future__ import annotations

import sys
from pathlib import Path

from demo.main_job import Demo, prepare


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".demo").resolve()
    prepare(folder)
    return 0 if Demo(folder, sys.stdout).run() else 1


if __name__ == "__main__":
    sys.exit(main())
