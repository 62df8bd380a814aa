"""What the figures were measured on."""

import platform
import subprocess
from pathlib import Path

import psutil

from bench.samples import Machine

OBSERVE_S = 2.0


def this_machine() -> Machine:
    """Takes `OBSERVE_S`, to see how busy the machine is with other work."""
    return Machine(
        cpu=_cpu_name(),
        cores=psutil.cpu_count() or 1,
        memory_gb=psutil.virtual_memory().total / 1e9,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        busy_percent=psutil.cpu_percent(OBSERVE_S),
    )


def commit() -> str:
    """The checkout's commit, `-dirty` when it has other changes; "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        described = subprocess.run(command, capture_output=True, check=False, text=True)
    except FileNotFoundError:
        return "unknown"
    return described.stdout.strip() or "unknown"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
