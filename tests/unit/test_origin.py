"""OriginPolicy: who is let in, and what the log says to whoever should have been."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubbub.errors import InvalidArgument
from hubbub.origin import OriginPolicy


def headers(origin: str | None, host: str | None = "app.example") -> list[tuple[bytes, bytes]]:
    pairs = [(b"host", host), (b"origin", origin)]
    return [(name, value.encode("latin-1")) for name, value in pairs if value is not None]


def allows(policy: OriginPolicy, headers: list[tuple[bytes, bytes]]) -> bool:
    return policy.refusal(headers) is None


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        pytest.param("https://app.example", "app.example", id="host"),
        pytest.param("http://app.example", "app.example", id="http"),
        pytest.param("https://app.example", "app.example:443", id="https-port-in-host"),
        pytest.param("https://app.example:443", "app.example", id="https-port-in-origin"),
        pytest.param("http://app.example", "app.example:80", id="http-port-in-host"),
        pytest.param("http://localhost:8000", "localhost:8000", id="port"),
        pytest.param("HTTPS://App.Example", "aPP.exAMPLE", id="case"),
        pytest.param("http://[::1]:8000", "[::1]:8000", id="ipv6"),
        pytest.param("https://[2001:DB8::1]", "[2001:db8::1]", id="ipv6-case"),
        pytest.param("http://127.0.0.1:8000", "127.0.0.1:8000", id="ipv4"),
        pytest.param("https://xn--mnchen-3ya.example", "xn--mnchen-3ya.example", id="idna"),
        pytest.param("https://my_app.example", "my_app.example", id="underscore"),
    ],
)
def test_a_page_may_connect_to_the_host_it_came_from(origin: str, host: str) -> None:
    assert allows(OriginPolicy(), headers(origin, host))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        pytest.param("https://evil.example", "app.example", id="other-host"),
        pytest.param("https://app.example.evil.example", "app.example", id="prefix"),
        pytest.param("https://evil-app.example", "app.example", id="suffix"),
        pytest.param("https://sub.app.example", "app.example", id="subdomain"),
        pytest.param("https://app.example", "sub.app.example", id="parent"),
        pytest.param("http://localhost:3000", "localhost:8000", id="other-port"),
        pytest.param("https://app.example", "app.example:80", id="http-port-for-https"),
        pytest.param("http://app.example", "app.example:443", id="https-port-for-http"),
        pytest.param("http://localhost:8000", "127.0.0.1:8000", id="name-and-address"),
        pytest.param("https://app.example", None, id="no-host"),
        pytest.param("https://app.example", "", id="empty-host"),
        pytest.param("https://app.example", "app.example/path", id="bad-host"),
        pytest.param("null", "null", id="null"),
        pytest.param("null", "app.example", id="null-elsewhere"),
        pytest.param("", "app.example", id="empty"),
        pytest.param("app.example", "app.example", id="no-scheme"),
        pytest.param("https://", "", id="no-name"),
        pytest.param("https://app.example/", "app.example", id="slash"),
        pytest.param("https://app.example/path", "app.example", id="path"),
        pytest.param("https://user@app.example", "app.example", id="user"),
        pytest.param("https://app.example@evil.example", "app.example", id="user-trick"),
        pytest.param("https://evil.example#app.example", "app.example", id="fragment-trick"),
        pytest.param("https://evil.example\\app.example", "app.example", id="backslash-trick"),
        pytest.param("https://app.example https://evil.example", "app.example", id="two-in-one"),
        pytest.param("https://app.example, https://evil.example", "app.example", id="list"),
        pytest.param("https://app.example:99999", "app.example:99999", id="port-out-of-range"),
        pytest.param("https://app.example:x", "app.example:x", id="port-not-a-number"),
        pytest.param("https://[::1", "[::1", id="unclosed-bracket"),
        pytest.param("capacitor://localhost", "localhost", id="app-scheme"),
        pytest.param("file://", "", id="file"),
        pytest.param("https://m\xfcnchen.example", "m\xfcnchen.example", id="not-ascii"),
    ],
)
def test_any_other_origin_is_refused_and_explained(origin: str, host: str | None) -> None:
    policy = OriginPolicy()
    assert not allows(policy, headers(origin, host))
    assert policy.refusal(headers(origin, host)) == policy.explain(origin, host)


def test_no_origin_is_no_browser_and_let_in() -> None:
    assert allows(OriginPolicy(), headers(None))
    assert allows(OriginPolicy(), [])


@pytest.mark.parametrize("allowed", [[], ["*"], ["https://app.example"]], ids=["same", "any", "listed"])
def test_several_origin_headers_are_refused(allowed: list[str]) -> None:
    twice = [*headers("https://app.example"), (b"Origin", b"https://app.example")]
    assert OriginPolicy(allowed).refusal(twice) == "the handshake has 2 Origin headers, and a browser sends one"


def test_several_host_headers_are_no_host() -> None:
    twice = [*headers("https://app.example"), (b"host", b"app.example")]
    assert not allows(OriginPolicy(), twice)
    assert allows(OriginPolicy(["https://app.example"]), twice)


@pytest.mark.parametrize("name", [b"origin", b"Origin", b"ORIGIN"], ids=lambda name: name.decode())
def test_header_names_are_compared_without_case(name: bytes) -> None:
    assert not allows(OriginPolicy(), [(b"Host", b"app.example"), (name, b"https://evil.example")])
    assert allows(OriginPolicy(), [(b"HOST", b"app.example"), (name, b"https://app.example")])


@pytest.mark.parametrize(
    ("entry", "origin", "admitted"),
    [
        pytest.param("https://a.example", "https://a.example", True, id="exact"),
        pytest.param("https://a.example", "https://a.example:443", True, id="default-port-in-origin"),
        pytest.param("https://a.example:443", "https://a.example", True, id="default-port-in-entry"),
        pytest.param("https://A.Example", "https://a.example", True, id="case"),
        pytest.param("https://a.example", "http://a.example", False, id="scheme"),
        pytest.param("file://", "file://", True, id="file"),
        pytest.param("FILE://", "file://", True, id="file-case"),
        pytest.param("app://.", "app://.", True, id="desktop-shell"),
        pytest.param("tauri://localhost", "tauri://localhost", True, id="desktop-shell-with-a-host"),
        pytest.param("file://", "null", False, id="null-is-no-file"),
        pytest.param("file://", "file://host", False, id="file-of-a-host"),
        pytest.param("file://", "app://", False, id="another-scheme"),
        pytest.param("null", "file://", False, id="file-is-not-null"),
        pytest.param("https://a.example", "https://a.example:8443", False, id="port"),
        pytest.param("https://a.example:8443", "https://a.example:8443", True, id="own-port"),
        pytest.param("https://a.example", "https://b.a.example", False, id="subdomain"),
        pytest.param("https://*.a.example", "https://b.a.example", True, id="wildcard"),
        pytest.param("https://*.a.example", "https://c.b.a.example", True, id="wildcard-deep"),
        pytest.param("https://*.a.example", "https://B.A.Example", True, id="wildcard-case"),
        pytest.param("https://*.a.example", "https://a.example", False, id="wildcard-apex"),
        pytest.param("https://*.a.example", "https://evil-a.example", False, id="wildcard-suffix"),
        pytest.param("https://*.a.example", "https://.a.example", False, id="wildcard-empty-label"),
        pytest.param("https://*.a.example", "https://b.a.example.evil.example", False, id="wildcard-prefix"),
        pytest.param("https://*.a.example", "http://b.a.example", False, id="wildcard-scheme"),
        pytest.param("https://*.a.example", "https://b.a.example:8443", False, id="wildcard-port"),
        pytest.param("https://*.a.example:8443", "https://b.a.example:8443", True, id="wildcard-own-port"),
        pytest.param("capacitor://localhost", "capacitor://localhost", True, id="app"),
        pytest.param("chrome-extension://abcdef", "chrome-extension://abcdef", True, id="extension"),
        pytest.param("http://[::1]:3000", "http://[::1]:3000", True, id="ipv6"),
        pytest.param("null", "null", True, id="null"),
        pytest.param("null", "https://a.example", False, id="null-only"),
        pytest.param("*", "https://evil.example", True, id="any"),
        pytest.param("*", "null", True, id="any-null"),
        pytest.param("*", "file://", True, id="any-unparsable"),
    ],
)
def test_listed_origins_are_let_in(entry: str, origin: str, admitted: bool) -> None:
    policy = OriginPolicy([entry])
    assert allows(policy, headers(origin)) is admitted
    assert allows(policy, headers("https://app.example")), "one's own stays allowed"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        pytest.param("app.example", "has no scheme", id="no-scheme"),
        pytest.param("https://app.example/", "ends with a slash", id="slash"),
        pytest.param("https://app.example/chat", "has a path", id="path"),
        pytest.param("https://app.example?x", "has a path", id="query"),
        pytest.param("https://*", "has a '*' that does not stand for subdomains", id="only-a-star"),
        pytest.param("https://*.", "has a '*' that does not stand for subdomains", id="subdomains-of-nothing"),
        pytest.param("app://*.", "has a '*' that does not stand for subdomains", id="subdomains-of-no-host"),
        pytest.param("file:///index.html", "has a path", id="file-path"),
        pytest.param("https://", "is not an origin", id="no-host"),
        pytest.param("https://a*.example", "has a '*' that does not stand for subdomains", id="star-in-a-label"),
        pytest.param("https://a.*.example", "has a '*' that does not stand for subdomains", id="star-in-the-middle"),
        pytest.param("https://*.*.example", "has a '*' that does not stand for subdomains", id="two-stars"),
        pytest.param("*://a.example", "is not an origin", id="star-scheme"),
        pytest.param("https://app.example:port", "is not an origin", id="port"),
        pytest.param("https://app.example:99999", "is not an origin", id="port-out-of-range"),
        pytest.param("https://münchen.example", "xn--", id="not-ascii"),
        pytest.param("", "has no scheme", id="empty"),
        pytest.param(None, "got None", id="none"),
        pytest.param(b"https://app.example", "got b'https", id="bytes"),
    ],
)
def test_an_entry_that_is_no_origin_is_an_error_that_says_what_is(entry: Any, problem: str) -> None:
    with pytest.raises(InvalidArgument, match="allowed_origins") as caught:
        OriginPolicy([entry])
    assert problem in caught.value.problem
    assert "'https://*.app.example' (its subdomains)" in caught.value.accepted


@pytest.mark.parametrize("allowed", ["https://app.example", b"*", None, 1], ids=["str", "bytes", "none", "int"])
def test_the_origins_are_a_list(allowed: Any) -> None:
    with pytest.raises(InvalidArgument, match="not a list"):
        OriginPolicy(allowed)


@pytest.mark.parametrize(
    ("origin", "host", "line"),
    [
        pytest.param(
            "https://evil.example",
            "app.example",
            "origin 'https://evil.example' is not the host it was sent to ('app.example'); if it is yours: "
            'ConnectionManager(allowed_origins=["https://evil.example"])',
            id="other",
        ),
        pytest.param(
            "null",
            "app.example",
            "origin 'null' is that of a sandboxed frame or a local file; if it is yours: "
            'ConnectionManager(allowed_origins=["null"])',
            id="null",
        ),
        pytest.param(
            "file://",
            "app.example",
            "origin 'file://' is that of a local file or a desktop app's web view; if it is yours: "
            'ConnectionManager(allowed_origins=["file://"])',
            id="file",
        ),
        pytest.param(
            "capacitor://localhost",
            "localhost",
            "origin 'capacitor://localhost' is that of an app or a browser extension; if it is yours: "
            'ConnectionManager(allowed_origins=["capacitor://localhost"])',
            id="app",
        ),
        pytest.param(
            "https://app.example",
            None,
            "origin 'https://app.example' can't be compared with the host, because there is not exactly one Host "
            'header; if it is yours: ConnectionManager(allowed_origins=["https://app.example"])',
            id="no-host",
        ),
        pytest.param(
            "x\r\nINFO all is well",
            "app.example",
            r"origin 'x\r\nINFO all is well' is not what a browser sends",
            id="forged-line",
        ),
    ],
)
def test_the_explanation_says_what_to_add(origin: str, host: str | None, line: str) -> None:
    assert OriginPolicy().explain(origin, host) == line


def test_what_the_explanation_says_to_add_helps() -> None:
    line = OriginPolicy().explain("https://evil.example:8443", "app.example")
    entry = line.rpartition('["')[2].removesuffix('"])')
    assert allows(OriginPolicy([entry]), headers("https://evil.example:8443"))


def test_repr_says_how_open_it_is() -> None:
    assert repr(OriginPolicy(["https://a.example", "null"])) == "OriginPolicy(same origin and 2 more)"
    assert repr(OriginPolicy(["*"])) == "OriginPolicy(any origin)"


HEADER_VALUES = st.one_of(
    st.binary(max_size=400),
    st.text(alphabet="htps:/.*[]@#\\ :0123456789a\x00\r\n-null", max_size=60).map(str.encode),
    st.from_regex(rb"https?://[a-z.\[\]:]{0,20}(:[0-9]{1,6})?", fullmatch=True),
)


@given(origin=HEADER_VALUES, host=HEADER_VALUES)
@example(origin=b"https://a:" + "٣".encode(), host=b"a:\xd9\xa3")
@example(origin=b"https://a\n", host=b"a")
def test_no_header_makes_it_raise_or_write_more_than_one_bounded_line(origin: bytes, host: bytes) -> None:
    policy = OriginPolicy(["https://*.a.example", "https://b.example"])
    line = policy.refusal([(b"origin", origin), (b"host", host)])
    if line is not None:
        assert line.isascii()
        assert line.isprintable() or "…" in line
        assert len(line) < 1200


@given(origin=HEADER_VALUES, host=HEADER_VALUES)
def test_what_is_let_in_names_the_host(origin: bytes, host: bytes) -> None:
    if allows(OriginPolicy(), [(b"origin", origin), (b"host", host)]):
        name = host.decode("latin-1").strip().lower()
        bare = name.removesuffix(":443").removesuffix(":80")
        assert bare in origin.decode("latin-1").lower()


@given(entry=st.one_of(st.text(max_size=60), st.from_regex(r"[a-z]{1,5}://[a-z*.:0-9\[\]]{0,20}", fullmatch=True)))
def test_an_entry_is_taken_or_refused_by_name(entry: str) -> None:
    problem = None
    try:
        OriginPolicy([entry])
    except InvalidArgument as error:
        problem = error
    assert problem is None or problem.argument == "allowed_origins"
