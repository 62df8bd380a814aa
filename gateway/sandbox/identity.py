"""Who a store runs as. PostgreSQL refuses to be root, so a root parent hands its stores another identity (see `child`).

In order: an ordinary user stays itself; root uses a user namespace, which needs no file to change hands; where those
are forbidden, as in most containers, the data is given to NOBODY and the store becomes NOBODY.
"""

import os
import stat
import subprocess
import sys
from pathlib import Path

from gateway.sandbox import child
from gateway.sandbox.errors import SandboxError

NOBODY = f"{child.NOBODY}:{child.NOBODY}"


def choose_identity(directory: Path) -> str:
    """The identity for a store on `directory`; the same again at every start, unless the system changed its mind."""
    if os.geteuid() != 0:
        return child.SAME
    if directory.stat().st_uid == child.NOBODY:
        return NOBODY
    return child.NAMESPACE if namespaces_are_permitted() else NOBODY


def namespaces_are_permitted() -> bool:
    if sys.platform != "linux":
        return False
    launch = [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), "9", child.NAMESPACE, "/bin/true"]
    return subprocess.run(launch, capture_output=True, check=False).returncode == 0  # noqa: S603


def require_reachable(path: Path) -> None:
    """Raise `SandboxError` naming the first folder above `path` that NOBODY cannot enter, if there is one."""
    for folder in reversed(path.parents):
        status = folder.stat()
        others_enter = stat.S_IMODE(status.st_mode) & stat.S_IXOTH
        if not others_enter and status.st_uid != child.NOBODY:
            raise SandboxError(
                f"The embedded stores cannot run as root here, nor reach {path} as nobody, who cannot enter {folder}; "
                "run Tollgate as an ordinary user, or set TOLLGATE_DATABASE_URL and TOLLGATE_REDIS_URL instead."
            )


def hand_over(directory: Path, identity: str) -> None:
    """Give `directory` and all in it to NOBODY when that is who will use it."""
    if identity == NOBODY:
        require_reachable(directory)
    if identity != NOBODY or directory.stat().st_uid == child.NOBODY:
        return
    for path in (*directory.rglob("*"), directory):  # itself last: it tells that the whole has changed hands
        os.chown(path, child.NOBODY, child.NOBODY, follow_symlinks=False)
