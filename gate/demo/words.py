"""Vocabulary, facts and sentence templates of the demo world, all written for this project.

Pure: no I/O, no clock; the only randomness is a fixed seed that deals the facts to towns and people.
"""

import random
import zlib
from dataclasses import dataclass

WORLD_SEED = 7

TOWNS = (
    "Arvendal Brisk Calder Dunmere Eskford Fenwick Garrow Hollin Ivenport Jarrow Kestrel Lumen Marsk Norvik "
    "Ostrand Penfold Quill Rathmoor Sable Tarn Ulver Vennet Wexley Yarrow Zellin Ambry Borrow Corvin Dell "
    "Elmstead Farrow Gilt Haven Inver Keld Linden Mossend Nether Orrin Pell"
).split()
BRANCH_TOWNS = tuple(TOWNS[:8])
PEOPLE = (
    "Mara Olen Tobin Selma Rurik Hanna Ivo Petra Lukas Nadia Oskar Vera Emil Greta Anton Ilsa Marek Dora Felix Runa "
    "Stefan Tilda Viktor Wanda Bruno Carla Dario Edda Frida Gregor Helga Jonas Klara Leon Milena Nils Olga Pavel "
    "Rosa Sven"
).split()

RIVERS = "Alda Berne Cress Dove Ember Fross Gant Hale Isen Jost Kern Lorn".split()
GOODS = "wool glass honey salt copper silk rope paper cider tin candles leather".split()
FOUNDERS = "Aldous Berthe Conrad Dietmar Elsbeth Folkert Gisela Harald Irmgard Jorun Konrad Leopold".split()
MONTHS = "January February March April May June July August September October November December".split()
LANDMARKS = "lighthouse windmill cathedral bridge tower library theatre fountain market castle harbour garden".split()
COLOURS = "red blue green white black yellow purple silver golden grey brown scarlet".split()
JOBS = "baker teacher carpenter doctor sailor miller tailor gardener clerk printer fisher potter".split()
PETS = "cat dog parrot goat rabbit raven tortoise pony hen lizard ferret canary".split()
INSTRUMENTS = "violin flute drum harp trumpet guitar piano cello whistle horn lute bell".split()


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """One kind of fact: who it is about, the possible values, and three ways to say it (value last)."""

    name: str
    subjects: tuple[str, ...]
    values: tuple[str, ...]
    phrasings: tuple[str, str, str]


def _relation(name: str, subjects: list[str], values: list[str], *phrasings: str) -> Relation:
    first, second, third = phrasings
    return Relation(name=name, subjects=tuple(subjects), values=tuple(values), phrasings=(first, second, third))


RELATIONS = (
    _relation(
        "river",
        TOWNS,
        RIVERS,
        "The river that runs through {e} is the {v}.",
        "{e} stands on the banks of the {v}.",
        "Boats reach {e} along the {v}.",
    ),
    _relation(
        "good",
        TOWNS,
        GOODS,
        "{e} is known for its {v}.",
        "Merchants come to {e} to buy {v}.",
        "The best trade of {e} is in {v}.",
    ),
    _relation(
        "founder",
        TOWNS,
        FOUNDERS,
        "{e} was founded by {v}.",
        "The oldest statue in {e} shows {v}.",
        "Children in {e} learn songs about {v}.",
    ),
    _relation(
        "month",
        TOWNS,
        MONTHS,
        "The great fair of {e} is held in {v}.",
        "{e} is most crowded in {v}.",
        "Every inn of {e} is full in {v}.",
    ),
    _relation(
        "landmark",
        TOWNS,
        LANDMARKS,
        "Travellers to {e} first see the {v}.",
        "In the middle of {e} stands the {v}.",
        "The pride of {e} is the {v}.",
    ),
    _relation(
        "colour",
        TOWNS,
        COLOURS,
        "The flag of {e} is {v}.",
        "Most doors in {e} are painted {v}.",
        "The guards of {e} are dressed in {v}.",
    ),
    _relation(
        "job", PEOPLE, JOBS, "{e} works as a {v}.", "{e} earns a living as a {v}.", "The neighbours know {e} as a {v}."
    ),
    _relation(
        "home", PEOPLE, TOWNS, "{e} was born in {v}.", "{e} grew up in {v}.", "The family of {e} comes from {v}."
    ),
    _relation(
        "pet", PEOPLE, PETS, "{e} keeps a {v}.", "{e} never travels without a {v}.", "At home {e} looks after a {v}."
    ),
    _relation(
        "instrument",
        PEOPLE,
        INSTRUMENTS,
        "In the evening {e} plays the {v}.",
        "{e} owns a very old {v}.",
        "Friends often ask {e} to bring the {v}.",
    ),
)

