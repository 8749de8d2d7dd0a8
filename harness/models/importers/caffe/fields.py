"""A message's fields by name and type, with Caffe's defaults. A field that is not known is an error, never skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import DataError
from harness.models.importers.caffe.prototxt import Message

# They change how a result is computed or trained, not what it is.
WITHOUT_EFFECT = ("engine", "weight_filler", "bias_filler", "filler", "moving_average_fraction", "force_nd_im2col")


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a message, or of none; `where` names it in errors."""

    values: dict[str, tuple[Any, ...]]
    where: str

    @classmethod
    def of(cls, messages: Sequence[Message], where: str, known: Sequence[str]) -> Fields:
        """Return the fields of messages, which are merged as protobuf does. Raises: DataError for an unknown one."""
        merged: dict[str, tuple[Any, ...]] = {}
        for message in messages:
            for name, values in message.items():
                if name not in known and name not in WITHOUT_EFFECT:
                    raise DataError(f"{where}: {name} is not supported; there are: {', '.join(known) or 'none'}")
                merged[name] = merged.get(name, ()) + values
        return cls(merged, where)

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a whole number. Raises: DataError for another value, or none without a default."""
        value = self._one(name, default)
        return int(self._checked(name, value, int, "a whole number"))

    def number(self, name: str, default: float) -> float:
        """Return a number. Raises: DataError for another value."""
        return float(self._checked(name, self._one(name, default), (int, float), "a number"))

    def switch(self, name: str, default: bool) -> bool:
        """Return true or false. Raises: DataError for another value."""
        value = self._one(name, default)
        if not isinstance(value, bool):
            raise DataError(f"{self.where}: {name} is {value!r}; expected true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text. Raises: DataError for another value, or none without a default."""
        return str(self._checked(name, self._one(name, default), str, "a text"))

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """Return one of an enumeration's names, written as name or number. Raises: DataError for another."""
        value = self._one(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices):
            return choices[value]
        if value not in choices:
            raise DataError(f"{self.where}: {name} is {value}; expected {' or '.join(choices)}")
        return str(value)

    def wholes(self, name: str) -> tuple[int, ...]:
        """Return all values of a repeated field. Raises: DataError for one that is no whole number."""
        return tuple(self._checked(name, value, int, "a whole number") for value in self.values.get(name, ()))

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return all values of a repeated field. Raises: DataError for one that is no number."""
        return tuple(float(self._checked(name, value, (int, float), "a number")) for value in self.values.get(name, ()))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return all values of a repeated field. Raises: DataError for one that is no text."""
        return tuple(self._checked(name, value, str, "a text") for value in self.values.get(name, ()))

    def messages(self, name: str, *known: str) -> tuple[Fields, ...]:
        """Return all messages of a repeated field. Raises: DataError for anything else."""
        found = []
        for value in self.values.get(name, ()):
            if not isinstance(value, Message):
                raise DataError(f"{self.where}: {name} is {value!r}; expected a message in braces")
            found.append(Fields.of((value,), f"{self.where}: {name}", known))
        return tuple(found)

    def pair(self, name: str, short: str, default: int | None = None) -> tuple[int, int]:
        """Return (height, width) of `name`, given once, twice, or as `short`_h and `short`_w. Raises: DataError."""
        high, wide = f"{short}_h", f"{short}_w"
        if high in self.values or wide in self.values:
            if name in self.values:
                raise DataError(f"{self.where}: has {name} beside {high} and {wide}; expected one of both ways")
            return self.whole(high, default), self.whole(wide, default)
        sizes = self.wholes(name)
        if len(sizes) > 2:
            raise DataError(f"{self.where}: {name} has {len(sizes)} values; expected images of two dimensions")
        if not sizes:
            return self.whole(name, default), self.whole(name, default)
        return sizes[0], sizes[-1]

    def _one(self, name: str, default: Any) -> Any:
        values = self.values.get(name, ())
        if not values and default is None:
            raise DataError(f"{self.where}: {name} is missing")
        return values[-1] if values else default  # the last one counts, as in protobuf

    def _checked(self, name: str, value: Any, kind: type | tuple[type, ...], expected: str) -> Any:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"{self.where}: {name} is {value!r}; expected {expected}")
        return value
