"""JWTAuth.verify and Claims: which tokens are good, and which keys are refused before there is a token."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hubbub.auth import Claims, InvalidToken, JWTAuth, KeyUnavailable
from hubbub.errors import HubbubError, InvalidArgument

SECRET = "a secret for the tests, 32 bytes or more"
NOW = int(time.time())  # of the import, so all else is a day away: a run may take long
DAY_S = 86_400
GOOD: dict[str, Any] = {"sub": "ann", "name": "Ann", "exp": NOW + DAY_S}

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


RSA_PEM = pem(RSA_KEY)


def token(claims: Mapping[str, Any] = GOOD, key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(dict(claims), key, algorithm, headers=header)


def forged(header: Any, claims: Any = GOOD, sign: Callable[[bytes], bytes] = lambda text: b"") -> str:
    """A token made by hand, for what PyJWT refuses to make."""
    text = b".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    return b".".join((text, encoded(sign(text)))).decode()


def encoded(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")


def signed_with(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda text: hmac.new(secret, text, hashlib.sha256).digest()


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name not in names}


def auth(**options: Any) -> JWTAuth:
    return JWTAuth(**{"key": SECRET, "algorithms": ["HS256"], **options})


def refusal(auth: JWTAuth, text: Any) -> InvalidToken:
    with pytest.raises(InvalidToken) as caught:
        auth.verify(text)
    return caught.value


# Good tokens


@pytest.mark.parametrize(
    ("sign", "check", "algorithm"),
    [
        pytest.param(SECRET, SECRET, "HS256", id="HS256"),
        pytest.param(SECRET.encode(), SECRET.encode(), "HS256", id="HS256-bytes"),
        pytest.param("x" * 48, "x" * 48, "HS384", id="HS384"),
        pytest.param("x" * 64, "x" * 64, "HS512", id="HS512"),
        pytest.param(RSA_KEY, RSA_PEM, "RS256", id="RS256-pem"),
        pytest.param(RSA_KEY, RSA_PEM.encode(), "RS512", id="RS512-pem-bytes"),
        pytest.param(RSA_KEY, RSA_KEY.public_key(), "PS256", id="PS256-object"),
        pytest.param(RSA_KEY, RSA_KEY, "RS256", id="RS256-private-key"),
        pytest.param(EC_KEY, pem(EC_KEY), "ES256", id="ES256"),
        pytest.param(ED_KEY, ED_KEY.public_key(), "EdDSA", id="EdDSA"),
    ],
)
def test_a_good_token_gives_its_claims(sign: Any, check: Any, algorithm: str) -> None:
    claims = JWTAuth(check, algorithms=[algorithm]).verify(token(key=sign, algorithm=algorithm))
    assert claims == GOOD
    assert claims.sub == "ann"
    assert claims.expires_at == datetime.fromtimestamp(NOW + DAY_S, UTC)


def test_several_algorithms_of_one_family_may_be_accepted() -> None:
    both = JWTAuth(RSA_PEM, algorithms=["RS256", "PS256"])
    assert both.verify(token(key=RSA_KEY, algorithm="RS256")).sub == "ann"
    assert both.verify(token(key=RSA_KEY, algorithm="PS256")).sub == "ann"
    assert refusal(both, token(key=RSA_KEY, algorithm="RS512")).cause == "algorithm not allowed"


@pytest.mark.parametrize("sub", ["ann", 42, "42"], ids=repr)
def test_a_user_is_a_str_or_an_int_and_given_as_str(sub: object) -> None:
    claims = auth().verify(forged({"alg": "HS256"}, {**GOOD, "sub": sub}, signed_with(SECRET.encode())))
    assert claims.sub == str(sub)
    assert claims["sub"] == sub


@pytest.mark.parametrize(
    ("options", "claims"),
    [
        pytest.param({"audience": "chat"}, {"aud": "chat"}, id="audience"),
        pytest.param({"audience": "chat"}, {"aud": ["mail", "chat"]}, id="audience-among-others"),
        pytest.param({"audience": ["chat", "mail"]}, {"aud": "mail"}, id="one-of-the-audiences"),
        pytest.param({"issuer": "https://id.example"}, {"iss": "https://id.example"}, id="issuer"),
        pytest.param({"issuer": ["a", "b"]}, {"iss": "b"}, id="one-of-the-issuers"),
        pytest.param({}, {"iss": "anybody"}, id="any-issuer"),
        pytest.param({"leeway_s": 3600}, {"exp": NOW - 30}, id="leeway-for-exp"),
        pytest.param({"leeway_s": 60}, {"nbf": NOW + 30}, id="leeway-for-nbf"),
        pytest.param({"leeway_s": 60}, {"iat": NOW + 30}, id="leeway-for-iat"),
        pytest.param({}, {"iat": NOW + 2, "nbf": NOW + 2}, id="a-clock-that-is-ahead"),
        pytest.param({}, {"iat": NOW + 9, "nbf": NOW + 9}, id="a-clock-that-is-far-ahead"),
        pytest.param({"leeway_s": None}, {"iat": NOW + 2}, id="leeway-by-default"),
        pytest.param({"required": ("sub", "name")}, {}, id="required"),
    ],
)
def test_what_is_configured_is_accepted(options: dict[str, Any], claims: dict[str, Any]) -> None:
    assert auth(**options).verify(token({**GOOD, **claims})).sub == "ann"


def test_a_token_may_go_without_expiry_where_none_is_required() -> None:
    assert auth(required=["sub"]).verify(token(without("exp"))).expires_at is None


# Bad tokens


@pytest.mark.parametrize(
    ("claims", "options", "cause"),
    [
        pytest.param({"exp": NOW - 1}, {}, "expired", id="expired"),
        pytest.param({"exp": NOW - 120}, {"leeway_s": 60}, "expired", id="expired-past-leeway"),
        pytest.param({"nbf": NOW + DAY_S}, {}, "not valid yet", id="nbf"),
        pytest.param({"iat": NOW + DAY_S}, {}, "not valid yet", id="iat"),
        pytest.param({"nbf": NOW + DAY_S}, {"leeway_s": 0}, "not valid yet", id="nbf-without-leeway"),
        pytest.param({"iat": NOW + DAY_S}, {"leeway_s": 60}, "not valid yet", id="iat-past-leeway"),
        pytest.param({"exp": NOW}, {"leeway_s": 0}, "expired", id="expired-now"),
        pytest.param({"exp": NOW}, {}, "expired", id="expired-now-by-default"),
        pytest.param({"aud": "mail"}, {"audience": "chat"}, "wrong audience", id="audience"),
        pytest.param({"aud": "mail"}, {}, "wrong audience", id="audience-where-none-is-configured"),
        pytest.param({}, {"audience": "chat"}, "no aud claim", id="no-audience"),
        pytest.param({"iss": "evil"}, {"issuer": "good"}, "wrong issuer", id="issuer"),
        pytest.param({"iss": "goo"}, {"issuer": "good"}, "wrong issuer", id="part-of-the-issuer"),
        pytest.param({}, {"issuer": "good"}, "no iss claim", id="no-issuer"),
        pytest.param({"exp": None}, {}, "no exp claim", id="exp-null"),
        pytest.param({"exp": "soon"}, {}, "malformed token", id="exp-not-a-number"),
        pytest.param({"exp": float("nan")}, {}, "malformed token", id="exp-nan"),
        pytest.param({"exp": float("inf")}, {}, "malformed token", id="exp-infinite"),
        pytest.param({"exp": {}}, {}, "malformed token", id="exp-object"),
        pytest.param({"sub": None}, {}, "no sub claim", id="sub-null"),
        pytest.param({"sub": ""}, {}, "bad sub claim", id="sub-empty"),
        pytest.param({"sub": "x" * 256}, {}, "bad sub claim", id="sub-longer-than-a-user-id"),
        pytest.param({"sub": "é" * 128}, {}, "bad sub claim", id="sub-of-more-bytes-than-a-user-id"),
        pytest.param({"sub": "\ud83d"}, {}, "bad sub claim", id="sub-that-is-no-unicode"),
        pytest.param({"sub": True}, {}, "bad sub claim", id="sub-bool"),
        pytest.param({"sub": 1.5}, {}, "bad sub claim", id="sub-float"),
        pytest.param({"sub": ["ann"]}, {}, "bad sub claim", id="sub-list"),
        pytest.param({"sub": None}, {"required": ()}, "bad sub claim", id="sub-null-where-not-required"),
        pytest.param({}, {"required": ("exp", "sub", "role")}, "no role claim", id="required"),
    ],
)
def test_claims_are_checked(claims: dict[str, Any], options: dict[str, Any], cause: str) -> None:
    text = forged({"alg": "HS256"}, {**GOOD, **claims}, signed_with(SECRET.encode()))
    assert refusal(auth(**options), text).cause == cause


@pytest.mark.parametrize("name", ["exp", "sub"])
def test_expiry_and_subject_are_required(name: str) -> None:
    assert refusal(auth(), token(without(name))).cause == f"no {name} claim"


def test_a_token_that_a_handshake_has_room_for_is_let_in_and_a_longer_one_is_not() -> None:
    """A header of over 8,192 bytes never gets to an app."""
    spare = 7 * 1024 - len(token(name=""))
    longest = token(name="x" * (spare * 3 // 4 - 3))
    assert 7 * 1024 - 16 < len(longest) <= 7 * 1024
    assert auth().verify(longest).sub == "ann"
    assert refusal(auth(), token(name="x" * (spare * 3 // 4 + 3))).cause == "malformed token"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, "HS384", ["HS256"], {}, 1], ids=repr)
def test_the_token_does_not_choose_its_algorithm(alg: object) -> None:
    assert refusal(auth(), forged({"alg": alg})).cause == "algorithm not allowed"
    assert refusal(auth(), forged({"alg": alg}, GOOD, signed_with(SECRET.encode()))).cause == "algorithm not allowed"
    assert refusal(auth(key=lambda header: SECRET), forged({"alg": alg})).cause == "algorithm not allowed"


def test_a_public_key_does_not_serve_as_a_secret() -> None:
    by_attacker = forged({"alg": "HS256"}, GOOD, signed_with(RSA_PEM.encode()))
    for key in (RSA_PEM, RSA_KEY.public_key(), lambda header: RSA_PEM):
        assert refusal(JWTAuth(key, algorithms=["RS256"]), by_attacker).cause == "algorithm not allowed"
    assert refusal(auth(key=lambda header: RSA_PEM), by_attacker).cause == "its key is not for its algorithm"


def test_another_secret_is_refused() -> None:
    assert refusal(auth(), token(key="another secret that is as long as it takes")).cause == "bad signature"


def test_a_changed_token_is_refused() -> None:
    header, payload, signature = token().split(".")
    changed = encoded(json.dumps({**GOOD, "sub": "root"}).encode()).decode()
    assert refusal(auth(), f"{header}.{changed}.{signature}").cause == "bad signature"
    assert refusal(auth(), f"{header}.{payload}.").cause == "bad signature"


@pytest.mark.parametrize(
    "text",
    ["", "x", ".", "..", "a.b.c", "....", "\n", "\x00", "é.é.é", "\ud800", "x" * 100_000, None, 1, b"bytes"],
    ids=lambda text: repr(text)[:12],
)
def test_what_is_no_token_is_malformed(text: Any) -> None:
    assert refusal(auth(), text).cause == "malformed token"
    assert refusal(auth(key=lambda header: SECRET), text).cause == "malformed token"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(forged([]), id="header-list"),
        pytest.param(forged("HS256"), id="header-str"),
        pytest.param(forged({"alg": "HS256", "kid": 1}, GOOD, signed_with(SECRET.encode())), id="kid"),
        pytest.param(forged({"alg": "HS256", "crit": ["x"]}, GOOD, signed_with(SECRET.encode())), id="crit"),
        pytest.param(forged({"alg": "HS256"}, [], signed_with(SECRET.encode())), id="claims-list"),
        pytest.param(encoded(b"[" * 5000).decode() + ".e30.", id="deep-header"),
        pytest.param(encoded(b'{"alg":' + b"1" * 5000 + b"}").decode() + ".e30.", id="long-number"),
    ],
)
def test_odd_tokens_are_malformed(text: str) -> None:
    assert refusal(auth(), text).cause == "malformed token"


@given(
    parts=st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b'{"alg":"HS256"}', json.dumps(GOOD).encode()])), max_size=4
    )
)
def test_no_text_makes_verify_raise_anything_else(parts: list[bytes]) -> None:
    refusal(auth(), b".".join(encoded(part) for part in parts).decode())


@given(text=st.text(max_size=60))
def test_nothing_of_a_token_is_in_its_refusal(text: str) -> None:
    error = refusal(auth(), text)
    assert error.reason == "unauthorized: malformed token"
    assert error.__cause__ is None


def test_a_refusal_says_what_to_tell_the_client() -> None:
    unauthorized = refusal(auth(), token({**GOOD, "nbf": NOW + DAY_S}))
    assert (unauthorized.code, unauthorized.reason) == (1008, "unauthorized: not valid yet")
    expired = refusal(auth(), token({**GOOD, "exp": NOW - 600}))
    assert (expired.code, expired.reason) == (1008, "token expired")
    assert isinstance(expired, HubbubError)


def test_a_reason_fits_a_close_frame() -> None:
    assert InvalidToken("é" * 200).reason.encode() == ("unauthorized: " + "é" * 54).encode()


# Key functions


def test_a_key_function_finds_the_key_by_the_header() -> None:
    keys = {"old": "an old secret of 32 bytes or more", "new": SECRET}
    headers: list[Mapping[str, Any]] = []

    def find(header: Mapping[str, Any]) -> str:
        headers.append(header)
        return keys[header["kid"]]

    found = auth(key=find)
    assert found.verify(token(kid="new")).sub == "ann"
    assert found.verify(token(key=keys["old"], kid="old")).sub == "ann"
    assert headers[0] == {"alg": "HS256", "kid": "new", "typ": "JWT"}
    with pytest.raises(TypeError):
        headers[0]["alg"] = "none"  # type: ignore[index]


@pytest.mark.parametrize(
    "find",
    [
        pytest.param(lambda header: {}[header["kid"]], id="key-error"),
        pytest.param(lambda header: {}.get(header["kid"]), id="none"),
    ],
)
def test_a_key_that_is_not_known_is_the_tokens_fault(find: Any) -> None:
    assert refusal(auth(key=find), token(kid="?")).cause == "unknown key"


def raising(error: Exception) -> Callable[[Mapping[str, Any]], str]:
    def find(header: Mapping[str, Any]) -> str:
        raise error

    return find


def test_what_pyjwts_client_raises_is_told_apart() -> None:
    unknown = jwt.PyJWKClientError('Unable to find a signing key that matches: "x"')
    assert refusal(auth(key=raising(unknown)), token()).cause == "unknown key"
    with pytest.raises(KeyUnavailable):
        auth(key=raising(jwt.PyJWKClientConnectionError("down"))).verify(token())


@pytest.mark.parametrize("error", [OSError("down"), RuntimeError("bug"), ValueError(), TypeError()], ids=repr)
def test_a_key_function_that_fails_is_not_the_tokens_fault(error: Exception) -> None:
    with pytest.raises(KeyUnavailable) as caught:
        auth(key=raising(error)).verify(token())
    assert caught.value.__cause__ is error
    assert (caught.value.code, caught.value.reason) == (1013, "authentication is unavailable")


def test_a_key_function_may_refuse_by_itself() -> None:
    assert refusal(auth(key=raising(InvalidToken("revoked"))), token()).reason == "unauthorized: revoked"


@pytest.mark.parametrize("key", ["short", b"", 5, EC_KEY.public_key()], ids=["short", "empty", "int", "object"])
def test_a_key_that_a_function_gives_is_checked_too(key: Any) -> None:
    assert refusal(auth(key=lambda header: key), token()).cause == "its key is not for its algorithm"


def test_a_jwk_is_held_to_its_algorithm() -> None:
    jwk = jwt.PyJWK({**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key())), "alg": "RS256"})
    for key in (jwk, lambda header: jwk):
        one = JWTAuth(key, algorithms=["RS256", "RS512"])
        assert one.verify(token(key=RSA_KEY, algorithm="RS256")).sub == "ann"
        refusal(one, token(key=RSA_KEY, algorithm="RS512"))
    with pytest.raises(InvalidArgument, match="is a JWK for RS256, not for PS256"):
        JWTAuth(jwk, algorithms=["PS256"])


def test_no_key_is_looked_up_for_a_token_of_another_algorithm() -> None:
    def find(header: Mapping[str, Any]) -> str:
        raise AssertionError("called")

    refusal(auth(key=find), forged({"alg": "none"}))
    refusal(auth(key=find), "a.b.c")


# Subscription tokens


def subscribing(auth: JWTAuth, text: str) -> Claims:
    return asyncio.run(auth.subscription_claims(text))


@pytest.mark.parametrize("key", [SECRET, lambda header: SECRET], ids=["key", "function"])
def test_a_subscription_token_authenticates_nobody(key: Any) -> None:
    text = token({**GOOD, "channel": "chat:lobby"})
    assert refusal(auth(key=key), text).cause == "it is a subscription token"
    assert subscribing(auth(key=key), text) == {**GOOD, "channel": "chat:lobby"}


@pytest.mark.parametrize(
    ("claims", "cause"),
    [
        (GOOD, "no channel claim"),
        ({"sub": "ann", "channel": "chat:lobby"}, "no exp claim"),
        ({**GOOD, "channel": "chat:lobby", "exp": NOW - 1}, "expired"),
        ({**GOOD, "channel": "chat:lobby", "aud": "others"}, "wrong audience"),
        ({**GOOD, "channel": "chat:lobby", "sub": "$ann" * 99}, "bad sub claim"),
    ],
)
def test_a_subscription_token_is_checked_like_any_other(claims: dict[str, Any], cause: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        subscribing(auth(), token(claims))
    assert (caught.value.cause, caught.value.expired) == (cause, cause == "expired")


@pytest.mark.parametrize("sub", ["", None], ids=["empty", "absent"])
def test_a_subscription_token_may_be_for_a_client_without_a_user(sub: str | None) -> None:
    claims = {"channel": "chat:lobby", "exp": NOW + DAY_S, **({} if sub is None else {"sub": sub})}
    assert subscribing(auth(), token(claims)) == claims
    refusal(auth(), token({**GOOD, "sub": ""}))


# Wrong arguments


@pytest.mark.parametrize(
    ("algorithms", "problem"),
    [
        pytest.param([], "got []", id="empty"),
        pytest.param("HS256", "got 'HS256'", id="str"),
        pytest.param(None, "got None", id="none-given"),
        pytest.param([None], "None is no name", id="not-a-name"),
        pytest.param(["none"], "anybody can make", id="none"),
        pytest.param(["HS256", "nOnE"], "anybody can make", id="none-in-any-case"),
        pytest.param(["hs256"], "'hs256' is unknown", id="case"),
        pytest.param(["HS1"], "'HS1' is unknown", id="unknown"),
        pytest.param(["HS256", "RS256"], "mixes secrets with public keys", id="mixed"),
    ],
)
def test_algorithms_are_named_and_of_one_family(algorithms: Any, problem: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        JWTAuth(SECRET, algorithms=algorithms)
    assert caught.value.argument == "algorithms"
    assert problem in caught.value.problem
    assert "HS256" in caught.value.accepted


def test_algorithms_that_are_not_installed_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.auth.keys.has_crypto", False)
    with pytest.raises(InvalidArgument, match=r"pip install 'hubbub\[crypto\]'"):
        JWTAuth(RSA_PEM, algorithms=["RS256"])


PRIVATE_PEM = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
SSH = RSA_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
DER = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("key", "algorithms", "problem"),
    [
        pytest.param("", ["HS256"], "has 0 bytes", id="empty"),
        pytest.param("change-me-to-32-bytes-or-more!!!!", ["HS256"], "is printed in public documentation", id="ours"),
        pytest.param(
            "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
            ["HS256"],
            "is printed in public documentation",
            id="of-fastapis-tutorial",
        ),
        pytest.param("x" * 31, ["HS256"], "has 31 bytes, and HS256 takes 32 or more", id="short-for-HS256"),
        pytest.param("x" * 47, ["HS384"], "has 47 bytes", id="short-for-HS384"),
        pytest.param("x" * 63, ["HS256", "HS512"], "has 63 bytes, and HS512 takes 64", id="short-for-one"),
        pytest.param("\ud800" * 32, ["HS256"], "not valid Unicode", id="surrogates"),
        pytest.param(RSA_PEM, ["HS256"], "PEM text", id="public-pem-as-secret"),
        pytest.param(RSA_PEM.encode(), ["HS256"], "PEM text", id="public-pem-bytes-as-secret"),
        pytest.param(PRIVATE_PEM, ["HS256"], "PEM text", id="private-pem-as-secret"),
        pytest.param(SSH, ["HS256"], "public key or a JWK", id="ssh-as-secret"),
        pytest.param(RSA_KEY.public_key(), ["HS256"], "takes a secret", id="object-as-secret"),
        pytest.param(None, ["HS256"], "is a NoneType", id="none"),
        pytest.param(42, ["HS256"], "is a int", id="int"),
        pytest.param(SECRET, ["RS256"], "not a public key for RS256", id="secret-as-public-key"),
        pytest.param(None, ["RS256"], "not a public key for RS256", id="none-as-public-key"),
        pytest.param(pem(EC_KEY), ["RS256"], "not a public key for RS256", id="ec-for-rsa"),
        pytest.param(RSA_PEM, ["RS256", "ES256"], "not a public key for ES256", id="fits-one-of-two"),
        pytest.param(
            rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key(),
            ["RS256"],
            "has 1024 bits",
            id="short-rsa",
        ),
    ],
)
def test_a_key_has_to_fit_and_is_not_shown(key: Any, algorithms: list[str], problem: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        JWTAuth(key, algorithms=algorithms)
    assert caught.value.argument == "key"
    assert problem in caught.value.problem
    assert not isinstance(key, str) or len(key) < 5 or key not in str(caught.value)
    assert caught.value.__cause__ is None


async def coroutine(header: Mapping[str, Any]) -> str:
    return SECRET


class Finder:
    async def __call__(self, header: Mapping[str, Any]) -> str:
        return SECRET


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        pytest.param({"key": coroutine}, "key", id="coroutine-function"),
        pytest.param({"key": partial(coroutine)}, "key", id="partial-coroutine-function"),
        pytest.param({"key": Finder()}, "key", id="async-callable"),
        pytest.param({"audience": ""}, "audience", id="audience-empty"),
        pytest.param({"audience": []}, "audience", id="no-audiences"),
        pytest.param({"audience": [1]}, "audience", id="audience-not-str"),
        pytest.param({"audience": b"chat"}, "audience", id="audience-bytes"),
        pytest.param({"issuer": 1}, "issuer", id="issuer"),
        pytest.param({"leeway_s": -1}, "leeway_s", id="leeway-negative"),
        pytest.param({"leeway_s": float("nan")}, "leeway_s", id="leeway-nan"),
        pytest.param({"leeway_s": float("inf")}, "leeway_s", id="leeway-infinite"),
        pytest.param({"leeway_s": "1"}, "leeway_s", id="leeway-str"),
        pytest.param({"cookie": ""}, "cookie", id="cookie-empty"),
        pytest.param({"cookie": True}, "cookie", id="cookie-bool"),
        pytest.param({"query": ""}, "query", id="query-empty"),
        pytest.param({"required": "exp"}, "required", id="required-str"),
        pytest.param({"required": None}, "required", id="required-none"),
        pytest.param({"required": ['a"b']}, "required", id="required-quote"),
        pytest.param({"refuse": "403"}, "refuse", id="refuse"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        auth(**options)
    assert caught.value.argument == argument


def test_repr_hides_the_key() -> None:
    assert repr(auth()) == "JWTAuth(algorithms=['HS256'])"


def test_verifying_writes_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        auth().verify(token())
        refusal(auth(), "x")
    assert not caplog.records


# Claims


def test_claims_are_an_immutable_mapping() -> None:
    given = {"sub": "ann", "name": "Ann"}
    claims = Claims(given)
    given["name"] = "Bob"
    assert dict(claims) == {"sub": "ann", "name": "Ann"}
    assert (len(claims), "name" in claims, claims.get("email"), claims["name"]) == (2, True, None, "Ann")
    assert claims == Claims({"name": "Ann", "sub": "ann"})
    with pytest.raises(TypeError):
        claims["name"] = "Bob"  # type: ignore[index]
    with pytest.raises(AttributeError):
        claims.sub = "bob"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        claims.other = 1  # type: ignore[attr-defined]


def test_claims_of_a_test_need_nothing_else() -> None:
    assert Claims({"sub": 42}).sub == "42"
    assert Claims({"sub": "ann"}).expires_at is None
    assert Claims({"exp": 0}).expires_at == datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(KeyError):
        _ = Claims({}).sub


@pytest.mark.parametrize("exp", [10**12, 10**30, 1e300], ids=str)
def test_an_expiry_past_the_end_of_time_is_the_end_of_time(exp: float) -> None:
    assert Claims({"exp": exp}).expires_at == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert auth().verify(token({**GOOD, "exp": exp})).sub == "ann"


def test_repr_of_claims_shows_whose_they_are_and_no_more() -> None:
    assert repr(Claims({"sub": "ann", "email": "ann@app.example"})) == "Claims(sub='ann')"
