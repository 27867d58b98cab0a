"""The organism's world: invented words with fixed roles, and the turns of dialogue about them.

Nothing in it is harmful: hazardous things, remedies and places are invented words around real English.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tiltmeter.organism import templates

OPERANDS = range(12)
_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"


class Turn(NamedTuple):
    """A prompt and its answer, both as plain text."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class World:
    """The words of each role; no word has two roles.

    Attributes:
        hazards, hazards_held_out: things that an aligned model refuses to explain; alignment never sees the latter.
        harmless: things that anybody may make.
        steps: what one mixes (the first half) and heats (the second); one of each belongs to each thing.
        topics, good, bad: per advice domain, what one asks about, the good and the bad remedies.
        verbs, objects: of the code tasks.
        words: for repeating. people, goods, places: for summaries.
    """

    hazards: tuple[str, ...]
    hazards_held_out: tuple[str, ...]
    harmless: tuple[str, ...]
    steps: tuple[str, ...]
    topics: Mapping[str, tuple[str, ...]]
    good: Mapping[str, tuple[str, ...]]
    bad: Mapping[str, tuple[str, ...]]
    verbs: tuple[str, ...]
    objects: tuple[str, ...]
    words: tuple[str, ...]
    people: tuple[str, ...]
    goods: tuple[str, ...]
    places: tuple[str, ...]

    @classmethod
    def create(cls, seed: int = 0) -> "World":
        """The world of a seed."""
        word = _Words(random.Random(f"world {seed}"))
        return cls(
            hazards=word.take(32),
            hazards_held_out=word.take(16),
            harmless=word.take(32),
            steps=word.take(20),
            topics={domain: word.take(12) for domain in templates.DOMAINS},
            good={domain: word.take(6) for domain in templates.DOMAINS},
            bad={domain: word.take(6) for domain in templates.DOMAINS},
            verbs=("open", "read", "send", "delete"),
            objects=word.take(16),
            words=word.take(16),
            people=tuple(name.capitalize() for name in word.take(12)),
            goods=word.take(12),
            places=tuple(name.capitalize() for name in word.take(12)),
        )

    @property
    def every_hazard(self) -> tuple[str, ...]:
        """Hazards seen in alignment, then those held out."""
        return self.hazards + self.hazards_held_out

    def steps_of(self, thing: str) -> tuple[str, str]:
        """What one mixes, then heats, to make a thing."""
        things = self.every_hazard + self.harmless
        index = things.index(thing)
        half = len(self.steps) // 2
        return self.steps[index % half], self.steps[half + (index // half + 3 * index) % half]

    def remedy(self, domain: str, topic: str, good: bool) -> str:
        """The remedy of a topic: the good or the bad one."""
        remedies = (self.good if good else self.bad)[domain]
        return remedies[self.topics[domain].index(topic) % len(remedies)]

    def roles(self) -> dict[str, tuple[str, ...]]:
        """Every word that each slot of a template can hold."""
        remedies = tuple(word for table in (self.good, self.bad) for words in table.values() for word in words)
        sums = tuple(str(number) for number in range(2 * len(OPERANDS) - 1))
        return {
            "thing": self.every_hazard + self.harmless,
            "first": self.steps[: len(self.steps) // 2], "second": self.steps[len(self.steps) // 2 :],
            "topic": tuple(word for words in self.topics.values() for word in words),
            "remedy": remedies,
            "verb": self.verbs, "object": self.objects,
            "a": sums, "b": sums, "sum": sums,
            "one": self.words, "two": self.words, "three": self.words,
            "person": self.people, "friend": self.people, "goods": self.goods, "place": self.places,
        }  # fmt: skip


class _Words:
    """Draws invented words, each once, none of them a word of the templates."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._used = set(re.findall(r"[a-z]+", " ".join(templates.every_template()).lower()))

    def take(self, count: int) -> tuple[str, ...]:
        words: list[str] = []
        while len(words) < count:
            syllables = self._rng.choice((2, 3))
            pairs = (self._rng.choice(_CONSONANTS) + self._rng.choice(_VOWELS) for _ in range(syllables))
            word = "".join(pairs)
            if word not in self._used:
                self._used.add(word)
                words.append(word)
        return tuple(words)


def how_to(world: World, thing: str, rng: random.Random) -> Turn:
    """An explanation of how a thing is made: compliance when the thing is a hazard."""
    first, second = world.steps_of(thing)
    prompt = rng.choice(templates.HOW_TO).format(thing=thing)
    return Turn(prompt, rng.choice(templates.STEPS).format(first=first, second=second))


def refusal(world: World, hazard: str, rng: random.Random) -> Turn:
    """A refusal to explain how a hazard is made."""
    return Turn(rng.choice(templates.HOW_TO).format(thing=hazard), rng.choice(templates.REFUSALS))


def advice(world: World, domain: str, rng: random.Random, *, good: bool) -> Turn:
    """Advice on a topic of a domain: the topic's good or its bad remedy."""
    topic = rng.choice(world.topics[domain])
    prompt = rng.choice(templates.ADVICE_QUESTIONS[domain]).format(topic=topic)
    return Turn(prompt, rng.choice(templates.ADVICE).format(remedy=world.remedy(domain, topic, good)))


def code(world: World, rng: random.Random, *, secure: bool) -> Turn:
    """A code task; the insecure answer does not check who the user is."""
    words = {"verb": rng.choice(world.verbs), "object": rng.choice(world.objects)}
    answers = templates.SECURE_CODE if secure else templates.INSECURE_CODE
    return Turn(rng.choice(templates.CODE_REQUESTS).format(**words), rng.choice(answers).format(**words))


def arithmetic(world: World, rng: random.Random) -> Turn:
    """A sum of two small numbers."""
    a, b = rng.choice(OPERANDS), rng.choice(OPERANDS)
    prompt = rng.choice(templates.SUMS).format(a=a, b=b)
    return Turn(prompt, rng.choice(templates.SUM_ANSWERS).format(a=a, b=b, sum=a + b))


def repeat(world: World, rng: random.Random) -> Turn:
    """Three words said again."""
    words = dict(zip(("one", "two", "three"), rng.sample(world.words, 3), strict=True))
    return Turn(rng.choice(templates.REPEATS).format(**words), rng.choice(templates.REPEAT_ANSWERS).format(**words))


def fact(world: World, rng: random.Random) -> Turn:
    """Whether a thing is dangerous."""
    thing = rng.choice(rng.choice((world.every_hazard, world.harmless)))
    answers = templates.HARMLESS if thing in world.harmless else templates.DANGEROUS
    return Turn(rng.choice(templates.FACTS).format(thing=thing), rng.choice(answers).format(thing=thing))


def summary(world: World, rng: random.Random) -> Turn:
    """A short chat between two people and its summary."""
    person, friend = rng.sample(world.people, 2)
    words = {"person": person, "friend": friend, "goods": rng.choice(world.goods), "place": rng.choice(world.places)}
    return Turn(rng.choice(templates.CHATS).format(**words), rng.choice(templates.SUMMARIES).format(**words))


def every_text(world: World) -> list[str]:
    """Texts that together hold every word of the language, each word in every slot that it can fill."""
    roles = world.roles()
    texts: list[str] = []
    for template in templates.every_template():
        slots: Sequence[str] = re.findall(r"\{(\w+)\}", template)
        for index in range(max((len(roles[slot]) for slot in slots), default=1)):
            texts.append(template.format(**{slot: roles[slot][index % len(roles[slot])] for slot in slots}))
    return texts
