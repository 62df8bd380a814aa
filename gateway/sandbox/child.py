"""Becomes a store: drops root, ties its life to its parent's, then replaces itself with the command it was given.

Run as a script (`python -I -S child.py PARENT_PID DEATH_SIGNAL IDENTITY COMMAND …`), so that nothing has to happen
between a fork and an exec inside a process that has threads. It may import the standard library only.
Exit status 125: the identity could not be taken. 126: the command could not be executed.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

IDENTITY_REFUSED = 125
COMMAND_REFUSED = 126

# The uid that a store sees or gets when its parent is root: PostgreSQL refuses to run as uid 0.
NOBODY = 65534

# identity: as the parent · as NOBODY inside a user namespace, outside as the parent · otherwise "UID:GID"
SAME, NAMESPACE = "same", "namespace"

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1


def take_identity(identity: str) -> None:
    """Become `identity` for good, or raise OSError."""
    if identity == NAMESPACE:
        _enter_user_namespace()
    elif identity != SAME:
        uid, gid = (int(part) for part in identity.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def _enter_user_namespace() -> None:
    """Appear as NOBODY to the store while its files stay the parent's, so no folder has to be opened to others."""
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER)")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {gid} 1")


def die_with_parent(parent_pid: int, death_signal: int) -> None:
    """Ask the kernel for `death_signal` when the parent dies; exit now if it already has. Only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent_pid:
        sys.exit(IDENTITY_REFUSED)


def main(argv: list[str]) -> None:
    parent_pid, death_signal, identity, *command = argv
    os.umask(0o077)
    try:
        take_identity(identity)
    except OSError as error:
        print(f"cannot become {identity!r}: {error}", file=sys.stderr)
        sys.exit(IDENTITY_REFUSED)
    die_with_parent(int(parent_pid), int(death_signal))  # after the change of identity, which would forget it
    with contextlib.suppress(KeyboardInterrupt):
        try:
            os.execv(command[0], command)  # noqa: S606
        except OSError as error:
            print(f"cannot execute {command[0]}: {error}", file=sys.stderr)
            sys.exit(COMMAND_REFUSED)


if __name__ == "__main__":
    main(sys.argv[1:])
