"""The bounds of both sides, each written out with its unit. What is not bounded here is bounded by these.

While one end is slower than the other, a call that is pumped holds in each direction what its two buffers may hold and
one read of the loop (256 KiB) for each: with these defaults less than 1 MiB, however long the body; TLS to upstream has
buffers of its own, of up to 0.8 MiB. A body that is read whole is held whole; how large it may be is for whoever reads
it to say.
"""

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client connection may cost."""

    connections_max: int = 50_000
    head_bytes_max: int = 32 * 1024
    header_count_max: int = 128
    head_timeout_s: float = 15.0  # from the first byte of a head to its end
    body_idle_timeout_s: float = 30.0  # over which a body that somebody waits for must keep to `bytes_per_s_min`
    keepalive_timeout_s: float = 75.0  # between two requests
    write_stall_timeout_s: float = 60.0  # over which a client must take what is buffered for it so fast
    bytes_per_s_min: int = 240  # of a body or an answer; a slower client is given up
    linger_timeout_s: float = 3.0  # for a client to stop sending what nobody reads any more
    abort_grace_s: float = 10.0  # for handlers to settle after a drain has cut their clients off
    write_high_water_bytes: int = 64 * 1024
    write_low_water_bytes: int = 16 * 1024
    request_buffer_bytes_max: int = 64 * 1024  # of a body nobody reads, or of requests that wait for their turn
    pipelined_max: int = 32  # requests taken from one read
    known_heads_bytes_max: int = 8 * 1024 * 1024  # of request heads remembered for all connections; takes 5 × as much
    sweep_s: float = 0.5  # how often timeouts are looked at: they are late by up to two of these


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long an upstream connection may take, and live."""

    connect_s: float = 5.0  # name, TCP and TLS
    head_s: float = 600.0  # from the request's last byte to the end of the answer's head
    body_idle_s: float = 300.0  # between two pieces of an answer
    idle_s: float = 30.0  # unused; less than upstream's own, so that it does not close first
    age_s_max: float = 300.0  # after which a connection is not used again, so that a changed name is followed


class Buffers(msgspec.Struct, frozen=True, kw_only=True):
    """What one upstream connection may hold."""

    head_bytes_max: int = 64 * 1024
    header_count_max: int = 256
    answer_bytes_max: int = 64 * 1024  # of an answer nobody takes
    write_high_water_bytes: int = 64 * 1024
    sweep_s: float = 0.5
