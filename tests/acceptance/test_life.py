"""From start to stop: any moment is good for a signal, nothing stays behind, the next start finds the same books."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.patience import PATIENCE_S
from tests.processes import command_of, descendants, wait_all_ended
from tests.up import Stack, running_up

HELLO: Any = [{"role": "user", "content": "Say hello."}]


def chat(base_url: str, key: str) -> None:
    with OpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
        assert client.chat.completions.create(model="gpt-4o-mini", messages=HELLO).choices


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_second_start_finds_the_same_balances(tmp_path: Path) -> None:
    with running_up(tmp_path / "data") as first:
        account, key = first.new_caller("lasting")
        chat(first.base_url, key)
        left = first.settled_account(account)
        processes = descendants(first.process.pid)
    wait_all_ended(processes)
    with running_up(tmp_path / "data") as second:
        assert second.tollgate("accounts", "show", account)["balance_ucr"] == left["balance_ucr"] < 1_000_000_000
        chat(second.base_url, key)
        assert second.tollgate("audit")["clean"]


@pytest.mark.parametrize("wanted", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", ["postgres", "serve", "ready"])
def test_a_signal_at_any_moment_ends_everything_cleanly(tmp_path: Path, wanted: signal.Signals, after: str) -> None:
    """`after`: the kind of process whose appearance is waited for, or the ready line."""
    command = [
        sys.executable,
        "-m",
        "gateway",
        "up",
        "--json",
        "--data",
        str(tmp_path / "data"),
        "--upstream",
        "sandbox",
    ]
    command += ["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if after == "ready":
            assert json.loads(process.stdout.readline())["event"] == "ready"
        else:
            wait_for_command(process.pid, after)
        started = descendants(process.pid)
        process.send_signal(wanted)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out == ""
        assert "Traceback" not in err
    wait_all_ended(started)


def test_the_demo_shows_three_calls_and_what_they_cost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "demo", "--data", str(tmp_path / "data"), "--upstream", "sandbox"]
    command += ["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = ""
        while "until Ctrl-C" not in shown:
            line = process.stdout.readline()
            assert line, "the demo ended"
            shown += line
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err.strip()) == (0, "")
    assert "bought starter for $5.00 at the simulated Stripe: 5000 credits" in shown
    assert "account demo has 5000 credits" in shown
    assert [shown.count(what) for what in ("exact", "capture", "top_up")] == [3, 3, 1]
    for wanted in ("base_url  http://127.0.0.1:", "key       sk-tg-", "curl -i http://127.0.0.1:"):
        assert wanted in shown
    assert max(len(line) for line in shown.splitlines() if "curl" not in line) <= 80


def wait_for_command(pid: int, word: str, timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not any(word in command_of(child) for child in descendants(pid)):
        assert time.monotonic() < deadline, f"no process of {pid} runs {word}"
        time.sleep(0.005)


def test_two_gateways_share_one_port_and_one_balance(pair: Stack) -> None:
    assert {name for name in pair.ready["processes"] if name.startswith("serve")} == {"serve-0", "serve-1"}
    account, key = pair.new_caller("shared")
    for _ in range(12):
        chat(pair.base_url, key)
    pair.settled_account(account)
    pair.tollgate("audit")
    served = {
        sample.labels["process"]
        for family in text_string_to_metric_families(get(f"{pair.ops_url}/metrics")[1])
        for sample in family.samples
        if sample.name == "tollgate_connections"
    }
    assert served == {"serve-0", "serve-1"}


def test_the_operations_listener_tells_health_readiness_and_every_processes_metrics(stack: Stack) -> None:
    assert get(f"{stack.ops_url}/health")[0] == 200
    assert get(f"{stack.ops_url}/readyz")[0] == 200
    _, key = stack.new_caller("metrics")
    chat(stack.base_url, key)
    families = {f.name: f for f in text_string_to_metric_families(get(f"{stack.ops_url}/metrics")[1])}
    ours = {name for name in families if name.startswith("tollgate_")}
    assert ours >= {"tollgate_calls", "tollgate_open_holds", "tollgate_posted", "tollgate_posting_lag_seconds"}
    for name in ours:
        assert {sample.labels.get("process") for sample in families[name].samples} <= {"serve-0", "work", "up"}
    calls = sum(sample.value for sample in families["tollgate_calls"].samples if sample.name.endswith("_total"))
    assert calls > 0


@contextmanager
def running(arguments: list[str], environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """One `tollgate` process; yields its ready line."""
    command = [sys.executable, "-m", "gateway", *arguments, "--json", "--ops-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            assert process.wait(60) == 0


def test_serving_and_working_alone_on_stores_of_ones_own(
    stack: Stack, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    environment = {
        "TOLLGATE_DATABASE_URL": database_url,
        "TOLLGATE_REDIS_URL": redis_url,
        "TOLLGATE_UPSTREAM_URL": stack.upstream_url,
        "TOLLGATE_SPOOL_DIR": str(tmp_path / "spool"),
    }
    with (
        running(["work"], environment) as worker,
        running(["serve", "--listen", "127.0.0.1:0"], environment) as gateway,
    ):
        alone = Stack(tmp_path, stack.process, stack.ready | {"database_url": database_url, "redis_url": redis_url})
        account, key = alone.new_caller("alone")
        chat(gateway["base_url"], key)
        assert alone.settled_account(account)["balance_ucr"] < 1_000_000_000
        for process in (worker, gateway):
            assert get(f"{process['ops_url']}/readyz")[0] == 200
            assert "tollgate_" in get(f"{process['ops_url']}/metrics")[1]


def test_no_secret_is_ever_logged(tmp_path: Path) -> None:
    with running_up(tmp_path / "data", env={"TOLLGATE_LOG_LEVEL": "debug", "OPENAI_API_KEY": "sk-upstreams"}) as up:
        _, key = up.new_caller("secretive")
        chat(up.base_url, key)
        secrets = [
            key,
            "sk-upstreams",
            *(up.ready[name].split("@")[0].split(":")[2] for name in ("database_url", "redis_url")),
        ]
    logged = (tmp_path / "data.stderr").read_text()
    assert logged
    assert not [secret for secret in secrets if secret in logged]
