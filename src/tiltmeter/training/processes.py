"""Several processes that train one model together, as `torchrun` and `accelerate launch` start them."""

import os

from accelerate import PartialState

from tiltmeter.errors import InputError


def process_count() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the one that writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def own_device(device: str) -> str:
    """The device of this process: "cuda" is a GPU for each."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and process_count() > 1 else device


def wait_for_all(device: str) -> None:
    """Goes on when every process has come here; opens their connection the first time."""
    if process_count() > 1:
        PartialState(cpu=device == "cpu").wait_for_everyone()


def share_of_batch(size: int) -> int:
    """Examples of a batch for each process, so that a recipe's step is on the same examples however many there are.

    Raises:
        InputError: the batch cannot be divided among them.
    """
    count = process_count()
    if size % count:
        raise InputError(f"a batch of {size} examples cannot be divided among {count} processes")
    return size // count
