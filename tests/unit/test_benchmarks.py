"""The benchmark's arithmetic and rendering, and one short run of it, so that it can't rot."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan, nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.protocols.centrifugo import CENTRIFUGO_JSON, Encoding, centrifugo_protobuf
from hubbub.protocols.frames import Opcode, frame

pytest.importorskip("psutil", reason="the benchmark measures with psutil")

from benchmarks import compare, report, scenarios, server, storm, wire
from benchmarks.__main__ import main
from benchmarks.compare import Outcome, Record, Runs
from benchmarks.dialects import DIALECTS
from benchmarks.load import Group
from benchmarks.meter import quantile
from benchmarks.peers import PEERS, SERVERS
from benchmarks.scenarios import GROUPS, SCENARIOS, Size, Target

ROOT = Path(__file__).parents[2]
SIZES = (0, 1, 125, 126, 65535, 65536)


def runs(values: dict[str, list[float]], case: str = "window 1", metric: str = "cpu_us") -> Runs:
    """What rows have measured, run by run."""
    return Runs(
        Record(case, row, run, {metric: value})
        for row, measured in values.items()
        for run, value in enumerate(measured)
    )


def target(**changes: Any) -> Target:
    about = {"text": "", "case": "window 1", "metric": "cpu_us", "of": "hubbub", "limit": 1.0, "over": "floor"}
    return Target(**{**about, **changes})


# Frames


@pytest.mark.parametrize("size", SIZES)
def test_what_a_server_sends_is_parsed(size: int) -> None:
    data = frame(Opcode.TEXT, b"x" * size) + b"\x89\x01?"
    (opcode, wire_size, payload, end), ping = wire.frames(data)
    assert (opcode, payload, end) == (wire.TEXT, b"x" * size, wire_size)
    assert ping == (wire.PING, 3, b"?", len(data))


@pytest.mark.parametrize("size", SIZES)
def test_a_client_s_frame_is_the_server_s_with_a_mask_of_zeros(size: int) -> None:
    data, payload = wire.client_frame(b"x" * size), b"x" * size
    head = len(data) - size - 4
    assert data[1] & 0x80
    assert data[head : head + 4] == bytes(4)
    assert bytes((data[0], data[1] & 0x7F)) + data[2:head] + payload == frame(Opcode.TEXT, payload)


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(min_value=0))
def test_a_frame_that_is_not_whole_waits_for_the_rest(payloads: list[bytes], cut: int) -> None:
    data = b"".join(frame(Opcode.BINARY, payload) for payload in payloads)
    cut %= len(data) + 1
    first = list(wire.frames(data[:cut]))
    rest = data[first[-1][3] if first else 0 :]
    assert [payload for _, _, payload, _ in (*first, *wire.frames(rest))] == payloads


# Counting


def test_a_message_is_through_when_the_last_one_has_it() -> None:
    group = Group([])
    group.at = {0: 3}
    assert [group.moved(0, 1), group.moved(0, 2)] == [False, False]
    assert group.moved(0, 1)
    assert group.low == 1
    assert not group.moved(1, 2)
    assert group.moved(1, 2)
    assert (group.low, group.at) == (2, {2: 3})


def test_a_nats_message_says_where_it_goes_and_how_long_it_is() -> None:
    assert DIALECTS["nats"].around("/room/r", 128) == (b"PUB /room/r 128\r\n", b"\r\n")
    assert DIALECTS["plain"].around("/room/r", 128) == (b"", b"")


def encoding_of(dialect: str) -> Encoding:
    return (centrifugo_protobuf() if "protobuf" in dialect else CENTRIFUGO_JSON).encoding


@pytest.mark.parametrize("dialect", ["subscriber", "asking", "subscriber-protobuf", "asking-protobuf"])
@pytest.mark.parametrize("size", [9, 128, 4096])
def test_clients_of_an_endpoint_send_its_commands(dialect: str, size: int) -> None:
    spoken, encoding = DIALECTS[dialect], encoding_of(dialect)
    subscribes = "subscriber" in dialect
    first: list[Any] = [command.request for hello in spoken.opening("a b") for command in encoding.decode(hello)]
    assert [type(each).__name__ for each in first] == ["ConnectRequest", *["SubscribeRequest"] * subscribes]
    before, after = spoken.around("a b", size)
    (command,) = encoding.decode(before + b"x" * size + after)
    request: Any = command.request
    data = json.loads(request.data.data)
    if subscribes:
        assert first[1].channel == "a b"
        assert data == {"method": "say", "data": {"text": "x" * size}}
    else:
        assert (request.method, data) == ("a b", {"text": "x" * size})


@pytest.mark.parametrize("dialect", ["subscriber", "subscriber-protobuf"])
def test_a_ping_of_an_endpoint_is_known_and_answered_with_a_pong(dialect: str) -> None:
    encoding = encoding_of(dialect)
    ((_, _, ping, _),) = wire.frames(encoding.ping)
    assert DIALECTS[dialect].ping is not None
    said, answer = DIALECTS[dialect].ping or (b"", b"")
    assert said == ping
    assert [type(command.request).__name__ for command in encoding.decode(answer)] == ["Pong"]


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(100)]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [0.0, 50.0, 99.0, 99.0]
    assert isnan(quantile([], 0.5))


# Coming back

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def missed(*numbers: int) -> bytes:
    return b"".join(frame(Opcode.TEXT, b"#%08dxxx" % number) for number in numbers)


@contextmanager
def coming_back(said: bytes) -> Iterator[tuple[storm.Storm, socket.socket]]:
    """A storm of one client that waits for two messages, and the server's end of its connection."""
    theirs, ours = socket.socketpair()
    ours.sendall(said)
    load: Any = SimpleNamespace(latencies=[], dial=lambda path: theirs)
    coming = storm.Storm(load, ["/room/r"], 2)
    try:
        yield coming, ours
    finally:
        coming.close()
        ours.close()


