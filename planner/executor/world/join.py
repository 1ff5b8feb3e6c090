"""All ranks of a run meet: ``join(found, claim=…, gpus=…) -> World``.

Rank 0 listens at the launcher's address, every other rank connects, and all show
their cards (:mod:`planner.executor.world.cards`) before any tensor moves. Faults end
every rank with one message within ``timeout_s`` and the seconds of
:class:`~planner.executor.world.hub.Timing`.
"""

import os
import socket
import time
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist

from planner.errors import PlannerError, UsageError, WorldError
from planner.executor.world.cards import Card
from planner.executor.world.environment import Found, is_loopback
from planner.executor.world.groups import World, process_group
from planner.executor.world.hub import Hub, Timing
from planner.executor.world.lines import Line
from planner.executor.world.meeting import find_rank_0, listen
from planner.executor.world.member import Watch, introduce, telling, waited_for

MARGIN_S = 2.0
"""Ranks wait a little longer for rank 0's verdict than rank 0 waits for ranks."""


def join(
    found: Found,
    *,
    claim: str,
    gpus: int,
    timeout_s: float | None = None,
    device: str = "cpu",
    timing: Timing | None = None,
) -> World:
    """Meet the other ranks and return the world of all of them.

    Parameters
    ----------
    claim
        Digest of what this rank is about to run: the manifest and the options.
    gpus
        GPUs of the plan, as many as there must be ranks.
    timeout_s
        How long ranks wait for each other, if not as long as the environment says.
    device
        ``cpu``, or ``cuda``: the GPU of this machine that has the local rank's number.
    timing
        When ranks count as lost; its ``gather_s`` is ``timeout_s``.

    Raises
    ------
    ManifestError
        If a rank would run something else, or there are not as many ranks as GPUs:
        the same message in every rank.
    UsageError
        If a rank has no such device.
    WorldError
        If rank 0's port is in use, it cannot be reached, or a rank does not come.
    """
    wait_s = found.wait_s if timeout_s is None else timeout_s
    pace = replace(timing or Timing(), gather_s=wait_s)
    place, fault = _device(device, found.local_rank)
    card = Card(
        rank=found.rank,
        size=found.size,
        job=found.job,
        claim=claim,
        gpus=gpus,
        host=socket.gethostname(),
        pid=os.getpid(),
        fault=fault,
    )
    deadline = time.monotonic() + wait_s + MARGIN_S
    line, hub, store = _connected(found, pace)
    try:
        welcome = introduce(line, card, deadline)
    except PlannerError:
        line.close()
        if hub is not None:
            # The other ranks are to hear it before this process ends.
            hub.join(MARGIN_S)
        raise
    watch = Watch(line, pace, first=welcome["first"], report=found.report, hub=hub)
    watch.start()
    interface = _interface(line, welcome["address"])
    with telling(watch):
        if store is None:
            host = line.socket.getpeername()[0]
            store = _store(host, welcome["store"], wait_s)
        group = process_group(
            dist.PrefixStore("group/world", store),
            found.rank,
            found.size,
            device=place,
            interface=interface,
            connect_s=wait_s,
        )
    return World(
        rank=found.rank,
        size=found.size,
        device=place,
        group=group,
        store=dist.PrefixStore("run", store),
        interface=interface,
        watch=watch,
    )


def _connected(
    found: Found, pace: Timing
) -> tuple[Line, Hub | None, dist.TCPStore | None]:
    """Return the connection to the hub; rank 0 has the hub and the store as well."""
    if found.rank:
        port = _port_of_rank_0(found, pace.gather_s)
        return find_rank_0(found, port, pace.gather_s), None, None
    listener = listen(found, 0 if found.agent_store else found.port)
    host, port = listener.getsockname()[:2]
    if found.agent_store:
        agent, turn = _agent(found, pace.gather_s)
        agent.set(turn, str(port))
    with socket.create_server((host, 0), family=listener.family) as free:
        port, descriptor = free.getsockname()[1], os.dup(free.fileno())
    store = _store(host, port, pace.gather_s, descriptor)
    hub = Hub(
        listener,
        job=found.job,
        size=found.size,
        timing=pace,
        welcome={"store": port},
    )
    ours, theirs = socket.socketpair()
    hub.adopt(theirs)
    hub.start()
    line = Line(ours)
    waited_for(line, time.monotonic() + pace.gather_s)
    return line, hub, store


def _port_of_rank_0(found: Found, timeout_s: float) -> int:
    """Return the launcher's port, or the one that rank 0 left with torchrun's agent."""
    if not found.agent_store:
        return found.port
    store, turn = _agent(found, timeout_s)
    try:
        return int(store.get(turn))
    except RuntimeError:
        raise WorldError(
            f"rank 0 did not come within {timeout_s:g} s: start all ranks together, "
            "or set PLANNER_WORLD_WAIT to more seconds"
        ) from None


def _agent(found: Found, timeout_s: float) -> tuple[dist.Store, str]:
    """Return the store of torchrun's agent, and the key of this world in it.

    The store outlives a world: ranks that join one after the other count them.
    """
    store = _store(found.address, found.port, timeout_s)
    agent = dist.PrefixStore(f"planner/{found.job}", store)
    return agent, f"port/{agent.add(f'worlds/{found.rank}', 1)}"


def _store(
    host: str, port: int, timeout_s: float, listener: int | None = None
) -> dist.TCPStore:
    return dist.TCPStore(
        host,
        port,
        None,
        listener is not None,
        timedelta(seconds=timeout_s),
        wait_for_workers=False,
        master_listen_fd=listener,
    )


def _interface(line: Line, address: str) -> str:
    """Return the address at which other ranks reach this one.

    ``address`` is rank 0's; a rank that came over the loopback is on its machine.
    """
    if line.socket.family == socket.AF_UNIX:
        return address
    own = str(line.socket.getsockname()[0])
    return address if is_loopback(own) else own


def _device(wanted: str, local_rank: int) -> tuple[torch.device, str]:
    """Return a rank's device, and what is wrong with it."""
    if wanted == "cpu":
        return torch.device("cpu"), ""
    if wanted != "cuda":
        raise UsageError(f"device {wanted!r}: choose cpu or cuda")
    count = torch.cuda.device_count()
    if local_rank >= count:
        return torch.device("cpu"), (
            f"needs GPU {local_rank} of its machine, which has {count}: start at most "
            "as many ranks per machine as it has GPUs"
        )
    return torch.device("cuda", local_rank), ""
