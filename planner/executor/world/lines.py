"""Messages between ranks that are no tensors: a JSON object per line."""

import json
import socket
import threading
from typing import Any

LONGEST = 1 << 20
SEND_S = 1.0
"""How long a message may wait for a reader that does not read, or be waited for."""


class Line:
    """One end of a connection; sending is safe from several threads."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(SEND_S)
        self._rest = b""
        self._lock = threading.Lock()

    def send(self, **message: object) -> bool:
        """Send a message; return whether the connection still takes any."""
        with self._lock:
            try:
                self.socket.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                return False
        return True

    def receive(self) -> list[dict[str, Any]] | None:
        """Return whole messages that came, maybe none; None at the end.

        Raises
        ------
        ValueError
            If the other end sends anything else.
        """
        try:
            found = self.socket.recv(LONGEST)
        except TimeoutError:
            return []
        except OSError:
            return None
        if not found:
            return None
        *lines, self._rest = (self._rest + found).split(b"\n")
        messages = [json.loads(line) for line in lines]
        if len(self._rest) > LONGEST or not all(isinstance(m, dict) for m in messages):
            raise ValueError("no messages of a planner's rank")
        return messages

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()
