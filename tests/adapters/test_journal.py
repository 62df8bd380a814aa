"""The journal keeps what it promised to keep, over crashes, full disks and dead neighbours."""

import asyncio
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.journal import Journal, JournalFull, JournalInUse
from gateway.core.holds import Outcome, Settlement, Terms

TERMS = Terms("account", "key", "/v1/embeddings", "model\nname", "card", 1)


def settlement(request_id: str, cost: int = 5) -> Settlement:
    return Settlement(request_id, TERMS, Outcome.EXACT, 10, cost, 1)


def ids(settlements: list[Settlement]) -> list[str]:
    return [each.request_id for each in settlements]


async def fill(path: Path, *request_ids: str) -> None:
    """Leave a journal behind, as a process that has died."""
    journal = Journal(path)
    for request_id in request_ids:
        await journal.append(settlement(request_id))
    await journal.close()


async def test_what_was_appended_is_there_after_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "spool" / "a.journal")
    await asyncio.gather(*(journal.append(settlement(str(number))) for number in range(500)))
    await journal.append(settlement("last", cost=2**60))
    await journal.close()
    again = Journal(tmp_path / "spool" / "a.journal")
    assert ids(again.replay()) == [*map(str, range(500)), "last"]
    assert again.replay()[-1] == settlement("last", cost=2**60)
    await again.close()


