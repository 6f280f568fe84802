"""Writes the results as Markdown, with a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import floor, isfinite, log10
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from .compare import Runs, runs_of
from .peers import PEERS
from .scenarios import SCENARIOS, Scenario, Size, Target

Part = Mapping[str, Any]

_MEMBERS = Size().members  # the size for which the targets are set
_LIMITED = "†"
_HEAD = f"""# Results

The cost of hubbub compared with other libraries and servers. `scripts/bench` writes this page, and anyone can run it.
`results.json` has every single measurement.

The server and the load generator are separate processes, each on its own core. Each run starts a fresh server, and the
runs of all servers are interleaved. CPU is the time that the operating system reports for the server and its child
processes, per delivered message. Numbers are medians of the runs, with the smallest and the largest in brackets. A
ratio is that of the medians, with the ratios of the single runs in brackets, pair by pair. Unless stated otherwise,
messages are 128 bytes of text. No compression is offered, and each server is configured as its own documentation shows.

The columns *busy* show which side is the bottleneck, as shares of a core: if the server is at 1.00 and the generator
below it, the server is the limit. In rows marked {_LIMITED} the generator is the limit: their deliveries per second
are the generator's, while their CPU per delivery is still the server's.

If Redis is involved, each run starts a fresh Redis server without persistence. It runs on the generator's core, and its
CPU does not count as the server's."""


def markdown(parts: Mapping[str, Part]) -> str:
    """Returns the page with all results."""
    sections = [_HEAD, "![CPU per delivery, by peer](results.svg)"] if "fanout" in parts else [_HEAD]
    sections += ["## Targets", _targets(parts), "## The machine", _machines(parts), "## The peers", _peers(parts)]
    for name, scenario in SCENARIOS.items():
        if name in parts:
            sections += [f"## {name}", section(scenario, parts[name])]
    return "\n\n".join(sections) + "\n"


def alone(scenario: Scenario, part: Part) -> str:
    """Returns the section of a scenario, with its targets."""
    targets = [_targets({scenario.name: part}, [scenario])] if scenario.targets else []
    return "\n\n".join([section(scenario, part), *targets])


def section(scenario: Scenario, part: Part) -> str:
    """Returns the section of a scenario."""
    runs, settings = runs_of(part), part["settings"]
    lines = [
        scenario.text,
        f"{settings['runs']} runs, {settings['seconds']:g} s each, members: {settings['members']:,}; {part['when']}.",
    ]
    for case in runs.cases:
        lines += [f"### {scenario.name}: {case}", _table(scenario, runs, case)]
    missing = [f"{name}: {reason}" for name, reason in part["absent"].items()] + part["notes"]
    if missing:
        lines.append("Not measured:\n\n" + "\n".join(f"- {each}" for each in missing))
    return "\n\n".join(lines)


def shown(value: float) -> str:
    """Formats a number with three significant digits."""
    if not isfinite(value):
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _spread(value: float, values: Sequence[float]) -> str:
    if len(values) < 2:
        return shown(value)
    return f"{shown(value)} ({shown(min(values))}–{shown(max(values))})"


def _table(scenario: Scenario, runs: Runs, case: str) -> str:
    metric = scenario.metric_of(case)
    rows = runs.rows(case, metric)
    columns = [name for name in scenario.columns if any(runs.values(case, row, name) for row in rows)]
    compared = scenario.of in rows and len(rows) > 1
    head = ["", *[scenario.columns[name] for name in columns]]
    if compared:
        head.append(f"{scenario.of} ÷ it")
    body = []
    for row in rows:
        cells = [_named(row, runs, case, row == scenario.of)]
        for name in columns:
            values, middle = list(runs.values(case, row, name).values()), runs.median(case, row, name)
            cells.append(_spread(middle, values) if name == metric else shown(middle))
        if compared:
            cells.append("" if row == scenario.of else _ratio(scenario, runs, case, row))
        body.append(cells)
    return _grid(head, body)


def _named(row: str, runs: Runs, case: str, ours: bool) -> str:
    beside = sum(runs.median(case, row, name) for name in ("load_busy", "redis_busy") if runs.values(case, row, name))
    limited = beside > 0.95 and runs.median(case, row, "server_busy") < 0.9
    return f"{f'**{row}**' if ours else row}{f' {_LIMITED}' if limited else ''}"


def _ratio(scenario: Scenario, runs: Runs, case: str, row: str) -> str:
    metric = scenario.metric_of(case)
    return _spread(runs.ratio(case, scenario.of, row, metric), runs.ratios(case, scenario.of, row, metric))


def _targets(parts: Mapping[str, Part], scenarios: Iterable[Scenario] = tuple(SCENARIOS.values())) -> str:
    rows = []
    for scenario in scenarios:
        for target in scenario.targets:
            rows.append([scenario.name, target.text, *_verdict(target, parts.get(scenario.name))])
    return _grid(["scenario", "what", "measured", "pairs", "at most", ""], rows)


