"""How busy this machine is, for limits of time that are meant for a quiet one. Knows nothing of what is limited."""

import os

BUSIEST = 2.5  # how much longer work may take at most


def overbooked() -> float:
    """Processes that want a core, for each core there is; 0 where the system does not say."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


def busy() -> float:
    """How much longer work takes here now: as many times as the cores are overbooked, within a limit; 1 where they are not."""
    return min(BUSIEST, max(1.0, overbooked()))
