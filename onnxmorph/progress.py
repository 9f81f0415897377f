"""How far long work is: told to whoever listens, and to nobody otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int, int], None]  # what is done, how many steps are behind it, of how many

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` of all steps taken within; of nested ones the innermost is told.

    >>> with listening(print):
    ...     for each in told("Counting", "ab"):
    ...         pass
    Counting 0 2
    Counting 1 2
    Counting 2 2
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def told(what: str, items: Sequence[T]) -> Iterator[T]:
    """The items, one by one, each a step; `what` is a word or two for people."""
    tell = teller(what)
    for done, item in enumerate(items):
        tell(done, len(items))
        yield item
    tell(len(items), len(items))


def teller(what: str) -> Callable[[int, int], None]:
    """What tells of steps that are not items: how many are done, of how many."""
    listener = _LISTENER.get()
    return (lambda done, of: None) if listener is None else lambda done, of: listener(what, done, of)