def test_a_client_is_whole_with_the_last_message_that_it_missed() -> None:
    with coming_back(ACCEPTED + missed(0, 1)) as (coming, _):
        coming.run(1, 5.0)
        coming.check([b"#00000000", b"#00000001"])
        assert coming.arrived() == 2
        assert coming.accepted_s > 0


def test_a_ping_is_answered_and_is_no_message() -> None:
    with coming_back(ACCEPTED + missed(0) + b"\x89\x02#?" + missed(1)) as (coming, server_end):
        coming.run(1, 5.0)
        assert server_end.recv(100) == wire.client_frame(b"#?", wire.PONG)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "the server answered b'HTTP/1.1 403"),
        (ACCEPTED + missed(0, 1, 2), "3 messages instead of 2"),
        (ACCEPTED + missed(1, 0), "in another order"),
        (ACCEPTED + missed(0, 0), "other messages than it missed"),
    ],
)
def test_a_client_that_did_not_get_what_it_missed_is_noticed(said: bytes, problem: str) -> None:
    with coming_back(said) as (coming, _), pytest.raises(ConnectionError, match=problem):
        coming.run(1, 5.0)
        coming.check([b"#00000000", b"#00000001"])


def test_a_client_that_is_closed_before_it_is_whole_is_noticed() -> None:
    with coming_back(ACCEPTED + missed(0)) as (coming, server_end):
        server_end.close()
        with pytest.raises(ConnectionError, match="closed a client that had 1 messages"):
            coming.run(1, 5.0)


# Comparing


def test_a_ratio_is_that_of_the_medians_and_each_pair_has_its_own() -> None:
    measured = runs({"hubbub": [2, 9, 3], "floor": [1, 3, 2]})
    assert measured.ratio("window 1", "hubbub", "floor", "cpu_us") == 3 / 2
    assert measured.ratios("window 1", "hubbub", "floor", "cpu_us") == [1.5, 2, 3]


