"""A mapping's pattern: its meaning, for rclone and in this process.

``*.pt`` matches only the mapping's top level; ``**/*.log`` matches at any depth, including the top. rclone reads both
differently (its ``*.pt`` matches at any depth, its ``**/*.log`` not at the top), so patterns are translated. Patterns
that rclone would read as a regular expression, or not at all, are refused.

Names are chosen by tenants, so matching takes time linear in the name, whatever name and pattern are. Python's regular
expressions try all ways to divide a name among the stars; here, all ways are followed at the same time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

MAX_LENGTH = 200


def check(pattern: str) -> str | None:
    """Why the pattern is invalid; None if it is valid."""
    if not pattern or len(pattern) > MAX_LENGTH:
        return f"Use 1 to {MAX_LENGTH} characters, or leave the pattern out to match everything."
    if "{{" in pattern or "}}" in pattern:
        return "Regular expressions are not allowed."
    if "***" in pattern:
        return "*** has no meaning; use * or **."
    if pattern.startswith(("/", "./")) or ".." in pattern.split("/") or "//" in pattern or pattern.endswith("/"):
        return "The pattern must be relative to containerPath and match files, such as **/*.log."
    try:
        _automaton(pattern)
    except ValueError as error:
        return str(error)
    return None


def to_rclone(pattern: str) -> list[str]:
    """The include filters with the pattern's meaning: anchored, and also at the top if it begins with ``**/``."""
    filters = [f"/{pattern}"]
    if pattern.startswith("**/"):
        filters.append(f"/{pattern[3:]}")
    return filters


def matcher(pattern: str) -> Callable[[str], bool] | None:
    """Whether a relative path matches; None matches everything. Raises ValueError for what ``check`` refuses."""
    return _automaton(pattern).accepts if pattern else None


Test = Callable[[str], bool]
ESCAPED = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ")
MAX_KNOWN = 1000
"""Maximum number of cached sets of states, and of characters."""


class _Set:
    """The possible states after a path."""

    __slots__ = ("is_end", "next", "states")

    def __init__(self, states: frozenset[int], is_end: bool) -> None:
        self.states, self.is_end = states, is_end
        self.next: dict[object, _Set] = {}


class _Automaton:
    """A state has a character test and the next state, or equivalent states, or neither (the end)."""

    def __init__(self) -> None:
        self._tests: list[tuple[Test, int] | None] = [None]
        self._same: list[tuple[int, ...]] = [()]
        self._letters: set[str] = {"/"}
        self._classes: list[Test] = []
        self._begin = 0
        self._forget()

    # Built from the end to the beginning: each part gets the state after it.

    def letter(self, char: str, after: int) -> int:
        self._letters.add(char)
        return self._add((char.__eq__, after))

    def one_of(self, is_one: Test, after: int) -> int:
        self._classes.append(is_one)
        return self._add((is_one, after))

    def any_number(self, test: Test, after: int) -> int:
        state = self._add(None, after)
        self._same[state] = (after, self._add((test, state)))
        return state

    def either(self, *states: int) -> int:
        return self._add(None, *states)

    def begin(self, state: int) -> None:
        self._begin = state
        self._forget()

    def _add(self, test: tuple[Test, int] | None, *same: int) -> int:
        self._tests.append(test)
        self._same.append(same)
        return len(self._tests) - 1

    def accepts(self, path: str) -> bool:
        at, symbols = self._first, self._symbols
        for char in path:
            symbol = symbols.get(char)
            if symbol is None:
                symbol = self._symbol(char)
            following = at.next.get(symbol)
            at = self._step(at, char, symbol) if following is None else following
            if not at.states:
                return False
        return at.is_end

    def _forget(self) -> None:
        self._sets: dict[frozenset[int], _Set] = {}
        self._symbols: dict[str, object] = {}
        self._first = self._closed({self._begin})

    def _symbol(self, char: str) -> object:
        """One representative for all characters that no part of the pattern distinguishes."""
        symbol = char if char in self._letters else tuple(is_one(char) for is_one in self._classes)
        if len(self._symbols) >= MAX_KNOWN:
            self._symbols.clear()
        self._symbols[char] = symbol
        return symbol

    def _step(self, at: _Set, char: str, symbol: object) -> _Set:
        states = set()
        for state in at.states:
            test = self._tests[state]
            if test is not None and test[0](char):
                states.add(test[1])
        following = at.next[symbol] = self._closed(states)
        return following

    def _closed(self, states: set[int]) -> _Set:
        todo = list(states)
        while todo:
            more = [state for state in self._same[todo.pop()] if state not in states]
            states.update(more)
            todo += more
        key = frozenset(states)
        if (cached := self._sets.get(key)) is not None:
            return cached
        if len(self._sets) >= MAX_KNOWN:
            self._sets.clear()
            self._first.next.clear()
        closure = self._sets[key] = _Set(key, 0 in key)
        return closure


