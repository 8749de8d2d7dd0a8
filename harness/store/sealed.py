"""JSON files that say when they were damaged: an object with the digest of everything else in it.

The digest is over the values, not over the file's bytes: a file may be indented or get other line ends.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any, TypeVar

import msgspec

from harness.errors import HarnessError

DIGEST = "digest"
T = TypeVar("T")
_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {}  # by the type that they read
_MAKING = threading.Lock()
# What decoding a file that anybody may have written can raise: msgspec lets some of Python's own through, and values
# that contradict each other are refused by their classes.
DAMAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, TypeError, OverflowError, HarnessError)


class Damaged(Exception):
    """A file is not what it was when it was written, or never was what it claims to be; the text says why."""


def sealed(data: bytes) -> bytes:
    """Return an object's JSON with its digest as the last key; what was indented is indented again."""
    values: dict[str, Any] = msgspec.json.decode(data)
    text = msgspec.json.encode({**values, DIGEST: _digest_of(values)})
    return msgspec.json.format(text, indent=1) if b"\n" in data else text


def values_of(data: bytes) -> dict[str, Any]:
    """Return the values of a file, its digest unchecked and among them. Raises: Damaged for what is no JSON object."""
    try:
        values = msgspec.json.decode(data)
    except DAMAGE as error:
        raise Damaged(_line(error)) from error
    if not isinstance(values, dict):
        raise Damaged(f"expected an object, found {type(values).__name__}")
    return values


def check_digest(values: dict[str, Any]) -> None:
    """Check the values of a file against their digest. Raises: Damaged."""
    others = {name: value for name, value in values.items() if name != DIGEST}
    if DIGEST not in values:
        raise Damaged("it carries no digest")
    if values[DIGEST] != _digest_of(others):
        raise Damaged("its content is not what its digest was made of")


def check_line(line: bytes) -> None:
    """Check a line of JSON against its digest; one that is as it was written is not read for that. Raises: Damaged."""
    text, mark, end = line.rpartition(b',"' + DIGEST.encode() + b'":"')
    if mark and hashlib.sha256(text + b"}").hexdigest().encode() + b'"}' == end:
        return
    check_digest(values_of(line))


def decoded(data: bytes, kind: type[T]) -> T:
    """Return a file as one of our dataclasses, its digest unchecked. Raises: Damaged."""
    try:
        found: T = _decoder(kind).decode(data)
    except DAMAGE as error:
        raise Damaged(_line(error)) from error
    return found


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Return the decoder of a type, made by one thread: two that make msgspec look at a type at a time crash in it."""
    if kind not in _DECODERS:
        with _MAKING:
            _DECODERS.setdefault(kind, msgspec.json.Decoder(kind))
    return _DECODERS[kind]


def _digest_of(values: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(values)).hexdigest()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
