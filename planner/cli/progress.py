"""Progress on stderr: incumbent, bound, gap and seconds, one line each."""

import sys
from collections.abc import Callable

from planner.pipeline import Event
from planner.units import show_objective


def progress_to_stderr(unit: str) -> Callable[[Event], None]:
    """Return a callback that prints each event as one line."""

    def show(event: Event) -> None:
        incumbent = _amount(event.objective, unit)
        bound = _amount(event.bound, unit)
        gap = "-"
        if event.objective and event.bound is not None:
            gap = f"{max(0.0, 1 - event.bound / event.objective):.2%}"
        print(
            f"{event.seconds:7.1f} s  incumbent {incumbent}  bound {bound}  gap {gap}",
            file=sys.stderr,
            flush=True,
        )

    return show


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return show_objective(value, unit)
