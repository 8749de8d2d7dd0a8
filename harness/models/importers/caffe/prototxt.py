"""Protobuf's text format, as Caffe writes its nets in: nested fields, any of which may be repeated. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from harness.errors import DataError

MAX_DEPTH = 32  # Caffe's own nets need 5; a damaged file must not exhaust the stack
TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<mark>[{}<>:,;\[\]])|(?P<word>[^\s{}<>:,;\[\]\#"']+)"""
)
NAME = re.compile(r"[A-Za-z_]\w*\Z")
CLOSING = {"{": "}", "<": ">"}
END = "the end of the file"

Value: TypeAlias = "str | int | float | bool | Message"


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    kind: str
    line: int


class Message(Mapping[str, tuple["Value", ...]]):
    """The fields of one message: name -> its values in order. `where` names it in errors."""

    def __init__(self, fields: dict[str, list[Value]], where: str) -> None:
        self._fields, self.where = {name: tuple(values) for name, values in fields.items()}, where

    def __getitem__(self, name: str) -> tuple[Value, ...]:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def parse_text(text: str, path: str) -> Message:
    """Return the message of a text. Raises: DataError naming `path` and the line that cannot be read."""
    return _Parser(list(_tokens(text, path)), path).message(END, depth=0)


def _tokens(text: str, path: str) -> Iterator[_Token]:
    place, line = 0, 1
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise DataError(
                f"{path}:{line}: {text[place : place + 20]!r} cannot be read; expected a net in text format"
            )
        if match.lastgroup != "space":
            yield _Token(match[0], str(match.lastgroup), line)
        line += match[0].count("\n")
        place = match.end()
    yield _Token(END, "end", line)


class _Parser:
    """Reads tokens from left to right."""

    def __init__(self, tokens: list[_Token], path: str) -> None:
        self._tokens, self._path, self._next = tokens, path, 0

    def message(self, closing: str, *, depth: int) -> Message:
        """Read fields up to and with the closing mark."""
        fields: dict[str, list[Value]] = {}
        where = f"{self._path}:{self._tokens[self._next].line}"
        if depth > MAX_DEPTH:
            raise DataError(f"{where}: messages lie more than {MAX_DEPTH} deep; this is no net")
        while (token := self._take()).text != closing or token.kind == "string":
            if token.kind == "mark" and token.text in ",;":
                continue
            if token.kind != "word" or not NAME.match(token.text):
                self._fail(token, f"a field's name or {closing}")
            values = fields.setdefault(token.text, [])
            following = self._peek()
            if following.text == ":":
                self._take()
                following = self._peek()
            if following.text == "[":
                values.extend(self._list(depth))
            else:
                values.append(self._value(depth))
        return Message(fields, where)

    def _list(self, depth: int) -> Iterator[Value]:
        self._take()
        while self._peek().text != "]":
            if self._peek().text == ",":
                self._take()
            else:
                yield self._value(depth)
        self._take()

    def _value(self, depth: int) -> Value:
        token = self._take()
        if token.kind == "mark" and token.text in CLOSING:
            return self.message(CLOSING[token.text], depth=depth + 1)
        if token.kind == "string":
            text = _unquoted(token.text)
            while self._peek().kind == "string":  # adjacent strings are one
                text += _unquoted(self._take().text)
            return text
        if token.kind != "word":
            self._fail(token, "a value")
        return _scalar(token.text)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _fail(self, token: _Token, expected: str) -> NoReturn:
        raise DataError(f"{self._path}:{token.line}: found {token.text[:40]}, expected {expected}")


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _scalar(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    readers: tuple[Callable[[str], int | float], ...] = (int, lambda word: float(word.rstrip("fF")))
    if not NAME.match(text):
        for read in readers:
            try:
                return read(text)
            except ValueError:
                continue
    return text
