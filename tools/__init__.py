"""Tools for the people who write the course. Nothing imports them but their tests; run each as `python -m tools.NAME`."""
