"""The three forward passes of chapter 05 against their peers: writes flash_forward.json.

Run: python benchmarks/flash_forward.py [FOLDER]   (a CUDA GPU; the same as `course bench flash_forward --output FOLDER`)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course_lib import recorded  # noqa: E402
from course_lib.commands import cli  # noqa: E402

if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else str(recorded.RESULTS)
    sys.exit(cli.main(["bench", "flash_forward", "--output", folder]))
