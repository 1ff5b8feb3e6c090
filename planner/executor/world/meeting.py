"""Where ranks meet: rank 0 listens at an address, the others look for it there."""

import errno
import os
import socket
import time

from planner.errors import WorldError
from planner.executor.world.environment import Found, is_loopback
from planner.executor.world.hub import PROTOCOL
from planner.executor.world.lines import Line

PAUSE_S, CONNECT_S = 0.1, 2.0


def listen(found: Found, port: int) -> socket.socket:
    """Return the socket where rank 0 waits; on this machine only if it is alone.

    Raises
    ------
    WorldError
        If the port is in use.
    """
    if found.listener is not None:
        # A copy: the next world of this process meets there again.
        return socket.socket(fileno=os.dup(found.listener))
    family, host = _own(found)
    try:
        return socket.create_server((host, port), family=family, backlog=found.size)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise _nowhere(found, f"rank 0 cannot listen: {error.strerror}") from None
        raise WorldError(
            f"port {port} of {found.address} is in use, by another program or another "
            "run: rank 0 cannot listen there; set MASTER_PORT to a free port"
        ) from None


def find_rank_0(found: Found, port: int, timeout_s: float) -> Line:
    """Return a connection to rank 0's hub.

    Raises
    ------
    WorldError
        If nothing answers in time, or something else does.
    """
    deadline = time.monotonic() + timeout_s
    place, reason = f"{found.address}:{port}", "no answer"
    while time.monotonic() < deadline:
        for address in _addresses(found, port):
            left = max(PAUSE_S, deadline - time.monotonic())
            try:
                connection = socket.create_connection(address, min(CONNECT_S, left))
            except OSError as error:
                reason = error.strerror or "no answer"
                continue
            line = Line(connection)
            problem = _greeting(line, found, deadline)
            if not problem:
                return line
            line.close()
            reason = problem
            if problem != CLOSED:
                raise WorldError(
                    f"{place} is not where rank 0 listens: {problem}; set MASTER_PORT "
                    "to a free port"
                )
        time.sleep(PAUSE_S)
    raise _nowhere(found, f"{reason}, for {timeout_s:g} s")


CLOSED = "connections are closed"


def _greeting(line: Line, found: Found, deadline: float) -> str:
    """Return why the other end is not our hub; empty: it is."""
    try:
        while (messages := line.receive()) == [] and time.monotonic() < deadline:
            pass
    except ValueError:
        return "another program answers there"
    if messages is None:
        return CLOSED
    if not messages:
        return "what listens there does not answer as a rank of planner does"
    if messages[0].get("planner") != PROTOCOL:
        return "another program, or another version of planner, answers there"
    if messages[0].get("job") != found.job:
        return "another run of planner answers there"
    return ""


def _addresses(found: Found, port: int) -> list[tuple[str, int]]:
    try:
        known = socket.getaddrinfo(found.address, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise WorldError(
            f"rank 0's machine {found.address!r} is not known here: "
            f"{error.strerror}; set MASTER_ADDR to its name or address"
        ) from None
    return [(str(name[0]), int(name[1])) for *_, name in known]


def _own(found: Found) -> tuple[socket.AddressFamily, str]:
    """Return what to listen at: the loopback alone where the address is one."""
    hosts = [host for host, _ in _addresses(found, found.port)]
    old = [host for host in hosts if ":" not in host]
    family = socket.AF_INET if old else socket.AF_INET6
    host = (old or hosts)[0]
    alone = is_loopback(host) and found.address != socket.gethostname()
    return family, host if alone else ""


def _nowhere(found: Found, reason: str) -> WorldError:
    return WorldError(
        f"rank 0 is not at {found.address}:{found.port}: {reason}; is it running, and "
        "are MASTER_ADDR and MASTER_PORT those of its machine? (PLANNER_WORLD_WAIT: "
        "seconds to wait)"
    )
