"""The rules of the gate: what of a result blocks, what only warns (docs/gate.md).

Each rule looks at one case and, where there is one, at what the case reached
before: an entry of the baseline, or the other revision's result. Exact rationals
decide.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import exp, log

from planner.bench.baseline import PROOF_RANK, Entry
from planner.bench.findings import Finding, Level, amount, percent, share
from planner.bench.result import ROUNDING, Reached, Result, best_eplb

WORSE = Fraction(1, 200)
"""An objective may be worse by this, relative …"""
WORSE_COUNT = Fraction(1)
"""… or by this much, where it is a count of tokens or pairs."""
SHIFT = 0.01
WORSE_SUITE = 0.002
WORSE_UNSEEN = 0.02
SLOWER, SLOWER_SECONDS = 1.5, 0.5
COUNTS = ("tokens", "pairs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What a case is compared with.

    ``origin`` is how a reader calls it; ``times_compare`` whether it was measured
    on a machine like this one.
    """

    entry: Entry
    origin: str
    times_compare: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A result with a plan, and what it is compared with."""

    name: str
    result: Result
    reached: Reached
    before: Before | None

    def find(self, rule: str, level: Level, text: str, why: str = "") -> Finding:
        """Return a finding about this case."""
        return Finding(case=self.name, rule=rule, level=level, text=text, why=why)

    @property
    def old(self) -> Entry | None:
        """The entry it is compared with, if that is a plan."""
        entry = self.before.entry if self.before else None
        return entry if entry is not None and entry.value is not None else None

    @property
    def origin(self) -> str:
        """How to call what it is compared with."""
        return self.before.origin if self.before else ""

    def show(self, value: Fraction | float) -> str:
        """Return a value of this case's objective."""
        return amount(value, self.reached.unit)


def judge(result: Result, before: Before | None) -> list[Finding]:
    """Return what the rules find about one case."""
    if result.outcome == "skipped":
        return [_about(result, "feasible", "note", f"skipped: {result.message}")]
    if before is not None and before.entry.digest != result.digest:
        text = f"the case is another one than that of {before.origin}"
        why = "topology, model, trace, options or expectation changed"
        return [*_outcome(result, None), _about(result, "inputs", "block", text, why)]
    found = _outcome(result, before)
    if result.reached is None:
        return found
    seen = _Seen(name=result.name, result=result, reached=result.reached, before=before)
    for rule in RULES:
        found.extend(rule(seen))
    if before is None:
        found.append(seen.find("baseline", "note", "new: nothing to compare with"))
    return found


def _about(
    result: Result, rule: str, level: Level, text: str, why: str = ""
) -> Finding:
    return Finding(case=result.name, rule=rule, level=level, text=text, why=why)


def _outcome(result: Result, before: Before | None) -> list[Finding]:
    """A plan where there is one, and none where there is none."""
    wanted, got = result.expect, result.outcome
    if got == wanted:
        return []
    if wanted == "infeasible":
        text = f"got {got.replace('_', ' ')} for a problem that has no plan"
        why = result.message or "a limit or a constraint was not seen"
        return [_about(result, "feasible", "block", text, why)]
    if before is not None and before.entry.outcome == got:
        text = f"still {got.replace('_', ' ')}, as accepted in {before.origin}"
        return [_about(result, "feasible", "note", text, result.message)]
    text = f"no plan: {got.replace('_', ' ')}"
    return [_about(result, "feasible", "block", text, result.message)]


def _verified(seen: _Seen) -> Iterator[Finding]:
    findings = seen.reached.findings
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        text = f"the verifier does not agree: {findings[0]}{more}"
        yield seen.find("verified", "block", text, "the plan breaks a rule or a claim")


def _question(seen: _Seen) -> Iterator[Finding]:
    for text in seen.reached.other_question:
        why = "the plan answers another question than the case asks"
        yield seen.find("question", "block", text, why)
    if not seen.reached.keeps_caps:
        text = "the plan exceeds an imbalance cap of the case"
        yield seen.find("question", "block", text)


