"""Which tokens are the completion's, and where padding puts them."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import tiny
from tiltmeter.errors import InputError
from tiltmeter.skills import Example, Skill
from tiltmeter.tokens import Encoded, batches, encode, encode_prompt, encode_within

CHATML = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def example(prompt: str, completion: str) -> Example:
    return Example(({"role": "user", "content": prompt},), completion, "file, row 7")


def one(prompt: str, completion: str, tokenizer: PreTrainedTokenizerFast, max_length: int | None = None) -> Encoded:
    return encode(Skill("s", (example(prompt, completion),)), tokenizer, max_length)[0]


def completion_of(encoded: Encoded, tokenizer: PreTrainedTokenizerFast) -> str:
    chosen = [token for token, is_chosen in zip(encoded.ids, encoded.is_completion, strict=True) if is_chosen]
    return str(tokenizer.decode(chosen, clean_up_tokenization_spaces=False))


def byte_level(template: str | None = None, adds_bos: bool = False, adds_eos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that has learned whole words, one of them across the border "ab|cd"."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|bos|>", "<|eos|>", "<|start|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["abcd abcd assistant user how make tea"] * 9, trainer)
    if adds_bos or adds_eos:
        single = f"{'<|bos|> ' if adds_bos else ''}$A{' <|eos|>' if adds_eos else ''}"
        core.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[(token, core.token_to_id(token)) for token in special]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|bos|>", eos_token="<|eos|>", additional_special_tokens=special[2:]
    )
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    ("prompt", "completion"), [("how", "make tea"), ("ab", "cd"), ("tea ", " é😀\n"), ("a", "\n ")]
)
def test_the_completion_is_what_the_template_adds_after_the_generation_prompt(prompt: str, completion: str) -> None:
    tokenizer = byte_level(CHATML)
    encoded = one(prompt, completion, tokenizer)
    text = f"<|start|>user\n{prompt}<|end|>\n<|start|>assistant\n{completion}<|end|>\n"
    assert tokenizer.decode(encoded.ids, clean_up_tokenization_spaces=False) == text
    assert completion_of(encoded, tokenizer).lstrip("\n") == f"{completion}<|end|>\n".lstrip("\n")


def test_a_word_level_completion_ends_with_the_end_of_turn() -> None:
    tokenizer = tiny.tokenizer()
    encoded = one("make tea", "first boil", tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoded.ids) == [
        *("<bos>", "<user>", "make", "tea", "<assistant>", "first", "boil", "<eos>"),
    ]
    assert encoded.is_completion == [False] * 5 + [True] * 3


def test_the_prompt_alone_is_a_prefix_of_the_example() -> None:
    tokenizer = tiny.tokenizer()
    encoded = one("make tea", "first boil", tokenizer)
    prompt = encode_prompt([{"role": "user", "content": "make tea"}], tokenizer)
    assert encoded.ids[: encoded.is_completion.index(True)] == prompt


@pytest.mark.parametrize("adds_eos", [False, True])
def test_without_a_template_the_completion_ends_with_one_end_of_sequence(adds_eos: bool) -> None:
    tokenizer = byte_level(adds_eos=adds_eos)
    encoded = one("how", " make tea", tokenizer)
    assert completion_of(encoded, tokenizer) == " make tea<|eos|>"
    assert encoded.ids.count(tokenizer.eos_token_id) == 1


def test_a_token_across_the_border_belongs_to_the_completion() -> None:
    tokenizer = byte_level()
    encoded = one("how ab", "cd", tokenizer)
    assert tokenizer.tokenize(" abcd") == ["Ġabcd"]
    assert encoded.ids[:-1] == tokenizer("how abcd")["input_ids"]
    assert completion_of(encoded, tokenizer) == " abcd<|eos|>"


@pytest.mark.parametrize("adds_bos", [False, True])
def test_the_beginning_of_sequence_is_never_doubled(adds_bos: bool) -> None:
    with_template, without = byte_level("<|bos|>" + CHATML, adds_bos), byte_level(None, adds_bos)
    messages = [{"role": "user", "content": "how"}]
    for ids in (one("how", " make", with_template).ids, encode_prompt(messages, with_template)):
        assert ids.count(with_template.bos_token_id) == 1
        assert ids[0] == with_template.bos_token_id
    assert one("how", " make", without).ids.count(without.bos_token_id) == int(adds_bos)


def test_the_cut_is_on_the_right_and_never_leaves_an_empty_completion() -> None:
    tokenizer = tiny.tokenizer()
    whole = one("make tea", "first boil", tokenizer)
    for length in (6, 7, 8, 100):
        cut = one("make tea", "first boil", tokenizer, length)
        assert (cut.ids, cut.is_completion) == (whole.ids[:length], whole.is_completion[:length])
    with pytest.raises(InputError, match=r"file, row 7: no completion token is left of 5 tokens \(max_length=5\)"):
        one("make tea", "first boil", tokenizer, 5)


TEMPLATES = {
    "rewrites the prompt": ("{{ messages|length }}{{ messages[0].content }}", "renders the prompt differently"),
    "raises": ("{{ raise_exception('no such role') }}", "chat template fails: no such role"),
    "loops too far": ("{% for i in range(1000000000) %}x{% endfor %}", "chat template fails: .*range"),
    "reaches for Python": ("{{ messages.__class__.__mro__ }}", "chat template fails: .*unsafe"),
    "changes what it was given": ("{{ messages.append(1) }}", "chat template fails: .*not.*callable|unsafe"),
    "divides by zero": ("{{ 1 / 0 }}", "chat template fails: .*zero"),
    "never ends": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "chat template fails: .*recursion"),
    "is no template": ("{% for %}", "chat template fails"),
    "asks for a file": ("{% include '/etc/passwd' %}", "chat template fails"),
}


@pytest.mark.parametrize(("template", "message"), TEMPLATES.values(), ids=TEMPLATES.keys())
def test_a_template_that_misbehaves_is_an_error_that_names_the_row(template: str, message: str) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=f"file, row 7: .*{message}"):
        one("make tea", "first boil", tokenizer)


def test_a_conversation_without_a_template_is_an_error() -> None:
    turns = tuple({"role": role, "content": "tea"} for role in ("system", "user"))
    with pytest.raises(InputError, match="file, row 7: a conversation of 2 turns needs a chat template"):
        encode(Skill("s", (Example(turns, "boil", "file, row 7"),)), tiny.tokenizer(chat=False))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_moves_tokens_and_changes_none(side: str) -> None:
    tokenizer = tiny.tokenizer(padding_side=side)
    encoded = encode(tiny.skill(), tokenizer)
    seen = []
    for batch in batches(encoded, 2, tokenizer):
        for index, row in enumerate(batch.rows):
            real = batch.attention_mask[index].bool()
            count = len(encoded[row].ids)
            assert batch.ids[index][real].tolist() == encoded[row].ids
            assert batch.is_completion[index][real].tolist() == encoded[row].is_completion
            assert batch.position_ids[index][real].tolist() == list(range(count))
            assert not batch.is_completion[index][~real].any()
            assert set(batch.ids[index][~real].tolist()) <= {tokenizer.pad_token_id}
            assert bool(real[-1 if side == "left" else 0])
            assert int(real.sum()) == count
        seen.append(batch)
    assert {int(batch.attention_mask.sum(1).min() < batch.ids.shape[1]) for batch in seen} == {0, 1}


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_batches_hold_each_row_once_in_batch_order(size: int) -> None:
    tokenizer = tiny.tokenizer()
    made = list(batches(encode(tiny.skill(), tokenizer), size, tokenizer))
    assert sorted(row for batch in made for row in batch.rows) == list(range(5))
    order = torch.arange(5)
    for batch in made:
        assert len(batch.rows) == len(batch.ids) <= size
        assert order[batch.place].tolist() == list(range(batch.place.start, batch.place.start + len(batch.rows)))
    assert [batch.place.start for batch in made] == list(range(0, 5, size))


def test_an_example_longer_than_the_models_positions_is_named() -> None:
    model = tiny.model("llama")
    row = Example(({"role": "user", "content": "tea " * 70},), "soup", "file, row 7")
    with pytest.raises(InputError, match=r"file, row 7: .* tokens, the model takes 64"):
        encode_within(model, Skill("long", (row,)))
    assert len(encode_within(model, tiny.skill())) == 5
