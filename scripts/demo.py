"""The demonstration: plan, verify and replay the bundled model on a real cluster.

Runs the same commands a user types, shows each, keeps what they print in
``out/report.md``, and ends with the numbers that matter.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PLANNER = Path(sys.executable).with_name("planner")
CLUSTER = "h100-4x8-rail"
DEDUP = [
    *("--traffic", "dedup_domain", "--redundant", "0", "--homes", "by_token"),
    *("--domain-imbalance-cap", "1.05"),
]


class Demo:
    """Runs commands, prints what they print, and writes it all to a report."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.lines: list[str] = ["# What the demonstration printed", ""]

    def run(self, title: str, *arguments: str) -> None:
        """Run ``planner`` with these arguments; leave with its status on failure."""
        command = ["planner", *arguments]
        print(f"\n=== {title}\n$ {' '.join(command)}", flush=True)
        started = time.monotonic()
        run = subprocess.run(
            [str(PLANNER), *arguments],
            stdout=subprocess.PIPE,
            env=os.environ | {"COLUMNS": "100"},
            text=True,
            check=False,
        )
        print(run.stdout.rstrip())
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
        block = [f"$ {' '.join(command)}", run.stdout.rstrip()]
        self.lines += [f"## {title}", "", "```", *block, "```", ""]
        self.write()
        if run.returncode:
            print(f"demo: '{' '.join(command)}' left with status {run.returncode}")
            sys.exit(run.returncode)

    def write(self) -> None:
        """Write the report as far as it goes."""
        (self.out / "report.md").write_text("\n".join(self.lines))

    def close(self, headline: list[str]) -> None:
        """Print the headline and put it into the report."""
        print("\n=== Headline")
        print("\n".join(headline))
        self.lines += ["## Headline", "", *(f"- {line}" for line in headline), ""]
        self.write()
        print(
            f"\nwritten: {', '.join(str(path) for path in sorted(self.out.iterdir()))}"
        )


def headline(name: str, plan: Path) -> str:
    """Say how a plan compares with the better EPLB on sequences it has not seen."""
    manifest = json.loads(plan.read_text())
    held_out = manifest["holdout"]
    eplb = {
        key: row["objective"]["value"]
        for key, row in held_out["baselines"].items()
        if key.startswith("eplb") and row.get("objective")
    }
    better = min(eplb, key=lambda key: eplb[key])
    ratio = held_out["objective"]["value"] / eplb[better]
    layers = manifest["provenance"].get("layer_strategies", [])
    searched = sum(not is_baseline(strategy) for strategy in layers)
    won = f"; {searched} of {len(layers)} layers not from a baseline" if layers else ""
    gap = "no bound" if manifest["gap"] is None else f"gap {manifest['gap']:.1%}"
    return (
        f"{name}: {manifest['objective']['name']} is {ratio:.3f} of the better EPLB's "
        f"({better}) on unseen sequences; {manifest['status']}, {gap}{won}"
    )


def is_baseline(strategy: str) -> bool:
    """Tell whether a strategy is one of those that see no links."""
    return strategy.startswith(("eplb", "contiguous", "round_robin"))


def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--time-limit", default="40")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    demo = Demo(asked.out)
    plan, dedup = asked.out / "plan.json", asked.out / "plan-no-redundancy.json"
    limit = ("--time-limit", asked.time_limit)

    demo.run("Plan with every default", "solve", CLUSTER, *limit, "-o", str(plan))
    demo.run("Verify with exact arithmetic", "verify", str(plan))
    demo.run("Replay: move the tokens and count", "replay", str(plan))
    demo.run(
        "Plan again: no redundancy, domains kept balanced",
        *("solve", CLUSTER, *DEDUP, *limit, "-o", str(dedup)),
    )
    demo.run("Verify that one too", "verify", str(dedup))
    demo.close([headline("defaults", plan), headline("no redundancy, balanced", dedup)])


if __name__ == "__main__":
    main()