def _yardsticks(seen: _Seen) -> Iterator[Finding]:
    """A fixed plan has a fixed value: if it moved, something is counted otherwise."""
    if seen.old is None:
        return
    for name, base in seen.reached.yardsticks.items():
        was = seen.old.yardsticks.get(name)
        if was is not None and Fraction(was) != Fraction(base.exact):
            yield seen.find(
                "yardstick",
                "block",
                f"the plan of {name} counts {seen.show(Fraction(base.exact))}, in "
                f"{seen.origin} {seen.show(Fraction(was))}",
                "its slots are fixed by its algorithm: the algorithm changed, or "
                "links, bytes or tokens are counted otherwise",
            )
            return


def _objective(seen: _Seen) -> Iterator[Finding]:
    old, value = seen.old, seen.reached.value
    if old is None or old.value is None:
        return
    change = value - old.value
    if change <= 0:
        if change < 0:
            text = f"{seen.show(value)} is better than {seen.show(old.value)} of "
            text += f"{seen.origin} ({percent(change / old.value)})"
            yield seen.find("objective", "gain", text)
        return
    allowed = _allowed(old.value, seen.reached.unit)
    relative = percent(change / old.value) if old.value else "from 0"
    text = f"{seen.show(value)} is worse than {seen.show(old.value)} of {seen.origin}: "
    text += f"{relative}, {share(WORSE)} allowed"
    if seen.reached.unit in COUNTS:
        text += f" or {amount(WORSE_COUNT, seen.reached.unit[:-1])}"
    if change > allowed:
        yield seen.find("objective", "block", text, _lost(seen))
    else:
        yield seen.find("objective", "note", text)


def _lost(seen: _Seen) -> str:
    """Say how the solve ended: the first thing to look at."""
    origins = [layer.origin for layer in seen.reached.layers if layer.origin]
    won = ", ".join(dict.fromkeys(origins)) or "nothing said"
    return f"layers won by {won}; the solve stopped by {seen.reached.stopped}"


def _allowed(old: Fraction, unit: str) -> Fraction:
    return max(old * WORSE, WORSE_COUNT if unit in COUNTS else Fraction(0))


def _truth(seen: _Seen) -> Iterator[Finding]:
    """Nothing is better than the optimum, and no bound is above a plan."""
    value, bound = seen.reached.value, seen.reached.proven_bound
    text = seen.result.known_optimum
    optimum = None if text is None else Fraction(text)
    best = optimum if optimum is not None else (seen.old.value if seen.old else None)
    what = "the known optimum" if optimum is not None else f"a plan of {seen.origin}"
    if optimum is not None and value * ROUNDING < optimum:
        text = f"{seen.show(value)} is below the known optimum {seen.show(optimum)}"
        yield seen.find("truth", "block", text, "impossible: counted otherwise")
    if optimum is not None and value - optimum > _allowed(optimum, seen.reached.unit):
        text = f"{seen.show(value)} misses the known optimum {seen.show(optimum)}"
        # Where it was missed before, the comparison with that decides.
        level: Level = "block" if seen.old is None else "warn"
        yield seen.find("objective", level, text, _lost(seen))
    if bound is not None and best is not None and bound > best * ROUNDING:
        text = f"the bound {seen.show(bound)} is above {what}, {seen.show(best)}"
        yield seen.find("truth", "block", text, "a lower bound that is none")
    proven = seen.old.proven_bound if seen.old else None
    if proven is not None and value * ROUNDING < proven:
        text = f"{seen.show(value)} is below the bound {seen.show(proven)} of "
        yield seen.find(
            "truth",
            "block",
            text + seen.origin,
            "that bound was wrong, or something is counted otherwise",
        )


def _proof(seen: _Seen) -> Iterator[Finding]:
    old, reached = seen.old, seen.reached
    if old is None:
        return
    was, now = old.status or "feasible", reached.status
    if PROOF_RANK.get(now, 0) < PROOF_RANK.get(was, 0):
        level: Level = "block" if was == "proven_optimal" else "warn"
        text = f"{was} in {seen.origin}, now {now}"
        gap = (
            "no bound" if reached.gap is None else f"gap {share(max(0.0, reached.gap))}"
        )
        yield seen.find("proof", level, text, gap)
    if old.bound is None:
        return
    if reached.bound is None:
        text = f"no bound; {seen.origin} proves {seen.show(old.bound)}"
        yield seen.find("proof", "block", text, "how far from optimal is unknown now")
    elif Fraction(reached.bound) < Fraction(old.bound) * (1 - WORSE):
        text = f"the bound fell from {seen.show(old.bound)} to "
        yield seen.find("proof", "warn", text + seen.show(reached.bound))


