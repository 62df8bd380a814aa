"""What `tollgate demo` shows once everything runs: three calls through the official SDK, and what they cost."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import ClientError, ClientSession
from openai import APIError, AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from rich.console import Console

from gateway.adapters.postgres.accounts import AccountError, LedgerLine
from gateway.app.stores import Stores, open_stores
from gateway.cli.output import table
from gateway.cli.target import CommandFailed
from gateway.config import Config
from gateway.core.access.key_terms import KeyTerms
from gateway.core.money import format_credits, parse_credits
from gateway.supervisor import Running

ACCOUNT = "demo"
KEY_NAME = "demo"
PACKAGE = "starter"
CREDITS = "5000"
MODEL = "gpt-4o-mini"
EMBEDDING_MODEL = "text-embedding-3-small"
POSTED_TIMEOUT_S = 10.0
POLL_S = 0.05


async def show_demo(running: Running, config: Config, *, is_sandbox: bool, as_json: bool = False) -> None:
    """Make an account with credits and a key, call, and show the money."""
    console = Console(quiet=as_json)
    stores_config = config.model_copy(update={"database_url": running.database_url, "redis_url": running.redis_url})
    async with open_stores(stores_config) as stores:
        account_id, is_new = await _account(stores)
        key = await _key(stores, account_id)
        if is_new:
            with console.status("buying credits …"):
                try:
                    done = await _first_credits(running, key, stores, account_id)
                except (ClientError, TimeoutError) as error:
                    raise CommandFailed(f"the demo's purchase failed: {error or 'no credit came in time'}") from error
            console.print(f"\n{done}", highlight=False)
        console.print(f"\naccount [bold]{ACCOUNT}[/] has {await _available(stores, account_id)} credits")
        with console.status("calling through the openai SDK …"):
            try:
                rows = await _call_all(running, key, stores, account_id)
            except (APIError, TimeoutError) as error:
                raise CommandFailed(
                    f"the demo's call failed: {error}; is OPENAI_API_KEY right? Unset it for the simulated OpenAI"
                ) from error
        upstream = "the simulated OpenAI" if is_sandbox else config.upstream_url
        columns = ["call", "held", "cost", "left", "outcome"]
        console.print(table(f"three calls to {upstream}, in credits", columns, rows, right=columns[1:4]))
        lines = await stores.accounts.lines(account_id, 8)
        columns = ["kind", "credits", "model", "request or reason"]
        ledger = [
            [
                line.kind,
                format_credits(line.amount),
                line.model or "",
                line.request_id or line.reason,
            ]
            for line in lines
        ]
        console.print(table("the newest ledger lines", columns, ledger, right=["credits"]))
    if as_json:
        calls = [dict(zip(("call", "held", "cost", "left", "outcome"), row, strict=True)) for row in rows]
        print(json.dumps({"event": "ready", "base_url": running.base_url, "key": key, "calls": calls}), flush=True)
    console.print(f"\nbase_url  {running.base_url}\nkey       {key}\n\nTry it:\n", highlight=False)
    body = f'{{"model":"{MODEL}","messages":[{{"role":"user","content":"Hello"}}]}}'
    fields = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    curl = f"curl -i {running.base_url}/chat/completions {fields} -d '{body}'"
    console.print(f"  {curl}\n", highlight=False, soft_wrap=True)
    console.print("Tollgate stays up until Ctrl-C; the next start finds the same balances.")


async def _account(stores: Stores) -> tuple[str, bool]:
    """The demo's account, and whether it is new: it gets its credits once, so a second start finds what was left."""
    try:
        return (await stores.accounts.find(ACCOUNT)).id, False
    except AccountError:
        return (await stores.accounts.create(ACCOUNT)).id, True


async def _first_credits(running: Running, key: str, stores: Stores, account_id: str) -> str:
    """Buy a package where Stripe is simulated, as a customer would; elsewhere credits are given. Tells which."""
    stripe_url = running.sandbox_stripe_url
    if not stripe_url:
        await stores.accounts.grant(account_id, parse_credits(CREDITS), "welcome to Tollgate")
        await stores.crediter.step()
        return f"given {CREDITS} credits: no payments are configured"
    api_url = running.base_url.removesuffix("/v1")
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "demo"}
    async with ClientSession(raise_for_status=True) as customer:
        body = {"package": PACKAGE}
        async with customer.post(f"{api_url}/api/purchases", json=body, headers=headers) as told:
            bought = await told.json()
        session = bought["checkoutUrl"].rpartition("/")[2]
        async with customer.post(f"{stripe_url}/_sandbox/checkout_sessions/{session}/pay", json={}):
            pass
    await asyncio.wait_for(_paid(stores, account_id), POSTED_TIMEOUT_S)
    price = f"${bought['amountCents'] / 100:.2f}"
    return f"bought [bold]{PACKAGE}[/] for {price} at the simulated Stripe: {bought['credits']} credits"


async def _paid(stores: Stores, account_id: str) -> None:
    while True:
        if (await stores.live_balance(account_id)).available > 0:
            return
        await asyncio.sleep(POLL_S)


async def _key(stores: Stores, account_id: str) -> str:
    """A new key. Those of earlier demos are in somebody's scrollback, and are revoked."""
    for earlier in await stores.keys.listing(account_id):
        if earlier.terms.name == KEY_NAME and earlier.revoked_at is None:
            await stores.keys.revoke(earlier.id)
    secret, _ = await stores.keys.issue(account_id, KeyTerms(name=KEY_NAME))
    return secret


async def _available(stores: Stores, account_id: str) -> str:
    return format_credits((await stores.live_balance(account_id)).available)


async def _call_all(running: Running, key: str, stores: Stores, account_id: str) -> list[list[str]]:
    async with AsyncOpenAI(base_url=running.base_url, api_key=key) as client:
        messages: list[ChatCompletionUserMessageParam] = [
            {"role": "user", "content": "Tell me a short story about a toll gate."}
        ]

        async def plain() -> Mapping[str, str]:
            raw = await client.chat.completions.with_raw_response.create(
                model=MODEL, messages=messages, max_completion_tokens=200
            )
            return raw.headers

        async def streamed() -> Mapping[str, str]:
            async with client.chat.completions.with_streaming_response.create(
                model=MODEL, messages=messages, max_completion_tokens=200, stream=True
            ) as raw:
                async for _ in raw.iter_lines():
                    pass
                return raw.headers

        async def embeddings() -> Mapping[str, str]:
            raw = await client.embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input="A toll gate at dusk")
            return raw.headers

        calls: list[tuple[str, Callable[[], Awaitable[Mapping[str, str]]]]] = [
            (f"{MODEL}, plain", plain),
            (f"{MODEL}, streamed", streamed),
            (f"{EMBEDDING_MODEL}", embeddings),
        ]
        return [await _call(name, call, stores, account_id) for name, call in calls]


async def _call(
    name: str, call: Callable[[], Awaitable[Mapping[str, str]]], stores: Stores, account_id: str
) -> list[str]:
    """Make one call and wait until the ledger has it."""
    headers = await call()
    request_id = headers["x-gateway-request-id"]
    line = await asyncio.wait_for(_posted(stores, account_id, request_id), POSTED_TIMEOUT_S)
    left = await _available(stores, account_id)
    return [name, headers["x-credits-held"], format_credits(-line.amount), left, line.outcome or ""]


async def _posted(stores: Stores, account_id: str, request_id: str) -> LedgerLine:
    while True:
        for line in await stores.accounts.lines(account_id, 20):
            if line.request_id == request_id:
                return line
        await asyncio.sleep(POLL_S)