def test_pairs_are_of_runs_that_both_were_in() -> None:
    measured = Runs([Record("c", "a", 0, {"m": 4}), Record("c", "a", 1, {"m": 6}), Record("c", "b", 1, {"m": 2})])
    assert measured.ratios("c", "a", "b", "m") == [3]


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"how": "ratio"}, 1.5),
        ({"how": "pairs"}, 2),
        ({"how": "more"}, 1),
        ({"how": "median"}, 3),
        ({"how": "worst"}, 9),
        ({"over": "nobody"}, nan),
        ({"case": "window 16"}, nan),
        ({"how": "worst", "of": "nobody"}, nan),
    ],
)
def test_a_target_is_judged_by_its_own_measure(changes: dict[str, Any], value: float) -> None:
    judged = runs({"hubbub": [2, 9, 3], "floor": [1, 3, 2]}).judged(target(**changes))
    assert judged == value or (isnan(judged) and isnan(value))


def test_rows_come_with_the_smallest_first_and_the_unknown_last() -> None:
    measured = runs({"b": [2], "c": [], "a": [3], "d": [1]})
    assert measured.rows("window 1", "cpu_us") == ["d", "b", "a"]
    assert measured.rows("window 1", "p99_ms") == ["b", "a", "d"]


def test_results_are_kept_as_they_were(tmp_path: Path) -> None:
    part = made({"hubbub": [1.5, 2.5]})
    compare.keep(tmp_path / "results.json", {"fanout": part})
    assert compare.kept(tmp_path / "results.json") == {"fanout": part}
    assert compare.kept(tmp_path / "none.json") == {}


# Scenarios


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_target_judges_is_measured(name: str) -> None:
    scenario = SCENARIOS[name]
    trials = scenario.trials(Size())
    measured = {(case, trial.row) for trial in trials for case, _ in trial.phases}
    for each in scenario.targets:
        assert {(each.case, row) for row in (each.of, each.over) if row} <= measured
    assert {trial.peer for trial in trials} <= PEERS.keys()


def test_the_room_of_the_targets_has_a_thousand_members() -> None:
    trials = SCENARIOS["fanout"].trials(Size())
    assert {len(group) for trial in trials for group in trial.groups} == {1000}
    assert {path for trial in trials for path in trial.groups[0]} == {"/room/r"}


def test_redis_stands_for_all_that_go_through_one() -> None:
    assert GROUPS["redis"] == ["redis_fanout", "redis_rooms", "redis_latency", "redis_recovery"]
    for name in SCENARIOS.keys() - GROUPS["redis"]:
        assert not [trial for trial in SCENARIOS[name].trials(Size()) if trial.peer.endswith(("-redis", "-streams"))]


def test_as_many_come_back_as_may_have_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "open_files", lambda: 1064)
    trials = SCENARIOS["redis_recovery"].trials(Size())
    assert {case for trial in trials for case, _ in trial.phases} == {"1,000 clients", "1,000 clients, each a user"}
    assert {len(phase["paths"]) for trial in trials for _, phase in trial.phases} == {1000}
    assert {trial.sockets for trial in trials} == {1064}


def test_every_server_file_has_a_peer() -> None:
    said = (ROOT / "benchmarks" / "peers.py").read_text()
    names = {path.name.removesuffix(".py") for path in SERVERS.iterdir() if path.is_file()} - {"ticker", "typed"}
    assert {name for name in names if name not in said} == set()


# Rendering


def made(values: dict[str, list[float]], case: str = "window 1", **about: Any) -> dict[str, Any]:
    """A scenario's part of the results."""
    records = [
        Record(case, row, run, {"cpu_us": value, "server_busy": 1.0, "load_busy": 0.5})
        for row, measured in values.items()
        for run, value in enumerate(measured)
    ]
    settings = {"runs": 3, "seconds": 3.0, "members": 1000}
    outcome = Outcome(records, dict.fromkeys(values, "1.2.3"), absent=about.pop("absent", {}))
    machine = {"processor": "a|b", "cores": "2"}
    return {
        **compare.part(outcome, when="today", settings=settings, machine=machine, load_average=0.1),
        **about,
    }


