"""TLS to an upstream: certificates are verified, a new connection resumes the session of one before it, and its end is
believed when the upstream itself has said it.

asyncio and uvloop have no way to hand a session to a new connection, but both ask the context for its TLS object.
"""

from asyncio import BaseTransport
from collections.abc import Iterator
from ssl import (
    PROTOCOL_TLS_CLIENT,
    MemoryBIO,
    SSLContext,
    SSLError,
    SSLObject,
    SSLSession,
    SSLZeroReturnError,
)

REST_BYTES = 64 * 1024


class ResumingContext(SSLContext):
    """For one origin: another host name begins anew."""

    _newest: SSLObject | None = None
    _session: SSLSession | None = None

    def wrap_bio(
        self,
        incoming: MemoryBIO,
        outgoing: MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: SSLSession | None = None,
    ) -> SSLObject:
        if self._newest is not None:
            self._remember(self._newest, server_hostname)
        self._newest = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session or self._session)
        return self._newest

    def _remember(self, newest: SSLObject, server_hostname: str | bytes | None) -> None:
        """Tickets come late, with TLS 1.3 behind the handshake, so they are looked for when one is needed.

        A ticket only comes when the certificate has been verified: nothing else may be resumed.
        """
        if newest.server_hostname != server_hostname:
            self._session = None
            return
        try:
            session = newest.session
        except ValueError:  # its handshake is not over, so its session is none yet
            return
        if session is not None and session.has_ticket:
            self._session = session


def client_context(ca_file: str | None = None) -> ResumingContext:
    """Trust the system's certificate authorities (OpenSSL's SSL_CERT_FILE is heeded), or those of `ca_file`."""
    context = ResumingContext(PROTOCOL_TLS_CLIENT)  # verifies chain and host name, speaks TLS 1.2 and above
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(ca_file)
    return context


def rest_of(transport: BaseTransport) -> Iterator[bytes]:
    """What has come over this closed connection and was not handed over.

    uvloop leaves it where it is when the peer ends the connection while reading is paused:
    https://github.com/MagicStack/uvloop/pull/661
    """
    tls: SSLObject | None = transport.get_extra_info("ssl_object")
    try:
        while tls is not None and (data := tls.read(REST_BYTES)):
            yield data
    except SSLError:
        return


def is_end_proven(transport: BaseTransport) -> bool:
    """Whether the end of this closed connection is its peer's doing: with TLS, anybody on the way could have cut it
    unless the peer closed that first (RFC 9112 §9.8).
    """
    tls: SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return True
    try:
        return not tls.read(1)
    except SSLZeroReturnError:
        return True
    except SSLError:
        return False