def _verdict(target: Target, part: Part | None) -> list[str]:
    limit = f"{target.limit:g}{target.unit}"
    if part is None:
        return ["–", "", limit, "not measured"]
    runs = runs_of(part)
    value = runs.judged(target)
    if not isfinite(value):
        absent = [f"{name}: {reason}" for name, reason in part["absent"].items() if name in (target.of, target.over)]
        return ["–", "", limit, "not measured" + "".join(f" ({each})" for each in absent)]
    pairs = runs.ratios(target.case, target.of, target.over, target.metric) if target.how in ("ratio", "pairs") else []
    verdict = "met" if value <= target.limit else "**not met**"
    if (members := part["settings"]["members"]) != _MEMBERS:
        verdict += f", with {members:,} for {_MEMBERS:,} members"
    return [f"{value:.3g}{target.unit}", _spread(median(pairs), pairs) if pairs else "", limit, verdict]


def _machines(parts: Mapping[str, Part]) -> str:
    """Returns a table with a column for each machine that was used."""
    machines: dict[tuple[str, ...], list[str]] = {}
    keys = list(dict.fromkeys(key for part in parts.values() for key in part["machine"]))
    for name, part in parts.items():
        machines.setdefault(tuple(str(part["machine"].get(key, "")) for key in keys), []).append(name)
    head = ["", *(", ".join(names) if len(machines) > 1 else "" for names in machines.values())]
    load = [["load average at the start", *("" for _ in machines)]]
    load[0][1:] = [
        ", ".join(f"{name} {parts[name]['load_average']:.2f}" for name in names) for names in machines.values()
    ]
    return _grid(head, [[key, *(values[index] for values in machines)] for index, key in enumerate(keys)] + load)


def _peers(parts: Mapping[str, Part]) -> str:
    rows = []
    for name, peer in PEERS.items():
        versions = dict.fromkeys(part["versions"][name] for part in parts.values() if name in part["versions"])
        absent = dict.fromkeys(part["absent"][name] for part in parts.values() if name in part["absent"])
        said = [*versions, *(f"not measured: {reason}" for reason in absent)]
        rows.append([name, peer.what, "; ".join(said) or "not asked for"])
    return _grid(["name", "what", "version"], rows)


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


# The plot

_COLOURS = ("#7a8794", "#2f6fde", "#0b2a6b", "#d9822b")
_ROW, _LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH = 26, 150, 30, 64, 46, 860


def svg(part: Part) -> str:
    """Plots the CPU per delivery of each peer in each case of the fan-out, on a logarithmic axis."""
    runs = runs_of(part)
    cases = [case for case in runs.cases if case.startswith("window")]
    rows = runs.rows(cases[0], "cpu_us") if cases else []
    dots = {
        (row, case): value
        for row in rows
        for case in cases
        if isfinite(value := runs.median(case, row, "cpu_us")) and value > 0
    }
    if not dots:
        return _drawing(2 * _ROW, [])
    low, high = 10 ** floor(log10(min(dots.values()))), 10 ** (floor(log10(max(dots.values()))) + 1)
    height = _TOP + _ROW * len(rows) + _BOTTOM

    def across(value: float) -> float:
        return _LEFT + (log10(value) - log10(low)) / (log10(high) - log10(low)) * (_WIDTH - _LEFT - _RIGHT)

    shapes = [_text(16, 26, "CPU per delivery, µs (logarithmic); lower is better", 15, "600")]
    for index, case in enumerate(cases):
        x = _WIDTH - _RIGHT - 100 * (len(cases) - index)
        shapes += [_dot(x, 43, _COLOURS[index % 4], case), _text(x + 10, 47, case, 12)]
    shapes += _axis(low, high, height, across)
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number + _ROW / 2
        values = [dots[row, case] for case in cases if (row, case) in dots]
        shapes.append(_text(_LEFT - 12, y + 4, row, 13, "700" if row == "hubbub" else "400", "end"))
        if values:
            start, end = across(min(values)), across(max(values))
            shapes.append(_line(start, end, y, y, "#c3cad2"))
        for index, case in enumerate(cases):
            if (row, case) in dots:
                value = dots[row, case]
                shapes.append(_dot(across(value), y, _COLOURS[index % 4], f"{row}, {case}: {shown(value)} µs"))
    return _drawing(height, shapes)


def _axis(low: float, high: float, height: int, across: Callable[[float], float]) -> list[str]:
    shapes, value = [], low
    while value <= high * 1.01:
        x = across(value)
        shapes.append(_line(x, x, _TOP, height - _BOTTOM + 6, "#e3e7eb"))
        shapes.append(_text(x, height - _BOTTOM + 24, f"{value:g}", 12, anchor="middle"))
        value *= 10
    return shapes


def _drawing(height: int, shapes: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" font-family="system-ui, sans-serif">',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *shapes,
            "</svg>\n",
        ]
    )


def _line(x1: float, x2: float, y1: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="1.5"/>'


def _dot(x: float, y: float, colour: str, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y}" r="6" fill="{colour}"><title>{escape(title)}</title></circle>'


def _text(x: float, y: float, text: str, size: int, weight: str = "400", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="#1c2733">{escape(text)}</text>'
    )
