"""Some GPU needs more memory than it has."""

from math import ceil

from planner.explain.causes.base import (
    CAUSES,
    HARDWARE,
    OPTION,
    PRECISION,
    SERVICE,
    Change,
    Finding,
    Ladder,
    Setup,
    more_domains,
)
from planner.units import show_bytes
from planner.workload.model_spec import BYTES_PER_VALUE

SHOWN_TERMS = 3
DOMAIN_TRIES = 8
"""Domains beyond the fewest that could do: buffers grow with their number."""


@CAUSES.register("memory")
def memory(setup: Setup) -> Finding | None:
    """The GPU that misses most, what holds most on it, and every knob."""
    bill = setup.bill
    over_G = bill.total_G - bill.limit_G
    worst = int(over_G.argmax())
    over = int(over_G[worst])
    if over <= 0:
        return None
    needs, has = int(bill.total_G[worst]), int(bill.limit_G[worst])
    largest = sorted(bill.terms, key=lambda name: -int(bill.terms[name][worst]))
    terms = {name: int(bill.terms[name][worst]) for name in largest[:SHOWN_TERMS]}
    held = ", ".join(f"{name} {show_bytes(count)}" for name, count in terms.items())
    short = int((over_G > 0).sum())
    others = f", and {short - 1} more GPUs are short" if short > 1 else ""
    return Finding(
        says=f"memory too small: {bill.gpus[worst]} needs {show_bytes(needs)} but has "
        f"{show_bytes(has)}, {show_bytes(over)} short ({over} bytes; most: {held})"
        f"{others}",
        numbers={
            "gpu": bill.gpus[worst],
            "needs_bytes": needs,
            "has_bytes": has,
            "short_bytes": over,
            "gpus_short": short,
            "terms_bytes": terms,
        },
        ladders=tuple(filter(None, _ladders(setup, over))),
    )


def less_service(setup: Setup) -> Ladder:
    """Return KV cache and buffers for ever fewer tokens, both at once."""
    bill, options = setup.bill, setup.options
    found = []
    for part in (2, 4, 8, 16, 32):
        batch, kv = bill.batch_tokens // part, bill.kv_tokens // part
        changed: dict[str, object] = {"batch_tokens": batch}
        words = f"--batch-tokens {batch}"
        if options.mem_fraction is None:
            changed["kv_tokens"] = kv
            words += f" and --kv-tokens {kv}"
        if min(batch, kv) >= 1:
            cost = (SERVICE, 1 - 1 / part)
            found.append(Change(what=words, cost=cost, options=changed))
    return tuple(found)


def _ladders(setup: Setup, over: int) -> list[Ladder]:
    return [
        _fewer_slots(setup, over),
        _fuller(setup),
        _smaller(setup, over),
        _fewer_kv_tokens(setup, over),
        _fewer_batch_tokens(setup, over),
        _less_precise(setup),
        _more_memory(setup, over),
        _more_domains(setup, over),
    ]


def _fewer_slots(setup: Setup, over: int) -> Ladder:
    """Fewer redundant experts; what ``auto`` takes is the least already."""
    bill = setup.bill
    slots = bill.slots_per_gpu - ceil(over / bill.slot_bytes)
    if setup.slots_given or slots < bill.least_slots:
        return ()
    extra = setup.layout.ep * slots - setup.model.experts
    now = setup.slot_count - setup.model.experts
    return (
        Change(
            what=f"--redundant {extra} instead of {now}",
            cost=(OPTION, 1 - slots / bill.slots_per_gpu),
            options={"redundant": str(extra)},
        ),
    )


def _fuller(setup: Setup) -> Ladder:
    """A larger share of the memory, where a share was asked for."""
    now, bill = setup.options.mem_fraction, setup.bill
    if now is None:
        return ()
    share = max(
        ceil(1000 * int(need) / gpu.memory_bytes) / 1000
        for need, gpu in zip(bill.total_G, setup.topology.gpus, strict=True)
    )
    if share > 1:
        return ()
    what = f"--mem-fraction {share:g} instead of {now:g}"
    cost = (OPTION, share / now - 1)
    return (Change(what=what, cost=cost, options={"mem_fraction": share}),)


def _smaller(setup: Setup, over: int) -> Ladder:
    """Larger attention groups share attention weights and heads of the cache."""
    tp, widest = setup.layout.tp, min(len(each) for each in setup.topology.domains)
    ep = f",ep={setup.layout.ep}" if "ep=" in setup.options.layout else ""
    return tuple(
        Change(
            what=f"--layout tp={wider} instead of tp={tp}",
            cost=(SERVICE, wider / tp - 1),
            options={"layout": f"tp={wider}{ep}"},
        )
        for wider in range(tp + 1, widest + 1)
        if widest % wider == 0
    )


def _fewer_kv_tokens(setup: Setup, over: int) -> Ladder:
    bill = setup.bill
    most = bill.kv_tokens - ceil(over / bill.kv_token_bytes)
    if most < 1 or setup.options.mem_fraction is not None:
        return ()
    what = f"--kv-tokens {most} instead of {bill.kv_tokens}"
    cost = (SERVICE, 1 - most / bill.kv_tokens)
    return (Change(what=what, cost=cost, options={"kv_tokens": most}),)


def _fewer_batch_tokens(setup: Setup, over: int) -> Ladder:
    bill = setup.bill
    most = bill.batch_tokens - ceil(over / max(1, bill.batch_token_bytes))
    if most < 1:
        return ()
    what = f"--batch-tokens {most} instead of {bill.batch_tokens}"
    cost = (SERVICE, 1 - most / bill.batch_tokens)
    return (Change(what=what, cost=cost, options={"batch_tokens": most}),)


def _less_precise(setup: Setup) -> Ladder:
    """Experts and other weights in a format of fewer bytes."""
    now = setup.model.precision
    fewer = {
        size: name
        for name, size in sorted(BYTES_PER_VALUE.items(), reverse=True)
        if size < BYTES_PER_VALUE[now]
    }
    return tuple(
        Change(
            what=f"--precision {fewer[size]} instead of {now}",
            cost=(PRECISION, 1 - size / BYTES_PER_VALUE[now]),
            options={"precision": fewer[size]},
        )
        for size in sorted(fewer, reverse=True)
    )


def _more_memory(setup: Setup, over: int) -> Ladder:
    share = setup.options.mem_fraction or 1.0
    more = ceil(over / share) + 1
    has = max(gpu.memory_bytes for gpu in setup.topology.gpus)
    what = f"{show_bytes(more)} more memory on every GPU"
    return (Change(what=what, cost=(HARDWARE, more / has), memory_bytes=more),)


def _more_domains(setup: Setup, over: int) -> Ladder:
    """More GPUs hold fewer experts each."""
    bill = setup.bill
    slots = bill.slots_per_gpu - ceil(over / bill.slot_bytes)
    if slots < 1 or setup.slots_given:
        return ()
    wanted = ceil(setup.model.experts / slots) - setup.topology.gpu_count
    first = ceil(wanted / len(setup.topology.domains[-1]))
    return more_domains(setup, first, DOMAIN_TRIES)
