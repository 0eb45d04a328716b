"""`python -m benchmarks`: measure, print one table, and save it with `--json`."""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import (
    actions,
    costs,
    laws,
    many_ranks,
    plans,
    postgres,
    readers,
    reports,
    step,
    sync_sealed,
    tracking,
    trainer,
)
from benchmarks.harness import Effort, Result

BENCHMARKS: dict[str, Callable[[Effort], Iterator[Result]]] = {
    "step": step.run,
    "trainer": trainer.run,
    "sync_sealed": sync_sealed.run,
    "reports": reports.run,
    "costs": costs.run,
    "tracking": tracking.run,
    "laws": laws.run,
    "actions": actions.run,
    "many_ranks": many_ranks.run,
    "plans": plans.run,
    "readers": readers.run,
    "postgres": postgres.run,
}

FULL = Effort(rounds=7, seconds=0.8)
QUICK = Effort(rounds=3, seconds=0.3)
TINY = Effort(rounds=2, seconds=0.02, tiny=True)
"""For the tests, which check that every benchmark runs."""

ROW = "{:<43} {:>11} {:>11} {:<9} {:<24} {:>7}  {:<15} {:>7}  {:<4} {}"
HEAD = ("benchmark", "ours", "baseline", "", "", "ratio", "quartiles", "goal", "met", "")


def main() -> None:
    """Run the benchmarks of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    options = parser.parse_args()
    began, results = time.monotonic(), []
    print(ROW.format(*HEAD))
    for name in options.only or BENCHMARKS:
        for result in BENCHMARKS[name](QUICK if options.quick else FULL):
            print(_row(result), flush=True)
            results.append(result)
    goals = [result.met for result in results if result.met is not None]
    print("\nreq/cpu s: requests for each second of the server's processor time.")
    print(f"{sum(goals)} of {len(goals)} goals met, in {time.monotonic() - began:.0f} s.")
    if options.json:
        options.json.write_text(json.dumps([_plain(each) for each in results], indent=2) + "\n")


def _row(result: Result) -> str:
    low, ratio, high = map(_number, result.quartiles)
    met = {True: "yes", False: "NO", None: ""}[result.met]
    return ROW.format(
        result.name,
        _number(result.ours),
        _number(result.baseline),
        result.unit,
        result.against,
        ratio,
        f"{low} - {high}",
        str(result.goal or ""),
        met,
        result.note,
    ).rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plain(result: Result) -> dict[str, object]:
    goal = str(result.goal) if result.goal else None
    return {**dataclasses.asdict(result), "goal": goal, "ratio": result.ratio, "met": result.met}


if __name__ == "__main__":
    main()