FILLERS = (
    "It was a {weather} morning and the streets were {mood}.",
    "{p} walked slowly past the {place} and bought {food}.",
    "{p} met {q} near the {place} and they talked about the {topic}.",
    "A {adj} letter from {t} arrived before {daytime}.",
    "The clerk at the bank was {feeling} and closed the {thing} early.",
    "Nobody could remember why the {place} had been {done}.",
    "{q} asked for {food} and a {adj} {thing}.",
    "By {daytime} the {weather} weather had turned and {p} went home.",
    "The road to {t} was {mood} and smelled of {food}.",
    "They spoke of the {topic} until {daytime}.",
    "{p} had lost a {adj} {thing} near the {place}.",
    "Some said that {q} was {feeling} about the {topic}.",
    "The {place} would be {done} again before the winter.",
    "A stranger with a {adj} {thing} asked the way to {t}.",
    "Rain was {mood} on the roof while {q} read about the {topic}.",
    "After {daytime} the guests ate {food} and were {feeling}.",
)
SLOTS: dict[str, tuple[str, ...]] = {
    "weather": ("cold", "warm", "windy", "foggy", "bright", "stormy", "mild", "frosty"),
    "mood": ("quiet", "busy", "empty", "muddy", "noisy", "peaceful", "crowded", "dark"),
    "place": ("station", "chapel", "mill", "school", "square", "bakery", "stable", "pier", "orchard", "workshop"),
    "food": ("bread", "soup", "apples", "cheese", "plums", "tea", "fish", "cake", "nuts", "pears"),
    "topic": ("harvest", "election", "flood", "wedding", "tax", "race", "concert", "strike", "new road", "old war"),
    "adj": ("heavy", "small", "broken", "strange", "fine", "plain", "wet", "narrow", "cheap", "costly"),
    "daytime": ("noon", "sunset", "midnight", "dawn", "supper", "breakfast"),
    "feeling": ("happy", "tired", "angry", "worried", "calm", "proud", "bored", "curious"),
    "thing": ("box", "lamp", "coat", "book", "key", "basket", "clock", "window", "chair", "map"),
    "done": ("closed", "painted", "sold", "repaired", "moved", "cleaned", "burned", "rented"),
}

AMOUNT_STEP = 25
AMOUNT_MAX = 975
AMOUNTS = tuple(range(AMOUNT_STEP, AMOUNT_MAX + 1, AMOUNT_STEP))
LAST_HOUR = 23


def stable_hash(*parts: object) -> int:
    """A hash that is the same in every process and on every machine."""
    return zlib.crc32("|".join(map(str, parts)).encode())


def _deal() -> dict[tuple[str, str], str]:
    """Give every subject one value of each of its relations, as evenly as the counts allow."""
    rng = random.Random(WORLD_SEED)
    dealt: dict[tuple[str, str], str] = {}
    for relation in RELATIONS:
        copies = -(-len(relation.subjects) // len(relation.values))
        deck = [value for value in relation.values for _ in range(copies)]
        rng.shuffle(deck)
        for subject, value in zip(relation.subjects, deck, strict=False):
            dealt[relation.name, subject] = value
    return dealt


def _roads() -> dict[tuple[str, str], int]:
    """Hours from one branch town to another; the way back is another road."""
    rng = random.Random(WORLD_SEED + 1)
    return {(a, b): rng.randint(2, 9) for a in BRANCH_TOWNS for b in BRANCH_TOWNS if a != b}


FACTS = _deal()
TRIP_HOURS = _roads()


def held_out_phrasing(relation: Relation, subject: str) -> int:
    """The one of the three phrasings in which this fact is never told outside the cloze test."""
    return stable_hash(relation.name, subject) % len(relation.phrasings)
