"""`make bench`: run every benchmark in a process of its own and print one JSON document.

`python -m benchmarks wire storage` runs only those; `--save` keeps the figures as
`benchmarks/baseline.json`, and every later run says how it compares with what is kept there.
Figures are CPU per operation, bytes, or ratios within one run: nothing here passes or fails by
the clock.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BASELINE = HERE / "baseline.json"
# Each prints one JSON object on its standard output.
BENCHMARKS = ("wire", "storage", "apiserver", "access", "scheduler", "network", "cluster")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which ones (default: {' '.join(BENCHMARKS)})")
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {BASELINE.name}")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    kept = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    results: dict[str, Any] = {"machine": machine()}
    failed = False
    for name in options.names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        ran = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if ran.returncode:
            print(f"{name} failed with exit code {ran.returncode}", file=sys.stderr)
            failed = True
            continue
        results[name] = json.loads(ran.stdout)
    changes = compare(kept, results)
    print(json.dumps({**results, "change_against_baseline": changes}, indent=2))
    if options.save:
        BASELINE.write_text(json.dumps({**kept, **results}, indent=2) + "\n")
    return 1 if failed else 0


def machine() -> dict[str, Any]:
    cores = sum(
        line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().split("\n")
    )
    return {"python": platform.python_version(), "kernel": platform.release(), "cores": cores}


def compare(kept: dict[str, Any], now: dict[str, Any], path: str = "") -> dict[str, str]:
    """By how much each figure differs from the one that was kept, where there is one."""
    changes: dict[str, str] = {}
    for name, value in now.items():
        before = kept.get(name)
        here = f"{path}{name}"
        if isinstance(value, dict) and isinstance(before, dict):
            changes |= compare(before, value, f"{here}.")
        elif _is_figure(value) and _is_figure(before) and before:
            changes[here] = f"{(value - before) / before:+.0%}"
    return changes


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


if __name__ == "__main__":
    sys.exit(main())
