"""What ranks show each other before any collective, and what may not differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from planner.errors import ManifestError, PlannerError, UsageError, WorldError

SHOWN = 12
"""Digits of a digest in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A rank as it introduces itself.

    Attributes
    ----------
    claim
        Digest of the manifest and the options that it runs.
    gpus
        GPUs of its plan.
    fault
        Why it cannot take part; empty if it can.
    """

    rank: int
    size: int
    job: str
    claim: str
    gpus: int
    host: str
    pid: int
    fault: str = ""

    @property
    def place(self) -> str:
        """Rank, process and machine, for a message."""
        return f"rank {self.rank} (process {self.pid} on {self.host})"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Why a run ends on all ranks."""

    message: str
    code: int = WorldError.exit_code

    def error(self) -> PlannerError:
        """Return the error that says so."""
        if self.code == ManifestError.exit_code:
            return ManifestError(self.message)
        if self.code == UsageError.exit_code:
            return UsageError(self.message)
        return WorldError(self.message, self.code)


def judge(cards: Mapping[int, Card]) -> End | None:
    """Return why these ranks cannot run together; None where they can.

    Rank 0 is among them: what it says is what the others are held against.
    """
    ranks = [cards[rank] for rank in sorted(cards)]
    first = ranks[0]
    faults = [f"{card.place}: {card.fault}" for card in ranks if card.fault]
    if faults:
        return End(message="; ".join(faults), code=UsageError.exit_code)
    others = [card for card in ranks if card.size != first.size]
    if others:
        sizes = sorted({card.size for card in others})
        return _invalid(
            f"rank 0 was started in a world of {first.size} ranks, "
            f"{named(others)} in one of {_list(sizes)}: start all with one command"
        )
    others = [card for card in ranks if card.claim != first.claim]
    if others:
        claims = sorted({card.claim[:SHOWN] for card in others})
        return _invalid(
            f"{named(others)} of {first.size} would run another manifest or other "
            f"options than rank 0 (digest {_list(claims)}, rank 0's is "
            f"{first.claim[:SHOWN]}): give all ranks the same file and options"
        )
    if first.gpus != first.size:
        return _invalid(
            f"the plan has {first.gpus} GPUs, the world {first.size} "
            f"rank{'' if first.size == 1 else 's'}: start {first.gpus} ranks, one per "
            "GPU of the plan"
        )
    return None


def named(cards: Iterable[Card] | Iterable[int]) -> str:
    """Return ranks in words: ``rank 3``, ``ranks 1, 2 and 5``."""
    ranks = sorted(card.rank if isinstance(card, Card) else card for card in cards)
    return f"rank{'' if len(ranks) == 1 else 's'} {_list(ranks)}"


def _list(items: Sequence[object]) -> str:
    texts = [str(item) for item in items]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)


def _invalid(message: str) -> End:
    return End(message=message, code=ManifestError.exit_code)
