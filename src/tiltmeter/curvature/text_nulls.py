"""Texts that are not the skill but look like it: what would a Fisher spectrum be without its content?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.tokens import Encoded


def ordinary_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the vocabulary without special and added tokens, ascending."""
    added = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return sorted(set(tokenizer.get_vocab().values()) - added)


def random_text(encoded: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> list[Encoded]:
    """Examples of the same lengths, each ordinary token replaced by one drawn evenly from the ordinary vocabulary.

    Special tokens, and with them the form of the chat, stay.
    """
    rng, ordinary = np.random.default_rng(seed), np.array(ordinary_tokens(tokenizer))
    return [Encoded(_redrawn(example.ids, ordinary, rng), example.is_completion) for example in encoded]


def shuffled_completions(encoded: Sequence[Encoded], limit: int, seed: int = 0) -> list[Encoded]:
    """Each prompt with the completion of another example, cut on the right to `limit` tokens.

    The permutation is a random derangement. Skills with few distinct answers keep many of them all the same.

    Raises:
        InputError: fewer than two examples.
    """
    if len(encoded) < 2:
        raise InputError(f"shuffled completions need at least two examples, got {len(encoded)}")
    order = _derangement(len(encoded), np.random.default_rng(seed))
    starts = [example.is_completion.index(True) for example in encoded]
    joined = []
    for row, other in enumerate(order):
        given, start = encoded[other], starts[other]
        ids = encoded[row].ids[: starts[row]] + given.ids[start:]
        is_completion = [False] * starts[row] + given.is_completion[start:]
        joined.append(Encoded(ids[:limit], is_completion[:limit]))
    return joined


def _redrawn(ids: Sequence[int], ordinary: NDArray[np.int64], rng: np.random.Generator) -> list[int]:
    drawn = rng.choice(ordinary, len(ids))
    redrawn: list[int] = np.where(np.isin(ids, ordinary), drawn, ids).tolist()
    return redrawn


def _derangement(count: int, rng: np.random.Generator) -> list[int]:
    """Uniform among the permutations without a fixed point: about one in e permutations is one."""
    while True:
        order = rng.permutation(count)
        if (order != np.arange(count)).all():
            return [int(index) for index in order]
