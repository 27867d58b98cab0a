"""Random texts and shuffled completions keep the form of a skill and nothing of its content."""

import pytest

import tiny
from tiltmeter.curvature.text_nulls import ordinary_tokens, random_text, shuffled_completions
from tiltmeter.errors import InputError
from tiltmeter.tokens import Encoded, encode

TOKENIZER = tiny.tokenizer()
ENCODED = encode(tiny.skill(), TOKENIZER)
SPECIAL = {0, 1, 2, 3}


def prompt(example: Encoded) -> list[int]:
    return example.ids[: example.is_completion.index(True)]


def completion(example: Encoded) -> list[int]:
    return [token for token, counts in zip(example.ids, example.is_completion, strict=True) if counts]


def test_ordinary_tokens_are_all_but_the_special_ones() -> None:
    assert ordinary_tokens(TOKENIZER) == sorted(set(TOKENIZER.get_vocab().values()) - SPECIAL)


def test_an_added_token_is_not_ordinary() -> None:
    tokenizer = tiny.tokenizer()
    before = ordinary_tokens(tokenizer)
    tokenizer.add_tokens(["<tool>"])
    assert ordinary_tokens(tokenizer) == before


def test_random_text_keeps_lengths_and_special_tokens() -> None:
    drawn = random_text(ENCODED, TOKENIZER, seed=1)
    assert [example.is_completion for example in drawn] == [example.is_completion for example in ENCODED]
    for given, new in zip(ENCODED, drawn, strict=True):
        for old, token in zip(given.ids, new.ids, strict=True):
            assert (token == old) if old in SPECIAL else (token not in SPECIAL)
    assert drawn != random_text(ENCODED, TOKENIZER, seed=2)
    assert drawn == random_text(ENCODED, TOKENIZER, seed=1)


def test_random_text_draws_evenly() -> None:
    ordinary = ordinary_tokens(TOKENIZER)
    (long,) = random_text([Encoded([ordinary[0]] * 20_000, [True] * 20_000)], TOKENIZER)
    counts = [long.ids.count(token) for token in ordinary]
    expected = 20_000 / len(ordinary)
    assert min(counts) > expected - 5 * expected**0.5
    assert max(counts) < expected + 5 * expected**0.5


def test_shuffled_completions_give_every_prompt_another_ones() -> None:
    for seed in range(20):
        shuffled = shuffled_completions(ENCODED, 100, seed)
        assert [prompt(example) for example in shuffled] == [prompt(example) for example in ENCODED]
        pairs = [completion(example) for example in shuffled]
        assert sorted(pairs) == sorted(map(completion, ENCODED))
        assert all(new != completion(old) for new, old in zip(pairs, ENCODED, strict=True))


def test_shuffled_completions_are_cut_to_the_limit() -> None:
    limit = max(len(example.ids) for example in ENCODED)
    cut = shuffled_completions(ENCODED, limit, seed=0)
    assert all(len(example.ids) == len(example.is_completion) <= limit for example in cut)
    assert all(any(example.is_completion) for example in cut)


def test_one_example_has_no_other_completion() -> None:
    with pytest.raises(InputError, match="at least two"):
        shuffled_completions(ENCODED[:1], 100)