async def test_a_process_killed_right_after_an_append_loses_nothing(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from gateway.adapters.journal import Journal
from gateway.core.holds import Outcome, Settlement, Terms

async def main():
    journal = Journal(Path(sys.argv[1]))
    number = 0
    while True:
        terms = Terms("account", "key", "/v1/embeddings", "model", "card", 1)
        await journal.append(Settlement(str(number), terms, Outcome.EXACT, 10, 5, 1))
        print(number, flush=True)
        number += 1

asyncio.run(main())
"""
    path = tmp_path / "a.journal"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        promised = [process.stdout.readline().strip() for _ in range(20)]
        with pytest.raises(JournalInUse):
            Journal(path)
        process.send_signal(signal.SIGKILL)
        promised += process.stdout.read().split()
    journal = Journal(path)
    assert ids(journal.replay())[: len(promised)] == promised
    await journal.close()


@settings(max_examples=50, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_torn_end_is_cut_off_and_appended_after(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "a.journal"

    async def crash_and_return() -> None:
        await fill(path, "0", "1", "2")
        content = path.read_bytes()
        kept = content[: max(0, len(content) - cut)]
        path.write_bytes(kept)
        whole = kept.count(b"\n")
        journal = Journal(path)
        assert ids(journal.replay()) == ["0", "1", "2"][:whole]
        await journal.append(settlement("next"))
        assert ids(journal.replay()) == [*["0", "1", "2"][:whole], "next"]
        await journal.close()

    asyncio.run(crash_and_return())


@pytest.mark.parametrize("damage", [b"x", b"\n", b"\r\n", b"\xff" * 40])
async def test_a_damaged_record_costs_only_itself_and_is_kept_for_inspection(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "a.journal"
    await fill(path, "0", "1", "2")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1][:50] + damage + lines[1][51:]
    path.write_bytes(b"".join(lines))
    journal = Journal(path)
    assert ids(journal.replay()) == ["0", "2"]
    await journal.discard({"0"})
    assert ids(journal.replay()) == ["2"]
    assert lines[1] in path.read_bytes()
    await journal.close()


async def test_what_is_discarded_does_not_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal = Journal(path)
    await asyncio.gather(*(journal.append(settlement(str(number))) for number in range(10)))
    await asyncio.gather(
        journal.discard({str(number) for number in range(9)}), journal.append(settlement("10")), journal.discard({"no"})
    )
    assert ids(journal.replay()) == ["9", "10"]
    await journal.append(settlement("11"))
    await journal.close()
    again = Journal(path)
    assert ids(again.replay()) == ["9", "10", "11"]
    await again.discard({"9", "10", "11"})
    await again.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_running_journal_stays_locked_over_a_discard(tmp_path: Path) -> None:
    journal, neighbour = Journal(tmp_path / "a.journal"), Journal(tmp_path / "b.journal")
    await journal.append(settlement("0"))
    await journal.append(settlement("1"))
    await journal.discard({"0"})
    assert neighbour.adopt_all() == []
    with pytest.raises(JournalInUse):
        Journal(tmp_path / "a.journal")
    assert ids(journal.replay()) == ["1"]
    await journal.close()
    await neighbour.close()


async def test_journals_of_dead_processes_are_taken_over_once(tmp_path: Path) -> None:
    await fill(tmp_path / "dead.journal", "0", "1")
    await fill(tmp_path / "torn.journal", "2", "3")
    (tmp_path / "torn.journal").write_bytes((tmp_path / "torn.journal").read_bytes()[:-5])
    (tmp_path / "dead.journal.new").write_bytes(b"half a rewr")
    journal, other = Journal(tmp_path / "own.journal"), Journal(tmp_path / "other.journal")
    assert ids(journal.adopt_all()) == ["0", "1", "2"]
    assert other.adopt_all() == []
    await journal.append(settlement("4"))
    assert ids(journal.replay()) == ["0", "1", "2", "4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.journal", "own.journal"]
    await journal.close()
    await other.close()


async def test_a_full_journal_says_so_and_takes_more_once_there_is_room(tmp_path: Path) -> None:
    await fill(tmp_path / "dead.journal", "0")
    journal = Journal(tmp_path / "a.journal", bytes_max=500)
    outcomes = await asyncio.gather(
        *(journal.append(settlement(str(number))) for number in range(20)), return_exceptions=True
    )
    kept = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert 0 < len(kept) < 20
    assert all(isinstance(outcome, JournalFull) for outcome in outcomes[len(kept) :])
    assert ids(journal.replay()) == [str(number) for number in kept]
    with pytest.raises(JournalFull):
        journal.adopt_all()
    assert (tmp_path / "dead.journal").exists()
    await journal.discard(set(ids(journal.replay())))
    assert ids(journal.adopt_all()) == ["0"]
    await journal.close()


@contextmanager
def disk_of(size_bytes: int) -> Iterator[None]:
    """No file may grow beyond `size_bytes`: a full disk, as a process sees it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_is_told_and_leaves_no_half_record(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal = Journal(path)
    await journal.append(settlement("0"))
    before = path.read_bytes()
    with disk_of(len(before) + 20):
        outcomes = await asyncio.gather(
            *(journal.append(settlement(str(number))) for number in range(1, 4)), return_exceptions=True
        )
        assert all(isinstance(outcome, OSError) for outcome in outcomes)
    assert path.read_bytes() == before
    await journal.append(settlement("4"))
    with disk_of(20), pytest.raises(OSError):
        await journal.discard({"0"})
    assert ids(journal.replay()) == ["0", "4"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.journal"]
    await journal.append(settlement("5"))
    await journal.close()
    again = Journal(path)
    assert ids(again.replay()) == ["0", "4", "5"]
    await again.close()


async def test_a_caller_that_gives_up_does_not_stop_the_write(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.journal")
    first = asyncio.ensure_future(journal.append(settlement("0")))
    second = asyncio.ensure_future(journal.append(settlement("1")))
    await asyncio.sleep(0)
    first.cancel()
    await second
    await journal.close()
    again = Journal(tmp_path / "a.journal")
    assert ids(again.replay()) == ["0", "1"]
    await again.close()


async def test_the_settlement_that_came_last_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.journal")
    await journal.append(settlement("0", cost=1))
    await journal.append(settlement("0", cost=2))
    assert journal.replay() == [settlement("0", cost=2)]
    await journal.close()


def test_a_journal_that_no_neighbour_would_find_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="journal"):
        Journal(tmp_path / "a.log")
