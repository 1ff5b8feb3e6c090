"""Pieces of work take turns at the points where they wait."""

from dataclasses import dataclass, field

from planner.executor.stepping import Steps, finish, interleave


@dataclass
class Sent:
    """A message that is there as soon as somebody waits for it."""

    name: str
    log: list[str] = field(default_factory=list)

    def wait(self) -> None:
        self.log.append(f"wait {self.name}")


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
