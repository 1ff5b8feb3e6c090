"""Check a plan independently, then move its trace and compare link by link.

Run ``examples/01_plan.py`` first, then
``python examples/02_verify_and_replay.py [out/plan.json]``
"""

import sys
from pathlib import Path

import planner
from planner.errors import VerificationError


def main(plan: Path) -> None:
    """Verify, replay, and show that a changed plan is caught."""
    report = planner.verify(plan)
    print(f"verified: {report.comparisons:,} comparisons agree")

    replayed = planner.replay(plan, executor="counter")
    for part in replayed.parts:
        print(f"{part.part}: {part.transfers:,} transfers moved as predicted")

    text = plan.read_text(encoding="utf-8")
    forged = plan.with_name("forged.json")
    forged.write_text(text.replace('"value": ', '"value": 9', 1), encoding="utf-8")
    try:
        planner.verify(forged)
    except VerificationError as error:
        print(f"a forged value is caught: {error.findings[0]}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/plan.json"))