def test_a_table_has_medians_spreads_and_ratios() -> None:
    text = report.section(SCENARIOS["fanout"], made({"hubbub": [5, 4, 6], "floor": [4, 2, 4]}))
    assert "| floor | 4.00 (2.00–4.00) | 1.00 | 0.50 | 1.25 (1.25–2.00) |" in text
    assert "| **hubbub** | 5.00 (4.00–6.00) | 1.00 | 0.50 |  |" in text


@pytest.mark.parametrize(
    ("floor", "cells"), [(4.0, "| 1.25 | 1.25 | 1.35 | met |"), (2.0, "| 2.5 | 2.50 | 1.35 | **not met** |")]
)
def test_a_target_is_met_or_not(floor: float, cells: str) -> None:
    assert cells in report.markdown({"fanout": made({"hubbub": [5], "floor": [floor]})})


def test_a_target_says_with_how_many_members_it_was_judged() -> None:
    part = made({"hubbub": [5], "floor": [5]}, settings={"runs": 1, "seconds": 1, "members": 20})
    assert "| met, with 20 for 1,000 members |" in report.markdown({"fanout": part})


def test_what_was_not_measured_is_listed_with_the_reason() -> None:
    text = report.markdown({"fanout": made({"hubbub": [5]}, absent={"floor": "no cc"}, notes=["nats: too slow"])})
    assert "not measured (floor: no cc)" in text
    assert "| floor | a C loop of `send()`, one for each message and member | not measured: no cc |" in text
    assert "- floor: no cc\n- nats: too slow" in text
    assert text.count("| not measured |") == sum(len(each.targets) for each in SCENARIOS.values()) - 1


def test_a_row_that_the_generator_limits_is_marked() -> None:
    part = made({"hubbub": [5], "floor": [4]})
    for record in part["records"]:
        record["values"] |= {"server_busy": 0.7, "load_busy": 1.0}
    assert "| **hubbub** † |" in report.section(SCENARIOS["fanout"], part)


def test_a_row_is_marked_whose_redis_takes_the_rest_of_the_generator_s_core() -> None:
    part = made({"hubbub": [5], "floor": [4]})
    for record in part["records"]:
        record["values"] |= {"server_busy": 0.7, "load_busy": 0.6}
    part["records"][0]["values"]["redis_busy"] = 0.4
    text = report.section(SCENARIOS["fanout"], part)
    assert "| **hubbub** † |" in text
    assert "| floor | " in text


def test_two_machines_have_a_column_each() -> None:
    other = {"processor": "c", "cores": "8"}
    text = report.markdown({"fanout": made({"hubbub": [5]}), "rooms": made({"hubbub": [5]}, machine=other)})
    assert "|  | fanout | rooms |" in text
    assert "| processor | a\\|b | c |" in text


@pytest.mark.parametrize("values", [{"hubbub": [0.4], "<peer>": [275.0], "none": []}, {"hubbub": [1.0]}, {}])
def test_the_plot_is_well_formed_and_has_a_dot_for_each_value(values: dict[str, list[float]]) -> None:
    root = ElementTree.fromstring(report.svg(made(values)))
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert [title for title in titles if "µs" in title] == [
        f"{row}, window 1: {report.shown(*measured)} µs" for row, measured in values.items() if measured
    ]
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(circle.get("cx", "-1")) <= 860


def test_a_case_may_have_a_metric_of_its_own() -> None:
    part = made({})
    part["records"] = [
        {"case": "connecting", "row": row, "run": 0, "values": {"open_us": value, "per_s": 9.0}}
        for row, value in (("raw", 500.0), ("JSON", 600.0))
    ]
    assert "| raw | 9.00 | 500 | 1.20 |" in report.section(SCENARIOS["endpoint"], part)


def test_a_scenario_is_printed_with_its_own_targets() -> None:
    text = report.alone(SCENARIOS["fanout"], made({"hubbub": [5], "floor": [4]}))
    assert "| fanout | window 1: CPU per delivery, against the C floor | 1.25 | 1.25 | 1.35 | met |" in text
    assert "| rooms |" not in text
    assert "at most" not in report.alone(SCENARIOS["users"], made({"hubbub": [5]}))


