"""The private directory of one store, and what it keeps there over restarts: its password and its port."""

import secrets
import socket
from pathlib import Path
from typing import Annotated

import msgspec

from gateway.sandbox.errors import SandboxError
from gateway.sandbox.files import FileLock, make_private_directory, write_private

# Below the ranges from which systems take ports for outgoing connections, so a remembered port stays free.
PORT_MIN, PORT_MAX = 15_000, 32_000
PORT_TRIES = 50


class Connection(msgspec.Struct, frozen=True):
    """How a store is reached. The password goes into URLs and configuration lines, so it needs no quoting."""

    password: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{20,}\Z")]
    port: Annotated[int, msgspec.Meta(ge=1024, le=65_535)]


class StoreHome:
    """The directory of one store: `connection.json` (0600), `server.log`, `server.lock`, and the store's own files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.log = self.directory / "server.log"
        self.lock = FileLock(self.directory / "server.lock")
        self._connection_file = self.directory / "connection.json"

    def open(self) -> Connection:
        """Create what is missing; returns the kept connection, its port exchanged if another program has it now."""
        make_private_directory(self.directory)
        self.directory.chmod(0o700)
        try:
            kept = msgspec.json.decode(self._connection_file.read_bytes(), type=Connection)
        except FileNotFoundError:
            return self._keep(Connection(password=secrets.token_urlsafe(32), port=free_port()))
        except msgspec.DecodeError as error:
            raise SandboxError(
                f"{self._connection_file} is damaged ({error}); restore it, or choose another --data directory."
            ) from error
        return kept if is_free(kept.port) else self.exchange_port(kept)

    def exchange_port(self, connection: Connection) -> Connection:
        return self._keep(Connection(connection.password, free_port()))

    def _keep(self, connection: Connection) -> Connection:
        write_private(self._connection_file, msgspec.json.encode(connection))
        return connection


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the stores do: TIME_WAIT is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that is free now; who binds it later must be ready for a race."""
    for _ in range(PORT_TRIES):
        port = PORT_MIN + secrets.randbelow(PORT_MAX - PORT_MIN)
        if is_free(port):
            return port
    raise SandboxError(f"No free port between {PORT_MIN} and {PORT_MAX} on 127.0.0.1; free one and start again.")
