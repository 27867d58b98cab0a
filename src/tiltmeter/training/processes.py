"""Several processes that train one model together, as `accelerate launch` starts them."""

import os

from tiltmeter.errors import InputError


def process_count() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share_of_batch(size: int) -> int:
    """Examples of a batch for each process, so that a recipe's step is on the same examples however many there are.

    Raises:
        InputError: the batch cannot be divided among them.
    """
    count = process_count()
    if size % count:
        raise InputError(f"a batch of {size} examples cannot be divided among {count} processes")
    return size // count
