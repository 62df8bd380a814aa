"""How one simulated OpenAI behaves by default; each request's scenario header may say otherwise."""

import msgspec


class SandboxOpenAISettings(msgspec.Struct, frozen=True, kw_only=True):
    """Pace, output length, key and bounds."""

    api_key: str | None = None  # the only key accepted; None accepts any, and none
    admin_key: str | None = None  # the only one that reads usage and costs; None accepts any, but not none
    ttft_ms: float = 0.0  # time to the first token
    tokens_per_s: float = 0.0  # 0: as fast as possible
    output_tokens: int = 24  # visible tokens of an answer that no limit cuts
    scenario: str = ""  # what holds for every request, in the syntax of the header
    log_entries_max: int = 100_000
    body_bytes_max: int = 64 * 1024 * 1024
    instance: str = ""  # hexadecimal, part of every id, so that two instances never give the same one
    shutdown_timeout_s: float = 1.0  # how long running answers may go on after a stop
