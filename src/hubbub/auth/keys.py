"""Checks that keys fit their algorithms, which PyJWT leaves to its callers, before any token is read.

RFC 8725 section 2 lists the common mistakes: the token chooses its algorithm, a public key is used as an HMAC secret,
or the secret can be guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import jwt
from jwt.algorithms import has_crypto

from ..errors import InvalidArgument, shown

if TYPE_CHECKING:
    from jwt.algorithms import AllowedPublicKeys

Key: TypeAlias = "str | bytes | AllowedPublicKeys | jwt.PyJWK"
"""An HMAC secret, the PEM text of a public key, a public key of ``cryptography``, or a JWK."""

KeyFunction: TypeAlias = Callable[[Mapping[str, Any]], "Key | None"]
"""Returns the key for a token's header. None or a LookupError means that there is none."""

# Secrets that are printed in documentation: this package's before 0.2, and FastAPI's tutorial.
_PRINTED = frozenset(
    (
        b"change-me-to-32-bytes-or-more!!!!",
        b"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    )
)

_HMAC = {"HS256": 32, "HS384": 48, "HS512": 64}  # the minimum size of a secret in bytes, RFC 7518 section 3.2
_ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES256K", "ES384", "ES512", "EdDSA")
_MIN_RSA_BITS = 2048  # RFC 7518 section 3.3


class UnfitKey(Exception):
    """A key does not fit an algorithm. The text says why, and contains nothing of the key."""


def checked_algorithms(algorithms: object) -> list[str]:
    """Checks the names of algorithms.

    Raises:
        InvalidArgument: There is none, one is unknown or not available, or they mix secrets with public keys.
    """
    accepted = f"a list of {', '.join(_HMAC)}; or of {', '.join(_ASYMMETRIC)}"
    if isinstance(algorithms, (str, bytes)) or not isinstance(algorithms, Sequence) or not algorithms:
        raise InvalidArgument("algorithms", f"got {shown(algorithms)}", accepted)
    for name in algorithms:
        if not isinstance(name, str):
            raise InvalidArgument("algorithms", f"{shown(name)} is no name", accepted)
        if name.lower() == "none":
            raise InvalidArgument("algorithms", f"{shown(name)} accepts tokens that anybody can make", accepted)
        if name not in _HMAC and name not in _ASYMMETRIC:
            raise InvalidArgument("algorithms", f"{shown(name)} is unknown", accepted)
        if name in _ASYMMETRIC and not has_crypto:
            problem = f"{name} needs the package cryptography, which is not installed"
            raise InvalidArgument("algorithms", problem, f"{', '.join(_HMAC)}; or pip install 'hubbub[crypto]'")
    if len({name in _HMAC for name in algorithms}) > 1:
        # A forged token could use the public key, which is no secret, as an HMAC secret: RFC 8725 section 2.1.
        problem = f"{shown(list(algorithms), limit=200)} mixes secrets with public keys"
        raise InvalidArgument("algorithms", problem, accepted)
    return list(algorithms)


def checked_key(key: Key, algorithms: Sequence[str]) -> Key:
    """Checks a key, and returns it in a form that needs no more parsing.

    Raises:
        InvalidArgument: The key does not fit all of the algorithms.
    """
    try:
        for name in algorithms:
            prepared = fitting_key(key, name)
    except UnfitKey as error:
        accepted = "a public key that fits every one of the algorithms: its PEM text, or a key object"
        if algorithms[0] in _HMAC:
            accepted = "a random secret, such as that of: python -c 'import secrets; print(secrets.token_hex())'"
        raise InvalidArgument("key", str(error), accepted) from None
    return prepared


def fitting_key(key: Key, algorithm: str) -> Key:
    """Checks a key, and returns it in a form that needs no more parsing.

    Raises:
        UnfitKey: The key does not fit the algorithm.
    """
    if isinstance(key, jwt.PyJWK):
        if key.algorithm_name != algorithm:
            raise UnfitKey(f"is a JWK for {key.algorithm_name}, not for {algorithm}")
        return fitting_key(key.key, algorithm)
    if algorithm in _HMAC:
        return _fitting_secret(key, algorithm)
    try:
        prepared = jwt.get_algorithm_by_name(algorithm).prepare_key(key)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        raise UnfitKey(f"is not a public key for {algorithm}") from None
    if hasattr(prepared, "public_key"):  # a private key; only its public half is needed to verify
        prepared = prepared.public_key()
    bits = getattr(prepared, "key_size", _MIN_RSA_BITS)
    if algorithm[:2] in ("RS", "PS") and bits < _MIN_RSA_BITS:
        raise UnfitKey(f"has {bits} bits, and {algorithm} takes {_MIN_RSA_BITS} or more (RFC 7518 section 3.3)")
    return cast("Key", prepared)


def _fitting_secret(key: object, algorithm: str) -> bytes:
    try:
        secret = key.encode() if isinstance(key, str) else key
    except UnicodeEncodeError:
        raise UnfitKey("is not valid Unicode") from None
    if not isinstance(secret, bytes):
        raise UnfitKey(f"is a {type(secret).__name__}, and {algorithm} takes a secret, str or bytes")
    if b"-----BEGIN " in secret:
        raise UnfitKey(f"is the PEM text of a key or certificate, and {algorithm} takes a secret")
    if secret in _PRINTED:
        raise UnfitKey("is printed in public documentation, so that anybody can sign with it")
    least = _HMAC[algorithm]
    if len(secret) < least:
        raise UnfitKey(f"has {len(secret)} bytes, and {algorithm} takes {least} or more (RFC 7518 section 3.2)")
    try:
        jwt.get_algorithm_by_name(algorithm).prepare_key(secret)
    except jwt.PyJWTError:
        raise UnfitKey(f"is a public key or a JWK, and {algorithm} takes a secret") from None
    return secret
