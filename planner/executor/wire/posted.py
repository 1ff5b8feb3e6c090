"""A collective that does not block, and when its rows arrived."""

import time
from typing import Any


class Posted:
    """A collective on its way.

    Parameters
    ----------
    work
        What ``torch.distributed`` gave for it.
    label
        What travels, for the timeline.
    size
        Bytes that leave this rank.
    prompt
        Whether whoever posted it waits for it at once.
    due
        Not there before this second of ``time.perf_counter``, under an injected
        delay.

    Attributes
    ----------
    posted, arrived
        Seconds of ``time.perf_counter``; ``arrived`` is known after ``wait``.
    """

    def __init__(
        self,
        work: Any,
        label: str,
        size: int,
        due: float = 0.0,
        *,
        prompt: bool = False,
    ) -> None:
        self._work, self._due, self.prompt = work, due, prompt
        self.label, self.size = label, size
        self.posted = time.perf_counter()
        self._ended: list[float] = []
        # The clock is read when the rows are there, not when somebody looks.
        work.get_future().then(lambda _: self._ended.append(time.perf_counter()))

    def wait(self) -> None:
        """Return when the rows are there."""
        self._work.wait()
        late = self._due - time.perf_counter()
        if late > 0:
            time.sleep(late)

    @property
    def arrived(self) -> float:
        """When the rows were there."""
        ended = self._ended[0] if self._ended else time.perf_counter()
        return max(self._due, ended)
