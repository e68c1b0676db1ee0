"""The fused row kernels and matmul of chapter 04 against their peers: writes rows.json, matmul.json and ch04_rows.json.

Run: python benchmarks/ch04_rows.py [FOLDER]   (a CUDA GPU; the same as `course bench rows matmul --output FOLDER`)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course_lib import recorded  # noqa: E402
from course_lib.commands import cli  # noqa: E402

if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else str(recorded.RESULTS)
    sys.exit(cli.main(["bench", "rows", "matmul", "--output", folder]))