# The whole


def test_clients_of_an_endpoint_and_raw_ones_are_loaded_alike() -> None:
    timing = {"warm_s": 0.05, "measure_s": 0.1}
    members = ["/room/r", "subscriber:r", "subscriber-protobuf:r"]
    spec: dict[str, Any] = {"dialect": "plain", "payload": 128}
    ready = PEERS["hubbub-endpoint"].prepare(Path())
    with server.serving(ready.command) as worker:
        window = {"kind": "closed", "window": 4, **timing}
        room = {"groups": [members], "senders": ["/publish/r"] * 2, "phases": [window]}
        (published,) = server.load([worker], {**spec, **room})
        window = {"kind": "closed", "window": 1, **timing}
        asking = {"groups": [["asking:ask"], ["asking-protobuf:ask"]], "senders": [], "phases": [window]}
        (answered,) = server.load([worker], {**spec, **asking})
    assert published["deliveries"] >= 3 * 4
    assert answered["deliveries"] >= 2


def test_a_short_run_writes_its_results_and_leaves_the_others(tmp_path: Path) -> None:
    compare.keep(tmp_path / "results.json", {"memory": made({"hubbub": [5]}, case="a room")})
    sizes = ["--runs", "1", "--seconds", "0.2", "--members", "20", "--peers", "hubbub,handwritten"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "rooms", *sizes, "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())["scenarios"]
    assert list(results) == ["rooms", "memory"]
    records = results["rooms"]["records"]
    measured = {(record["case"], record["row"]) for record in records}
    assert measured == {(case, row) for case in ("window 1", "window 4") for row in ("hubbub", "handwritten")}
    assert all(record["values"]["deliveries"] > 0 for record in records)
    assert "### rooms: window 4" in done.stdout
    assert "| **hubbub** |" in (tmp_path / "results.md").read_text()


@pytest.mark.skipif(
    not (shutil.which("redis-server") or shutil.which("valkey-server")), reason="needs redis-server or valkey-server"
)
@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("redis_fanout", {"window 1", "window 16", "window 64"}),
        # What they share, the Redis and its share of the core, the first one has shown.
        pytest.param("redis_rooms", {"without history", "with history"}, marks=pytest.mark.slow),
        pytest.param("redis_latency", {"idle"}, marks=pytest.mark.slow),
        pytest.param("redis_recovery", {"50 clients", "50 clients, each a user"}, marks=pytest.mark.slow),
    ],
)
def test_a_short_run_through_a_redis_of_its_own(name: str, cases: set[str], tmp_path: Path) -> None:
    pytest.importorskip("redis", reason="the benchmark's servers speak to Redis with redis-py")
    sizes = ["--runs", "1", "--seconds", "0.1", "--members", "10", "--peers", "hubbub-redis"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, *sizes, "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads((tmp_path / "results.json").read_text())["scenarios"][name]["records"]
    assert {record["case"] for record in records} == cases
    assert all(record["values"]["redis_busy"] >= 0 for record in records)
    if name == "redis_recovery":
        assert {record["values"]["deliveries"] for record in records} == {50_000}


def test_without_a_redis_it_says_so_and_leaves_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **options: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert main(["redis", "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said == f"bench: left out, no redis-server or valkey-server on the PATH: {', '.join(GROUPS['redis'])}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_peer_that_nobody_knows_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--peers", "hubub"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no peer hubub; there are hubbub, floor," in done.stderr


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "status -9, and says nothing"),
        ("raise SystemExit('no sockets left')", "no sockets left"),
    ],
)
def test_a_generator_that_ends_early_says_how(monkeypatch: pytest.MonkeyPatch, program: str, said: str) -> None:
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: run([sys.executable, "-c", program], **options))
    with pytest.raises(RuntimeError, match=said):
        server.load([server.Running(port=1, pid=1)], {})
