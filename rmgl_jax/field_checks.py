"""One generic check of a dataclass's fields against their annotations."""

import dataclasses
import math
import types
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from data_prep.errors import InputError


@dataclass(frozen=True)
class Range:
    """Values that a number may have, as `Annotated[int, Range(1)]`; bounds are included."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    """Exclude `low` itself."""
    open_high: bool = False
    """Exclude `high` itself."""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'greater than' if self.open_low else 'at least'} {self.low:g}"
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"in {left}{self.low:g}, {self.high:g}{right}"


def check_fields(instance: Any) -> None:
    """Checks types, literals and ranges of all fields of a dataclass.

    Raises:
        InputError: naming the class, the field, what its annotation allows, and the value.
    """
    owner: type = type(instance)
    for field in dataclasses.fields(owner):
        value = getattr(instance, field.name)
        expected = _violated(_hints(owner)[field.name], value)
        if expected:
            raise InputError(f"{owner.__name__}.{field.name} must be {expected}, got {value!r}.")


@cache
def _hints(owner: type) -> dict[str, Any]:
    return get_type_hints(owner, include_extras=True)


def _violated(hint: Any, value: Any) -> str | None:
    """Description of what `hint` allows if `value` is not of it, else None."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        base, *ranges = arguments
        return _violated(base, value) or next((str(r) for r in ranges if value not in r), None)
    if origin is Literal:
        return None if value in arguments else f"one of {', '.join(map(repr, arguments))}"
    if origin in (Union, types.UnionType):
        alternatives = [_violated(argument, value) for argument in arguments]
        return None if None in alternatives else " or ".join(filter(None, alternatives))
    if origin is tuple:
        return _violated_tuple(arguments, value)
    if hint is int:
        if not isinstance(value, Integral) or isinstance(value, bool):
            return "an integer"
        # Larger ones overflow in NumPy and JAX, or are cut off without an error.
        return None if -(2**31) <= int(value) < 2**32 else "an integer of 32 bits"
    if hint is float:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        return None if is_number and math.isfinite(value) else "a finite number"
    name = "None" if hint is types.NoneType else f"of type {hint.__name__}"
    return None if isinstance(value, hint) else name


def _violated_tuple(arguments: tuple[Any, ...], value: Any) -> str | None:
    if not isinstance(value, tuple):
        return "a tuple"
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        return f"a tuple of {len(arguments)}"
    violated = (_violated(hint, entry) for hint, entry in zip(arguments, value, strict=True))
    expected = next(filter(None, violated), None)
    return expected and f"a tuple whose entries are {expected}"
