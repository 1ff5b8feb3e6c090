"""One expert per GPU altogether: DeepSeek-V3's 58 x 256 experts on 14,848 GPUs.

``python -m benchmarks.single [--topology h200-1856x8-rail] [--model deepseek-v3]
[--traffic copies] [--tokens 20000]`` makes a synthetic trace ``dsv3`` (seed 1), then
runs ``planner solve`` and ``planner verify`` on it, each in a process of its own, and
prints for both: seconds on the wall, processor seconds and the largest resident
memory; then objective, bound, gap, status, and the baselines.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLANNER = (sys.executable, "-c", "from planner.cli.main import main; main()")
SEED = ("--seed", "1")


def planner(*arguments: str) -> tuple[float, float]:
    """Run the command line; return its seconds on the wall and of the processor."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run([*PLANNER, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    return wall, used


def peak_gigabytes() -> float:
    """Return the largest resident memory of any process so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9


def measure(given: argparse.Namespace, folder: Path) -> None:
    """Plan, verify, and print the table."""
    trace, plan = str(folder / "dsv3.parquet"), folder / "plan.json"
    planner("trace", "synth", "dsv3", "-o", trace, "--tokens", str(given.tokens), *SEED)
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    print("| step | wall s | processor s | peak GB so far |")
    print("|---|---|---|---|")
    options = ["--model", given.model, "--trace", trace, "--traffic", given.traffic]
    policy = ["--policy", "one_expert_per_gpu_total", "-o", str(plan)]
    for name, arguments in (
        ("solve", [given.topology, *options, *policy]),
        ("verify", [str(plan)]),
    ):
        wall, used = planner(name, *arguments)
        print(f"| {name} | {wall:.1f} | {used:.1f} | {peak_gigabytes():.2f} |")
    made = json.loads(plan.read_text(encoding="utf-8"))
    bound, objective = made["bound"], made["objective"]
    print(f"{objective['name']}: {objective['value']:.6g} {objective['unit']}")
    print(f"bound: {bound['value']:.6g} ({bound['method']}), {made['status']}")
    for name, baseline in made["baselines"].items():
        if baseline["objective"] is not None:
            print(f"{name}: {baseline['objective']['value']:.6g}")


def main() -> None:
    """Read the arguments and measure in a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="h200-1856x8-rail")
    parser.add_argument("--model", default="deepseek-v3")
    parser.add_argument("--traffic", default="copies")
    parser.add_argument("--tokens", type=int, default=20_000)
    with tempfile.TemporaryDirectory() as folder:
        measure(parser.parse_args(), Path(folder))


if __name__ == "__main__":
    main()
