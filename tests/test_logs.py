"""Logs: every line, a library's too, is of one form and names its process."""

import json
import subprocess
import sys

SPEAK = """
import logging, warnings
import structlog
from gateway.logs import configure_logs
configure_logs("info", "json", "worker")
structlog.get_logger().info("ours", shard=3)
logging.getLogger("asyncpg").warning("theirs %s", 7)
logging.getLogger("asyncpg").info("chatter")
warnings.warn("odd")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("asyncio").exception("broken")
"""


def test_lines_of_tollgate_and_of_libraries_have_one_form_and_name_their_process() -> None:
    done = subprocess.run([sys.executable, "-c", SPEAK], capture_output=True, text=True, check=True)
    ours, theirs, warned, broken = map(json.loads, done.stderr.splitlines())
    for line in (ours, theirs, warned, broken):
        assert line["process"] == "worker"
        assert isinstance(line["pid"], int)
        assert line["timestamp"].endswith("Z")
    assert (ours["event"], ours["shard"], ours["level"]) == ("ours", 3, "info")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("theirs 7", "asyncpg", "warning")
    assert "ZeroDivisionError" in broken["exception"]
