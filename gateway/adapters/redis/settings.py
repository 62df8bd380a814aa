"""What Redis' own settings mean for the money in it: it must not throw keys away, and must survive its restart."""

from gateway.adapters.redis.link import RedisLink, RedisScriptError


async def weaknesses(link: RedisLink) -> list[str]:
    """What is wrong with the settings, each with its remedy; raises `RedisUnavailable`."""
    memory, persistence = await figures(link, b"memory"), await figures(link, b"persistence")
    found = []
    if (policy := memory.get(b"maxmemory_policy", b"noeviction")) != b"noeviction":
        found.append(f"maxmemory-policy is {policy.decode()}: balances may be evicted; set it to noeviction")
    if persistence.get(b"aof_enabled", b"1") != b"1":
        found.append("the append-only file is off: a restart forgets open holds; set appendonly to yes")
    return found


async def figures(link: RedisLink, section: bytes) -> dict[bytes, bytes]:
    """One section of INFO; empty where a managed Redis does not tell."""
    try:
        reply = await link.command(b"INFO", section)
    except RedisScriptError:
        return {}
    lines = bytes(reply).split(b"\r\n")
    return dict(line.split(b":", 1) for line in lines if b":" in line)
