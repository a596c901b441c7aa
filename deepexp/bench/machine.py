"""What the JSON of every benchmark begins with: which benchmark it is, and on what machine it was measured."""

import os
from typing import Any

from deepexp.run import provenance

FORMAT = 1


def described(benchmark: str) -> dict[str, Any]:
    """The format and the benchmark's name; versions, cores, and the mean load of the last minute where it is known."""
    return {
        "format": FORMAT,
        "benchmark": benchmark,
        "versions": provenance.versions(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