Node = Callable[[_Automaton, int], int]
"""Adds its states before a state and returns the first."""


@lru_cache(256)
def _automaton(pattern: str) -> _Automaton:
    automaton = _Automaton()
    body, is_anywhere = (pattern[3:], True) if pattern.startswith("**/") else (pattern, False)
    begin = _sequence(_parsed(iter(_tokens(body)), is_inside=False))(automaton, 0)
    if is_anywhere:
        begin = automaton.either(begin, automaton.any_number(_anything, automaton.letter("/", begin)))
    automaton.begin(begin)
    return automaton


def _anything(_char: str) -> bool:
    return True


def _in_part(char: str) -> bool:
    return char != "/"


def _tokens(pattern: str) -> Iterator[tuple[str, str]]:
    """(kind, text): a ``letter``, a ``class`` of letters, or the special character itself. Raises ValueError."""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            yield "**", ""
            at += 1
        elif char == "[":
            end = pattern.find("]", at)
            if end < 0:
                raise ValueError("A [ is not closed by ].")
            yield "class", pattern[at + 1 : end]
            at = end
        elif char == "]":
            raise ValueError("A ] has no [; write \\] for the character.")
        elif char == "\\":
            at += 1
            if pattern[at : at + 1] not in ESCAPED:
                raise ValueError("A \\ must precede a character that has a special meaning.")
            yield "letter", pattern[at]
        elif char in "*?{},":
            yield char, char
        else:
            yield "letter", char
        at += 1


def _parsed(tokens: Iterator[tuple[str, str]], *, is_inside: bool) -> list[list[Node]]:
    """The alternatives up to the end, or to the } that ends them; outside braces there is one."""
    branches: list[list[Node]] = [[]]
    for kind, text in tokens:
        match kind:
            case "}" if is_inside:
                return branches
            case "}":
                raise ValueError("A } has no {.")
            case "," if is_inside:
                branches.append([])
            case "{":
                branches[-1].append(_alternatives(_parsed(tokens, is_inside=True)))
            case _:
                branches[-1].append(_node(kind, text))
    if is_inside:
        raise ValueError("A { is not closed by }.")
    return branches


def _node(kind: str, text: str) -> Node:
    match kind:
        case "**":
            return lambda automaton, after: automaton.any_number(_anything, after)
        case "*":
            return lambda automaton, after: automaton.any_number(_in_part, after)
        case "?":
            return lambda automaton, after: automaton.one_of(_in_part, after)
        case "class":
            is_one = _class(text)
            return lambda automaton, after: automaton.one_of(is_one, after)
    return lambda automaton, after: automaton.letter(text, after)


def _class(text: str) -> Test:
    if not text.removeprefix("^") or set(text) & set("[\\/") or any(sign * 2 in text for sign in "-&|~"):
        raise ValueError(f"[{text}] is not a valid set of characters: use letters and ranges such as [a-z0-9] or [^_].")
    try:
        letters = re.compile(f"[{text}]")
    except re.error as error:
        raise ValueError(f"[{text}] is not a valid set of characters: {error}") from error
    return lambda char: letters.match(char) is not None


def _sequence(alternatives: list[list[Node]]) -> Node:
    [nodes] = alternatives

    def add(automaton: _Automaton, after: int) -> int:
        for node in reversed(nodes):
            after = node(automaton, after)
        return after

    return add


def _alternatives(alternatives: list[list[Node]]) -> Node:
    def add(automaton: _Automaton, after: int) -> int:
        return automaton.either(*(_sequence([nodes])(automaton, after) for nodes in alternatives))

    return add
