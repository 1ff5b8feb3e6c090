"""What ends one rank ends all of them, each with one clear message."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.executor.world.ranks import (
    Ranks,
    Told,
    computing,
    free_port,
    torchrun_variables,
)

if TYPE_CHECKING:
    from planner.executor.world.nursery import Nursery

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

ENDLESS = 10**9


def words_of(told: list[Told]) -> str:
    """Return the words that all ranks say alike."""
    said = {rank.words for rank in told}
    assert len(said) == 1, said
    return said.pop()


@pytest.mark.parametrize("of", [0, 1, 2])
@pytest.mark.parametrize("fault", ["kill", "exit"])
def test_a_rank_that_dies_ends_all_others(
    nursery: "Nursery", fault: str, of: int
) -> None:
    """Law: whoever dies, the others say who it was, and none hangs."""
    ranks = torchrun_variables(3, free_port())
    told = Ranks(nursery, ranks, rounds=ENDLESS, fault=fault, of=of).told()
    victim = told.pop(of)
    assert (victim.code, victim.words) == (-9 if fault == "kill" else 0, "")
    assert [(rank.kind, rank.code) for rank in told] == [("WorldError", 5)] * 2
    assert words_of(told).startswith(f"rank {of} (process ")
    assert words_of(told).endswith(" died without a word")


@pytest.mark.parametrize("of", [0, 1])
def test_a_rank_that_stops_ends_all_others_and_itself_when_it_goes_on(
    nursery: "Nursery", of: int
) -> None:
    """Law: silence counts as death, also where a collective waits for it."""
    ranks = Ranks(
        nursery,
        torchrun_variables(2, free_port()),
        rounds=ENDLESS,
        fault="stop",
        of=of,
        silent_s=2.5,
    )
    with_victim = ranks._children[of]
    other = ranks._told(1 - of)
    assert (other.kind, other.code) == ("WorldError", 5)
    assert other.words.startswith(f"rank {of} (process {with_victim.pid} on ")
    assert other.words.endswith(" did not answer for 2.5 s: stopped or hung")
    victim = ranks.resume(of)
    assert (victim.kind, victim.code) == ("WorldError", 5)
    ranks._nursery.kill(ranks._children)


def test_a_rank_that_its_launcher_ends_says_so(nursery: "Nursery") -> None:
    """Law: a signal to end is heard while a collective waits, and told to all."""
    ranks = torchrun_variables(2, free_port())
    told = Ranks(nursery, ranks, rounds=ENDLESS, fault="term", of=1).told()
    assert [rank.code for rank in told] == [5, 143]
    assert told[0].words.endswith(" died without a word")
    assert told[1].words == "the launcher ended this rank (SIGTERM)"


@pytest.mark.parametrize("of", [0, 2])
@pytest.mark.parametrize(
    ("fault", "kind", "own", "code"),
    [
        ("bug", "WorldError", "rank {} failed: KeyError: 'lost'", 1),
        ("mismatch", "ReplayMismatch", "layer 3 differs; layer 4 differs", 6),
    ],
)
def test_a_rank_that_fails_says_why_to_all(
    nursery: "Nursery", fault: str, kind: str, own: str, code: int, of: int
) -> None:
    """Law: the failing rank keeps its own error; its code is everyone's."""
    ranks = torchrun_variables(3, free_port())
    told = Ranks(nursery, ranks, rounds=ENDLESS, fault=fault, of=of).told()
    victim = told.pop(of)
    assert (victim.kind, victim.words) == (kind, own.format(of))
    assert [(rank.kind, rank.code) for rank in told] == [("WorldError", code)] * 2
    reason = own.format(of).removeprefix(f"rank {of} failed: ")
    assert words_of(told) == f"rank {of} failed: {reason}"


def test_another_manifest_is_named_by_every_rank(nursery: "Nursery") -> None:
    """Law: before any collective, all ranks say which of them differ."""
    ranks = torchrun_variables(3, free_port())
    told = Ranks(nursery, ranks, claims="0aa,1bb,0aa").told()
    assert [(rank.kind, rank.code) for rank in told] == [("ManifestError", 3)] * 3
    assert words_of(told) == (
        "rank 1 of 3 would run another manifest or other options than rank 0 (digest "
        "1bb, rank 0's is 0aa): give all ranks the same file and options"
    )