def _eplb(seen: _Seen) -> Iterator[Finding]:
    best = best_eplb(seen.reached.yardsticks, rival=True)
    if best is None or seen.reached.value <= best[1] * ROUNDING:
        return
    name, value = best
    more = percent((seen.reached.value - value) / value) if value else "from 0"
    text = f"{seen.show(seen.reached.value)} is worse than {name}'s {seen.show(value)}"
    why = "every baseline is a start: no plan may be worse than one that keeps the caps"
    yield seen.find("eplb", "block", f"{text} ({more})", why)


def _reports(seen: _Seen) -> Iterator[Finding]:
    """Figures that drift without blocking: unseen sequences, and time."""
    old = seen.old
    if old is None or seen.before is None:
        return
    unseen = seen.reached.unseen
    if (
        unseen is not None
        and old.unseen
        and unseen.value > old.unseen * (1 + WORSE_UNSEEN)
    ):
        text = f"on unseen sequences {seen.show(unseen.value)}, in {seen.origin} "
        change = percent(unseen.value / old.unseen - 1)
        yield seen.find("unseen", "warn", f"{text}{seen.show(old.unseen)} ({change})")
    new_time, old_time = seen.result.cpu_seconds, old.cpu_seconds
    if not seen.before.times_compare or new_time is None or old_time is None:
        return
    if new_time > SLOWER * old_time and new_time > old_time + SLOWER_SECONDS:
        text = f"{new_time:.1f} s of processor time, {old_time:.1f} s in {seen.origin}"
        yield seen.find("time", "warn", text)


RULES: Sequence[Callable[[_Seen], Iterator[Finding]]] = (
    _verified,
    _question,
    _yardsticks,
    _truth,
    _objective,
    _proof,
    _eplb,
    _reports,
)
FAMILIES = (
    "feasible",
    "verified",
    "question",
    "inputs",
    "yardstick",
    "truth",
    "objective",
    "proof",
    "eplb",
    "unseen",
    "time",
)
"""The families of rules, one test each in JUnit."""


def shifted_geometric_mean(ratios: Sequence[float]) -> float:
    """Return the mean of objective / bound, shifted so that closed gaps count.

    exp(mean(log(ratio − 1 + shift))) + 1 − shift, with a shift of 1 %.
    """
    logs = [log(max(0.0, ratio - 1) + SHIFT) for ratio in ratios]
    return exp(sum(logs) / len(logs)) + 1 - SHIFT


def suite_means(
    results: Sequence[Result], before: Mapping[str, Before]
) -> tuple[float, float, int] | None:
    """Return the means now and before, and over how many cases; None without any.

    Cases count that have a bound above 0 on both sides, for the same problem.
    """
    pairs = []
    for result in results:
        old = before[result.name].entry if result.name in before else None
        if old is None or old.digest != result.digest or result.reached is None:
            continue
        now = _ratio(result.reached.value, result.reached.bound)
        then = _ratio(old.value, old.bound)
        if now is not None and then is not None:
            pairs.append((now, then))
    if not pairs:
        return None
    now_all, then_all = zip(*pairs, strict=True)
    return (
        shifted_geometric_mean(now_all),
        shifted_geometric_mean(then_all),
        len(pairs),
    )


def _ratio(value: Fraction | None, bound: float | None) -> float | None:
    if value is None or not bound:
        return None
    return float(value / Fraction(bound))


def judge_suite(
    results: Sequence[Result], before: Mapping[str, Before]
) -> list[Finding]:
    """Return what the rules find about all cases together."""
    means = suite_means(results, before)
    if means is None:
        return []
    now, then, count = means
    change = now / then - 1
    text = (
        f"objective / bound, shifted geometric mean of the {count} with a bound: "
        f"{now:.5f}, before {then:.5f} ({percent(change)})"
    )
    level: Level = "block" if change > WORSE_SUITE else "note"
    why = f"{share(WORSE_SUITE)} allowed: many small losses are one big one"
    return [
        Finding(
            case="",
            rule="suite",
            level=level,
            text=text,
            why=why if level == "block" else "",
        )
    ]
