"""Checks that a sink has what a save sent: every file by name and size, and which ones differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from pools.file_names import looks, plain, show
from syncing import errors

SHOWN = 5


def check(
    location: str,
    sent: Mapping[str, int],
    stored: Mapping[str, int],
    matches: Callable[[str], bool] | None,
    *,
    exact: bool,
) -> None:
    """Raise Incomplete unless the sink lists ``found`` with every file of ``sent``, and with ``exact`` no others.

    Both are sizes by path; ``matches`` is the mapping's pattern, outside of which the sink may have anything.
    """
    there = {name: size for name, size in stored.items() if matches is None or matches(name)}
    here_count, there_count = _spelled(sent), _spelled(there)
    odd = here_count - there_count
    if exact:
        odd |= there_count - here_count
    if not odd:
        return
    named = "; ".join(_differences({name for name, _ in odd}, sent, there))
    raise errors.Incomplete(
        f"After a save of {len(sent)} files, {sum(sent.values())} bytes, {location} has {len(there)} files,"
        f" {sum(there.values())} bytes. Different: {named}."
    )


def _spelled(sizes: Mapping[str, int]) -> Counter[tuple[str, int]]:
    return Counter((plain(name), size) for name, size in sizes.items())


def _differences(odd: set[str], sent: Mapping[str, int], stored: Mapping[str, int]) -> Iterable[str]:
    """Describe the entries with one of these names, or a similar one, on both sides."""
    alike = {looks(name) for name in odd}
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for side, sizes in enumerate((sent, stored)):
        for name, size in sizes.items():
            if (key := looks(name)) in alike:
                groups.setdefault(key, ([], []))[side].append(f"{show(name)} of {size} bytes")
    for _, (here, there) in sorted(groups.items())[:SHOWN]:
        yield f"{' and '.join(here) or 'nothing'}, at the sink {' and '.join(there) or 'nothing'}"
    if len(groups) > SHOWN:
        yield f"and {len(groups) - SHOWN} more"
