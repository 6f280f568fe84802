"""Runs the benchmark: ``scripts/bench [SCENARIO...]``. Without a scenario it runs all of them, which takes hours."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import psutil

from . import compare, report
from .peers import PEERS, NotToBeHad, redis_server
from .scenarios import GROUPS, SCENARIOS, Scenario, Size


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables of each scenario, and updates the results. Returns the exit status."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _ended)
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    parts = compare.kept(output / "results.json")
    wanted, failed = list(options.scenarios or SCENARIOS), False
    on_redis = [name for name in wanted if name in GROUPS["redis"]]
    if on_redis and (reason := _no_redis()):
        _say(f"left out, {reason}: {', '.join(on_redis)}")
        wanted = [name for name in wanted if name not in on_redis]
        failed = bool(options.scenarios)
    for name in wanted:
        scenario = SCENARIOS[name]
        part = _measured(scenario, options)
        parts = {each: {**parts, name: part}[each] for each in SCENARIOS if each in parts or each == name}
        compare.keep(output / "results.json", parts)
        (output / "results.md").write_text(report.markdown(parts))
        if name == "fanout":
            (output / "results.svg").write_text(report.svg(part))
        print(f"\n## {name}\n\n{report.alone(scenario, part)}", flush=True)
        failed = failed or any(peer.startswith("hubbub") for peer in part["failed"])
    if wanted:
        _say(f"written to {output}")
    return int(failed)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure the cost of hubbub and other servers.")
    names = [*SCENARIOS, *GROUPS]
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"{', '.join(names)} (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each server, interleaved (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="measuring time of each case (default: 3)")
    parser.add_argument(
        "--members", type=int, default=1000, help="members of the room; scales the other sizes (default: 1000)"
    )
    parser.add_argument("--peers", default="", metavar="A,B", help=f"measure only these: {', '.join(PEERS)}")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent, help="folder for the results (default: benchmarks)"
    )
    options = parser.parse_args(arguments)
    options.peers = [name for name in options.peers.split(",") if name]
    options.scenarios = [each for name in options.scenarios for each in GROUPS.get(name, [name])]
    for kind, given, known in (("scenario", options.scenarios, names), ("peer", options.peers, PEERS)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"no {kind} {', '.join(unknown)}; there are {', '.join(known)}")
    if options.runs < 1 or options.members < 10 or not (isfinite(options.seconds) and options.seconds > 0):
        parser.error("--runs from 1, --members from 10, --seconds over 0")
    return options


def _no_redis() -> str:
    """Returns why no Redis server is available; empty if one is."""
    try:
        redis_server()
    except NotToBeHad as error:
        return str(error)
    return ""


def _measured(scenario: Scenario, options: argparse.Namespace) -> dict[str, Any]:
    trials = scenario.trials(Size(options.members, options.seconds))
    wanted = [trial for trial in trials if not options.peers or trial.peer in options.peers]
    began, load_average = time.time(), os.getloadavg()[0]
    outcome = compare.interleaved(wanted, options.runs, lambda text: _say(f"{scenario.name}, {text}"))
    left_out = {trial.peer: "not among --peers" for trial in trials if trial not in wanted}
    outcome.absent = {**left_out, **outcome.absent}
    return compare.part(
        outcome,
        when=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(began)),
        settings={"runs": options.runs, "seconds": options.seconds, "members": options.members},
        machine=_machine(),
        load_average=load_average,
    )


def _machine() -> dict[str, str]:
    """Describes this machine."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }


def _ended(number: int, frame: object) -> None:
    sys.exit(128 + number)  # an exception, so that the running server is stopped too


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
