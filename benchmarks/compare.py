"""Interleaved runs, and their evaluation: medians, and ratios pair by pair."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from statistics import median
from typing import Any

from .peers import PEERS, NotToBeHad, Peer, Ready, redis_command
from .scenarios import Target, Trial
from .server import DidNotStart, load, open_files, serving


@dataclass(frozen=True, slots=True)
class Record:
    """The measurements of one phase of one run.

    Attributes:
        case: The case of the scenario.
        row: The row of the results, usually the peer.
        run: The number of the run.
        values: The measurements by name.
    """

    case: str
    row: str
    run: int
    values: Mapping[str, float]


@dataclass(slots=True)
class Outcome:
    """The outcome of the runs of a scenario.

    Attributes:
        records: The measurements.
        versions: The versions of the measured peers.
        absent: The peers that were not measured, with reasons.
        notes: Other measurements that are missing, with reasons.
        failed: The peers that failed.
    """

    records: list[Record] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)


def interleaved(trials: Sequence[Trial], runs: int, tell: Callable[[str], None]) -> Outcome:
    """Runs all trials one after another, several times. Each trial starts a fresh server, and each run starts with
    another trial.

    Args:
        trials: The trials of one run.
        runs: The number of runs.
        tell: A function that reports progress.
    """
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as directory:
        ready = {}
        for peer in {trial.peer: PEERS[trial.peer] for trial in trials}.values():
            place = Path(directory, peer.name)
            place.mkdir()
            try:
                ready[peer.name] = peer.prepare(place)
                outcome.versions[peer.name] = ready[peer.name].version
            except NotToBeHad as error:
                outcome.absent[peer.name] = str(error)
        for run in range(runs):
            first = run % len(trials)
            for trial in (*trials[first:], *trials[:first]):
                if trial.peer in ready and trial.peer not in outcome.absent:
                    tell(f"run {run + 1} of {runs}: {trial.name}")
                    _run(trial, PEERS[trial.peer], ready[trial.peer], run, outcome)
    return outcome


def _run(trial: Trial, peer: Peer, ready: Ready, run: int, outcome: Outcome) -> None:
    if trial.sockets > open_files():
        limits = f"needs {trial.sockets} open files; the hard limit is {open_files()} (ulimit -Hn)"
        _note(outcome, f"{trial.name}: {limits}")
        return
    spec = {
        "dialect": peer.dialect,
        "payload": trial.payload,
        "groups": trial.groups,
        "senders": trial.senders,
        "phases": [phase for _, phase in trial.phases],
    }
    try:
        results = _loaded(trial, ready, spec)
    except DidNotStart as error:
        outcome.absent[peer.name] = f"it did not start: {error}"
        outcome.failed.add(peer.name)
    except RuntimeError as error:
        outcome.absent[peer.name] = f"it failed in run {run + 1}: {error}"
        outcome.failed.add(peer.name)
    else:
        for (case, _), result in zip(trial.phases, results, strict=False):
            if reason := result.get("skipped"):
                _note(outcome, f"{trial.name}, {case}: {reason}")
            elif reason := result.get("failed"):
                _note(outcome, f"{trial.name}, {case} and what follows, in run {run + 1}: {reason}")
                outcome.failed.add(trial.peer)
            else:
                values = {name: float(f"{value:.6g}") for name, value in result.items() if isfinite(value)}
                outcome.records.append(Record(case, trial.row, run, values))


def _loaded(trial: Trial, ready: Ready, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Starts the server, with a fresh Redis server if it needs one, and runs the load generator."""
    environment = {**ready.environment, **trial.environment}
    with ExitStack() as stack:
        redis = None
        if any("{redis}" in value for value in environment.values()):
            redis = stack.enter_context(serving(redis_command(), beside=True))
            url = f"redis://127.0.0.1:{redis.port}/0"
            environment = {name: value.replace("{redis}", url) for name, value in environment.items()}
        workers = [stack.enter_context(serving(ready.command, environment)) for _ in range(trial.workers)]
        return load(workers, spec, redis)


def _note(outcome: Outcome, text: str) -> None:
    if text not in outcome.notes:
        outcome.notes.append(text)


# Evaluation


class Runs:
    """The measurements of a scenario.

    Args:
        records: The measurements of all cases, rows and runs.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = list(records)

    @property
    def cases(self) -> list[str]:
        """Returns the cases, in order of appearance."""
        return list(dict.fromkeys(record.case for record in self._records))

    def rows(self, case: str, metric: str) -> list[str]:
        """Returns the rows of a case, the smallest value first."""
        rows = dict.fromkeys(record.row for record in self._records if record.case == case)
        return sorted(rows, key=lambda row: _or_last(self.median(case, row, metric)))

    def values(self, case: str, row: str, metric: str) -> dict[int, float]:
        """Returns a measurement by run."""
        return {
            record.run: record.values[metric]
            for record in self._records
            if record.case == case and record.row == row and metric in record.values
        }

    def median(self, case: str, row: str, metric: str) -> float:
        values = self.values(case, row, metric)
        return median(values.values()) if values else nan

    def ratio(self, case: str, row: str, over: str, metric: str) -> float:
        """Returns the ratio of the medians."""
        below = self.median(case, over, metric)
        return self.median(case, row, metric) / below if below else nan

    def ratios(self, case: str, row: str, over: str, metric: str) -> list[float]:
        """Returns the ratios of the single runs, the smallest first."""
        above, below = self.values(case, row, metric), self.values(case, over, metric)
        return sorted(above[run] / below[run] for run in above.keys() & below.keys() if below[run])

    def judged(self, target: Target) -> float:
        """Returns the value that is compared with a target; NaN if it was not measured."""
        at = (target.case, target.of)
        match target.how:
            case "ratio":
                return self.ratio(*at, target.over, target.metric)
            case "pairs":
                ratios = self.ratios(*at, target.over, target.metric)
                return median(ratios) if ratios else nan
            case "more":
                return self.median(*at, target.metric) - self.median(target.case, target.over, target.metric)
            case "median":
                return self.median(*at, target.metric)
            case "worst":
                return max(self.values(*at, target.metric).values(), default=nan)


def _or_last(value: float) -> float:
    return value if isfinite(value) else float("inf")


# Storage


def kept(path: Path) -> dict[str, Any]:
    """Returns the stored results, by scenario."""
    parts: dict[str, Any] = json.loads(path.read_text())["scenarios"] if path.exists() else {}
    return parts


def keep(path: Path, parts: Mapping[str, Any]) -> None:
    """Stores the results, with one line per record."""
    text = json.dumps({"scenarios": parts}, indent=1, ensure_ascii=False)
    path.write_text(re.sub(r"\n {5,}|\n {4}(?=[}\]])", " ", text) + "\n")


def part(outcome: Outcome, **about: Any) -> dict[str, Any]:
    """Returns an outcome in its stored form."""
    records = [{"case": r.case, "row": r.row, "run": r.run, "values": dict(r.values)} for r in outcome.records]
    return {
        **about,
        "versions": outcome.versions,
        "absent": outcome.absent,
        "notes": outcome.notes,
        "failed": sorted(outcome.failed),
        "records": records,
    }


def runs_of(kept_part: Mapping[str, Any]) -> Runs:
    return Runs(Record(**record) for record in kept_part["records"])
