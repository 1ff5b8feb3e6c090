"""Pieces of work take turns at the points where they wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from planner.executor.stepping import Pending, Steps, finish, interleave


@dataclass
class Sent:
    """A message that is there as soon as somebody waits for it."""

    label: str
    log: list[str] = field(default_factory=list)
    posted: float = 0.0
    arrived: float = 0.0
    prompt: bool = False

    def wait(self) -> None:
        self.log.append(f"wait {self.label}")


def piece(name: str, hops: int, log: list[str]) -> Steps[str]:
    """Work that sends ``hops`` times."""
    for hop in range(hops):
        log.append(f"{name}{hop}")
        yield Sent(f"{name}{hop}", log)
    log.append(f"{name} done")
    return name.upper()


def test_one_piece_waits_at_every_hop() -> None:
    """Law: alone, nothing overlaps."""
    log: list[str] = []
    assert finish(piece("a", 2, log)) == "A"
    assert log == ["a0", "wait a0", "a1", "wait a1", "a done"]


def test_two_pieces_take_turns_where_they_wait() -> None:
    """Law: b is sent before a is waited for, and a goes on before b is waited for."""
    log: list[str] = []
    assert interleave([piece("a", 2, log), piece("b", 2, log)]) == ["A", "B"]
    assert log == [
        *("a0", "b0", "wait a0", "a1", "wait b0", "b1"),
        *("wait a1", "a done", "wait b1", "b done"),
    ]


def test_pieces_of_unlike_length_all_end() -> None:
    """Law: results come in the order of the pieces, whoever ends first."""
    log: list[str] = []
    pieces = [piece("a", 0, log), piece("b", 3, log), piece("c", 1, log)]
    assert interleave(pieces) == ["A", "B", "C"]
    assert interleave([]) == []


def test_no_more_pieces_begin_than_may_be_on_their_way() -> None:
    """Law: c begins only when a or b has ended."""
    log: list[str] = []
    pieces = (piece(name, 1, log) for name in "abc")
    assert interleave(pieces, at_once=2) == ["A", "B", "C"]
    assert log.index("a done") < log.index("c0") < log.index("b done")


def test_staggered_pieces_are_at_different_hops() -> None:
    """Law: b begins when a has paused twice, and then they take turns."""
    log: list[str] = []
    pieces = [piece("a", 4, log), piece("b", 4, log), piece("c", 4, log)]
    assert interleave(pieces, at_once=3, stagger=2) == ["A", "B", "C"]
    sent = [entry for entry in log if "wait" not in entry and "done" not in entry]
    assert sent[:8] == ["a0", "a1", "b0", "a2", "b1", "c0", "a3", "b2"]


def test_staggered_pieces_that_never_pause_all_run() -> None:
    """Law: a piece that ends at once does not hold up the next."""
    log: list[str] = []
    assert interleave([piece(n, 0, log) for n in "abc"], stagger=3) == ["A", "B", "C"]


def prompt_piece(name: str, log: list[str]) -> Steps[str]:
    """Work that needs something at once before it sends."""
    log.append(f"{name} asks")
    yield Sent(f"{name} counts", log, prompt=True)
    log.append(f"{name} sends")
    yield Sent(f"{name} rows", log)
    return name


def test_what_is_prompt_keeps_the_turn() -> None:
    """Law: a sends its rows before b begins, so that they travel while b works."""
    log: list[str] = []
    assert interleave([prompt_piece("a", log), prompt_piece("b", log)]) == ["a", "b"]
    assert log == [
        *("a asks", "wait a counts", "a sends"),
        *("b asks", "wait b counts", "b sends"),
        *("wait a rows", "wait b rows"),
    ]


class Diary:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def computed(self, piece: int, start: float, end: float) -> None:
        assert start <= end
        self.entries.append(f"work {piece}")

    def travelled(self, piece: int, pending: Pending) -> None:
        self.entries.append(f"{pending.label} of {piece}")


def test_a_watch_sees_every_stretch_of_work_and_every_wait() -> None:
    """Law: between two waits there is one stretch of work."""
    diary = Diary()
    interleave([piece("a", 1, []), piece("b", 1, [])], watch=diary)
    work = ["work 0", "work 1"]
    assert diary.entries == [*work, "a0 of 0", work[0], "b0 of 1", work[1]]


def test_each_piece_is_at_work_and_waits_in_its_own_lane() -> None:
    """Law: a piece is made, goes on and waits in the context of its number alone."""
    log: list[str] = []

    @contextmanager
    def lane(number: int) -> Iterator[None]:
        log.append(f"<{number}")
        yield
        log.append(f"{number}>")

    def pieces() -> Iterator[Steps[str]]:
        for name in "ab":
            log.append(f"make {name}")
            yield piece(name, 1, log)

    assert interleave(pieces(), lane=lane) == ["A", "B"]
    assert log == [
        *("<0", "make a", "a0", "0>", "<1", "make b", "b0", "1>"),
        *("<0", "wait a0", "a done", "0>", "<2", "2>", "<1", "wait b0", "b done", "1>"),
    ]
