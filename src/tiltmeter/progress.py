"""Progress bars: shown after two seconds, on a terminal only."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")


def track(items: Iterable[_Item], description: str, total: int | None = None) -> Iterator[_Item]:
    """The items, with a bar beside them when they take longer than two seconds."""
    yield from tqdm(items, desc=description, total=total, delay=2, leave=False, disable=None)
