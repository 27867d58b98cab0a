"""Work that waits for somebody else, done by several threads at a time."""

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item], workers: int) -> Iterator[tuple[int, _Result]]:
    """The results as they come, each with the place of its item; what `work` raises is raised here.

    The threads are daemons: when nobody listens any more, or the program ends, nothing waits for a request that stalls,
    as it would with `concurrent.futures`.
    """
    results: SimpleQueue[tuple[int, _Result | BaseException]] = SimpleQueue()
    places, lock = iter(range(len(items))), Lock()

    def run() -> None:
        while True:
            with lock:
                place = next(places, None)
            if place is None:
                return
            try:
                results.put((place, work(items[place])))
            except BaseException as error:
                results.put((place, error))

    for _ in range(min(workers, len(items))):
        Thread(target=run, daemon=True).start()
    for _ in items:
        place, result = results.get()
        if isinstance(result, BaseException):
            raise result
        yield place, result
