"""The shell side of the course: `course check`, `course hint`, `course doctor` and the others, one module a command where it is long."""
