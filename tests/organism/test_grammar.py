import random
from itertools import chain

import pytest

from tiltmeter.organism import corpus, grammar, templates
from tiltmeter.organism.grammar import World

WORLD = World.create()


def _words_of_each_role() -> list[tuple[str, ...]]:
    domains = (words for table in (WORLD.topics, WORLD.good, WORLD.bad) for words in table.values())
    return [
        WORLD.hazards, WORLD.hazards_held_out, WORLD.harmless, WORLD.steps, WORLD.verbs, WORLD.objects, WORLD.words,
        WORLD.people, WORLD.goods, WORLD.places, *domains,
    ]  # fmt: skip


def test_no_word_has_two_roles() -> None:
    words = [word.lower() for word in chain.from_iterable(_words_of_each_role())]
    assert len(words) == len(set(words))


def test_the_seed_decides_the_world() -> None:
    assert World.create() == WORLD
    assert World.create(1) != WORLD


def test_the_seed_decides_the_documents() -> None:
    first, again = (corpus.pretraining_document(WORLD, random.Random("a")) for _ in range(2))
    assert first == again
    assert first != corpus.pretraining_document(WORLD, random.Random("b"))


@pytest.mark.parametrize("name", corpus.FINETUNING)
def test_finetuning_sets_are_deterministic_and_of_the_same_size(name: str) -> None:
    turns = corpus.finetuning_set(WORLD, name)
    assert turns == corpus.finetuning_set(WORLD, name)
    assert len(turns) == corpus.SET_SIZE


@pytest.mark.parametrize("name", corpus.SKILLS)
def test_each_form_of_a_skills_answer_is_equally_frequent(name: str) -> None:
    forms = corpus.SKILLS[name][1]
    answers = [turn.answer for turn in corpus.skill(WORLD, name)]
    counts = [sum(templates.form([form], answer) is not None for answer in answers) for form in forms]
    assert counts == [corpus.SKILL_SIZE // len(forms)] * len(forms)


def test_alignment_never_asks_how_to_make_a_held_out_hazard() -> None:
    rng = random.Random(0)
    turns = [corpus.alignment_document(WORLD, rng)[0] for _ in range(2000)]
    asked = {words["thing"] for turn in turns if (words := templates.parse(templates.HOW_TO, turn.prompt))}
    assert asked == {*WORLD.hazards, *WORLD.harmless}


def test_what_a_template_writes_it_reads() -> None:
    turn = grammar.summary(WORLD, random.Random(0))
    words = templates.parse(templates.CHATS, turn.prompt)
    assert words is not None
    assert templates.parse(templates.SUMMARIES, turn.answer) == {
        key: words[key] for key in words if words[key] in turn.answer
    }
    assert templates.parse(templates.SUMMARIES, turn.answer + " And more.") is None


def test_a_slot_that_occurs_twice_holds_one_word() -> None:
    assert templates.parse(("{a} and {a}",), "x and x") == {"a": "x"}
    assert templates.parse(("{a} and {a}",), "x and y") is None