def test_a_world_of_another_size_than_the_plan_ends(nursery: "Nursery") -> None:
    """Law: as many ranks as the plan has GPUs, or none runs."""
    told = Ranks(nursery, torchrun_variables(2, free_port()), gpus=4).told()
    assert [(rank.kind, rank.code) for rank in told] == [("ManifestError", 3)] * 2
    assert words_of(told) == (
        "the plan has 4 GPUs, the world 2 ranks: start 4 ranks, one per GPU of the plan"
    )


def test_ranks_that_know_other_sizes_end(nursery: "Nursery") -> None:
    """Law: a rank of another start is told apart by the size it believes in."""
    port = free_port()
    ranks = [torchrun_variables(2, port)[0], torchrun_variables(3, port)[1]]
    told = Ranks(nursery, ranks, gpus=2, timeout_s=1.0).told()
    assert [(rank.kind, rank.code) for rank in told] == [("ManifestError", 3)] * 2
    assert words_of(told) == (
        "rank 0 was started in a world of 2 ranks, rank 1 in one of 3: start all with "
        "one command"
    )


def test_a_rank_that_does_not_come_is_named(nursery: "Nursery") -> None:
    """Law: those who came do not wait longer than they were told to."""
    ranks = torchrun_variables(3, free_port())[:2]
    told = Ranks(nursery, ranks, timeout_s=1.0).told()
    assert {rank.code for rank in told} == {5}
    assert words_of(told) == (
        "rank 2 of 3 did not come within 1 s: start all ranks together, or set "
        "PLANNER_WORLD_WAIT to more seconds"
    )


@pytest.mark.parametrize("machine", ["127.0.0.1", "no-such-machine.invalid"])
def test_rank_0_that_cannot_be_reached_is_said_so(
    nursery: "Nursery", machine: str
) -> None:
    """Law: the address that was tried is in the message."""
    alone = torchrun_variables(2, free_port())[1] | {"MASTER_ADDR": machine}
    (told,) = Ranks(nursery, [alone], timeout_s=1.0).told()
    assert (told.kind, told.code) == ("WorldError", 5)
    assert machine in told.words
    assert "MASTER_ADDR" in told.words


@contextmanager
def program_at_port(says: bytes) -> Iterator[int]:
    """Run another program that listens, greets with some bytes and keeps quiet."""
    held = []

    def answer() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.sendall(says)
            held.append(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in held:
        connection.close()


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-other\n", b'{"a": 1}\n', b"\xff\n"])
def test_a_port_of_another_program_ends_all_ranks(
    nursery: "Nursery", says: bytes
) -> None:
    """Law: rank 0 cannot listen, and the others do not take the program for it."""
    with program_at_port(says) as port:
        told = Ranks(nursery, torchrun_variables(3, port), timeout_s=1.0).told()
    assert [(rank.kind, rank.code) for rank in told] == [("WorldError", 5)] * 3
    first, *others = told
    assert first.words.startswith(f"port {port} of 127.0.0.1 is in use")
    assert f"127.0.0.1:{port} is not where rank 0 listens" in words_of(others)
    assert "set MASTER_PORT to a free port" in words_of(others)


@pytest.mark.parametrize("job", ["b", ""])
def test_a_port_of_another_run_ends_the_later_one_only(
    nursery: "Nursery", tmp_path: Path, job: str
) -> None:
    """Law: ranks join their own run or none, also where nothing tells jobs apart."""
    port = free_port()
    own = "a" if job else ""
    earlier = Ranks(
        nursery, torchrun_variables(2, port, own), rounds=100, folder=str(tmp_path)
    )
    computing(tmp_path, 2)
    later = Ranks(nursery, torchrun_variables(2, port, job), timeout_s=1.0).told()
    assert [(rank.kind, rank.code) for rank in later] == [("WorldError", 5)] * 2
    assert later[0].words.startswith(f"port {port} of 127.0.0.1 is in use")
    assert "run" in later[1].words
    assert [rank.value for rank in earlier.told()] == [2, 2]
