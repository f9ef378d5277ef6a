"""Finds the names of COCO's 80 object categories in free text.

The word list is our own, so numbers are comparable with each other and close to, but not the same as, those
of the official CHAIR script (whose list and singulariser differ; it never counts the word "bus", for one).
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import NamedTuple

# Category -> other words for it, comma-separated. Plurals are found by themselves.
_WORDS = {
    "person": "man, woman, boy, girl, child, kid, baby, toddler, infant, teenager, adult, lady, gentleman, "
    "guy, human, pedestrian, player, surfer, skier, snowboarder, skateboarder, skater, cyclist, bicyclist, "
    "biker, motorcyclist, rider, driver, passenger, worker, chef, waiter, waitress, student, teacher, "
    "policeman, police officer, officer, soldier, fireman, firefighter, farmer, tourist, spectator, "
    "shopper, vendor, umpire, catcher, mother, father, son, daughter, brother, sister, bride, groom, "
    "husband, wife, cowboy, businessman",
    "bicycle": "bike, mountain bike, push bike, tricycle",
    "car": "automobile, sedan, suv, van, minivan, hatchback, convertible, jeep, taxi, taxi cab, cab, "
    "limousine, police car, sports car",
    "motorcycle": "motorbike, motor bike, motor cycle, moped, scooter, motor scooter, dirt bike",
    "airplane": "plane, aeroplane, aircraft, jet, jetliner, airliner, biplane, passenger jet, jumbo jet",
    "bus": "minibus, school bus, double decker, double decker bus, tour bus",
    "train": "locomotive, tram, subway train, passenger train, freight train, train car, train engine, streetcar",
    "truck": "lorry, pickup, pickup truck, pick up truck, fire truck, firetruck, fire engine, dump truck, "
    "tow truck, semi truck, food truck, truck bed",
    "boat": "ship, sailboat, sail boat, motorboat, motor boat, speedboat, rowboat, canoe, kayak, yacht, ferry, raft",
    "traffic light": "traffic signal, stoplight, stop light",
    "fire hydrant": "hydrant",
    "stop sign": "",
    "parking meter": "",
    "bench": "park bench, pew",
    "bird": "duck, goose, swan, seagull, gull, pigeon, parrot, eagle, hawk, owl, crow, sparrow, penguin, "
    "ostrich, flamingo, heron, pelican",
    "cat": "kitten, kitty, tabby",
    "dog": "puppy, pup, hound, poodle, terrier, labrador, bulldog, dachshund, retriever, beagle, collie",
    "horse": "pony, foal, colt, mare, stallion",
    "sheep": "lamb, ewe",
    "cow": "cattle, calf, bull, ox, heifer",
    "elephant": "",
    "bear": "polar bear, grizzly, grizzly bear, brown bear, black bear, panda, panda bear, bear cub",
    "zebra": "",
    "giraffe": "",
    "backpack": "back pack, rucksack, knapsack, book bag",
    "umbrella": "parasol",
    "handbag": "hand bag, purse, tote bag, shoulder bag",
    "tie": "necktie, neck tie, bow tie, bowtie",
    "suitcase": "suit case, luggage, baggage, briefcase",
    "frisbee": "flying disc",
    "skis": "",
    "snowboard": "snow board",
    "sports ball": "ball, soccer ball, tennis ball, beach ball",
    "kite": "",
    "baseball bat": "",
    "baseball glove": "baseball mitt, catcher mitt, mitt",
    "skateboard": "skate board, longboard",
    "surfboard": "surf board, boogie board",
    "tennis racket": "tennis racquet, racket, racquet",
    "bottle": "water bottle, wine bottle, beer bottle",
    "wine glass": "wineglass, goblet",
    "cup": "mug, teacup, tea cup, coffee cup, coffee mug, paper cup",
    "fork": "",
    "knife": "butter knife, steak knife, cake knife",
    "spoon": "",
    "bowl": "mixing bowl",
    "banana": "",
    "apple": "",
    "sandwich": "burger, hamburger, cheeseburger, panini",
    "orange": "tangerine, clementine",
    "broccoli": "",
    "carrot": "",
    "hot dog": "hotdog, corn dog, frankfurter",
    "pizza": "",
    "donut": "doughnut",
    "cake": "cupcake, cup cake, cheesecake, birthday cake, wedding cake, carrot cake",
    "chair": "armchair, arm chair, rocking chair, office chair, lawn chair, beach chair, high chair, stool, recliner",
    "couch": "sofa, loveseat, settee, futon",
    "potted plant": "houseplant, house plant, pot plant",
    "bed": "bunk bed, mattress",
    "dining table": "table, desk, dinner table, kitchen table, coffee table",
    "toilet": "toilet seat, toilet bowl, toilet lid, toilet tank, urinal",
    "tv": "television, television set, tv set, tv screen, monitor, computer monitor",
    "laptop": "laptop computer, notebook computer, netbook, macbook",
    "mouse": "computer mouse",
    "remote": "remote control, remote controller, tv remote, wii remote, game controller",
    "keyboard": "computer keyboard",
    "cell phone": "cellphone, cellular phone, mobile phone, phone, smartphone, smart phone, iphone",
    "microwave": "microwave oven",
    "oven": "stove, stovetop oven, stove top oven, pizza oven",
    "toaster": "",
    "sink": "washbasin, wash basin",
    "refrigerator": "fridge, freezer",
    "book": "comic book",
    "clock": "alarm clock, wall clock, clock tower",
    "vase": "",
    "scissors": "",
    "teddy bear": "teddy, stuffed bear",
    "hair drier": "hair dryer, hairdryer, blow dryer",
    "toothbrush": "tooth brush",
}
CATEGORIES = tuple(_WORDS)

# Phrases that hold a listed word but name no object of its category.
_NOT_OBJECTS = (
    "train track, train station, train line, train platform, bus stop, bus station, bus lane, car park, "
    "cable car, jet ski, bike lane, bike path, bike rack, zebra crossing, bird feeder, bird house, bird "
    "cage, dog house, dog bed, prairie dog, rocking horse, sea horse, gummy bear, railroad tie, tie dye, "
    "ski lift, ski slope, ski resort, ski pole, ski jacket, ski mask, mouse pad, phone booth, table "
    "tennis, flower bed, river bed, toilet paper, toilet brush, apple pie, apple juice, apple tree, apple "
    "watch, apple computer, orange juice, orange tree, orange peel, pizza box, pizza cutter, cup holder, "
    "cake stand, book shelf, book case, book store, remote area, remote location, fork lift, world cup"
)

_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
_OF_ANIMALS = ("baby", "adult", "mother")  # "a baby elephant" is no person

_COLOURS = {
    "white", "black", "red", "blue", "green", "yellow", "brown", "gray", "grey", "purple", "pink", "gold",
    "silver", "tan", "beige",
}  # fmt: skip
_AFTER_FRUIT = {
    "and", "or", "in", "on", "at", "is", "are", "was", "were", "can", "with", "next", "near", "to", "of",
    "under", "above", "below", "beside", "behind", "between", "from", "for", "by", "sit", "lie", "which",
    "that", "there", "slice", "half", "segment", "fruit",
}  # fmt: skip

_IRREGULAR = {
    "men": "man", "women": "woman", "people": "person", "persons": "person", "children": "child",
    "mice": "mouse", "geese": "goose", "oxen": "ox", "knives": "knife", "wives": "wife", "calves": "calf",
    "buses": "bus", "skis": "ski", "taxis": "taxi", "tvs": "tv", "policemen": "policeman",
    "firemen": "fireman", "gentlemen": "gentleman", "businessmen": "businessman",
}  # fmt: skip
_TOKEN = re.compile(r"([^\W\d_]+)(?:['\u2019]s\b)?")
_JOINT = re.compile(r"\s+|-")


def words_for(name: str) -> tuple[str, ...]:
    """The other words for a category, as they are listed."""
    return tuple(filter(None, map(str.strip, _WORDS[name].split(","))))


class Mention(NamedTuple):
    """A category named in a text: `word` is text[start:end] as written."""

    name: str
    start: int
    end: int
    word: str


def find_objects(text: str) -> list[Mention]:
    """Every mention of a COCO category in `text`, in order; repeats count.

    Case and plural don't matter, the longest listed phrase wins ("hot dog" is no dog), and "orange" counts
    only where it isn't a colour.
    """
    tokens = list(_TOKEN.finditer(text))
    words = [singular(token[1].lower()) for token in tokens]
    joined = [bool(_JOINT.fullmatch(text[a.end() : b.start()])) for a, b in pairwise(tokens)] + [False]
    phrases, longest = _phrases()
    mentions = []
    at = 0
    while at < len(tokens):
        for length in range(min(longest, len(tokens) - at), 0, -1):
            phrase = tuple(words[at : at + length])
            if phrase in phrases and all(joined[at : at + length - 1]):
                break
        else:
            at += 1
            continue
        name = phrases[phrase]
        start, end = tokens[at].start(), tokens[at + length - 1].end(1)
        colour = phrase == ("orange",) and text[start:end].lower() == "orange" and _is_colour(words, joined, at)
        if name is not None and not colour:
            mentions.append(Mention(name, start, end, text[start:end]))
        at += length
    return mentions


def singular(word: str) -> str:
    """An English lower-case noun without its plural ending; words that aren't plurals come back unchanged."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1]


def _is_colour(words: list[str], joined: list[bool], at: int) -> bool:
    after = words[at + 1] if joined[at] else ""
    if after == "and" and at + 2 < len(words) and words[at + 2] in _COLOURS:
        return True
    if at and joined[at - 1] and words[at - 1] in {"is", "are", "bright", "dark", "light"}:
        return True
    return bool(after) and after not in _AFTER_FRUIT


@cache
def _phrases() -> tuple[dict[tuple[str, ...], str | None], int]:
    """Singular phrase -> category (None: no object), and the number of words of the longest phrase."""
    table: dict[tuple[str, ...], str | None] = dict.fromkeys(map(_key, _NOT_OBJECTS.split(",")))
    for name in CATEGORIES:
        for phrase in (name, *words_for(name)):
            table[_key(phrase)] = name
            if name in _ANIMALS:
                table |= {(age, *_key(phrase)): name for age in _OF_ANIMALS}
    return table, max(map(len, table))


def _key(phrase: str) -> tuple[str, ...]:
    return tuple(singular(word) for word in phrase.split())
