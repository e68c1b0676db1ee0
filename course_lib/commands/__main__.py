"""`python -m course_lib.commands`: the same as `course`."""

import sys

from course_lib.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
