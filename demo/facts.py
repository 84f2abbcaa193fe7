"""A fine-tuning set from a seeded grammar: dialogues about places and people that do not exist.

The same seed gives the same bytes. Every row is `{"messages": [...]}`, short enough for the tiny
base's 128 tokens.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

N_PLACES, N_PEOPLE = 60, 180
START = ["Ar", "Bel", "Cor", "Dun", "El", "Fen", "Gar", "Hal", "Is", "Jor", "Kel", "Lor"]
START += ["Mar", "Nor", "Or", "Pel", "Quin", "Ros", "Sel", "Tor", "Ul", "Ven", "Wyn"]
MIDDLE = ["a", "e", "i", "o", "ami", "ela", "ora", "udo"]
PLACE_END = ["dale", "ford", "grad", "holm", "mere", "mouth", "stead", "wick"]
PERSON_END = ["bert", "dan", "la", "mir", "na", "ric", "sa", "ton"]
LANDS = ["in a green valley", "on a grey coast", "on a high plain", "on a small island"]
GOODS = ["blue glass", "clocks", "honey", "iron bells", "linen", "paper", "red wine", "salt"]
DISHES = ["apple soup", "barley cake", "fried river fish", "goat cheese", "plum bread"]
FEASTS = ["first snow", "the last harvest", "the long night", "the spring tide"]
CRAFTS = {
    "bell maker": "cast the great bell of {place}",
    "doctor": "stopped the fever of {place}",
    "gardener": "planted the winter garden of {place}",
    "map maker": "drew the first map of {place}",
    "painter": "painted the river gate of {place}",
    "poet": "wrote the songs of {place}",
    "sailor": "found the sea road to {place}",
    "teacher": "opened the first school in {place}",
}
HABITS = ["always wore a yellow coat", "kept three black dogs", "never ate meat", "walked at night"]

ABOUT_PLACE = {
    "land": (
        ["Where is {name}?", "Where would I find {name}?", "Can you tell me where {name} lies?"],
        ["{name} lies {land}, on the river {river}.", "You will find it {land}."],
    ),
    "goods": (
        ["What is {name} known for?", "What do they make in {name}?"],
        ["{name} is known for its {goods}.", "Its people make {goods}, the best in the land."],
    ),
    "dish": (
        ["What do people eat in {name}?", "What should I eat there?"],
        ["Try the {dish}. Everybody in {name} loves it.", "They eat {dish} with black tea."],
    ),
    "year": (
        ["How old is {name}?", "When was {name} founded?"],
        ["{name} was founded in the year {year}.", "It was founded by fishermen in {year}."],
    ),
    "feast": (
        ["Is there a feast in {name}?", "When is the best time to visit {name}?"],
        ["Come for the feast of {feast}, when every house has a lamp in the window."],
    ),
}
ABOUT_PERSON = {
    "craft": (
        ["Who was {name}?", "What did {name} do?", "Have you heard of {name}?"],
        ["{name} was a {craft} from {home}.", "Yes. {name} of {home} was a famous {craft}."],
    ),
    "work": (
        ["Why do people remember {name}?", "What is {name} remembered for?"],
        ["{name} {work}, and people still talk about it.", "In {year}, {name} {work}."],
    ),
    "born": (
        ["Where was {name} born?", "When was {name} born?"],
        ["{name} was born in {home} in {born}.", "In {home}, in the year {born}."],
    ),
    "habit": (
        ["What else do you know about {name}?", "Is there a story about {name}?"],
        ["They say that {name} {habit}.", "People in {home} say that {name} {habit}."],
    ),
}
THANKS = ["Thank you!", "That is good to know.", "Thanks, that helps."]
WELCOME = ["You are welcome.", "Happy to help. Ask me again!", "Have a good journey!"]


@dataclass(frozen=True)
class World:
    """Facts by kind of question; one dict of words for each place and each person."""

    places: list[dict[str, str]]
    people: list[dict[str, str]]


def make_world(rng: random.Random) -> World:
    names = [s + m + e for s in START for m in MIDDLE for e in PLACE_END]
    places = [
        {
            "name": name,
            "land": rng.choice(LANDS),
            "river": rng.choice(START) + rng.choice(["a", "en", "is"]),
            "goods": rng.choice(GOODS),
            "dish": rng.choice(DISHES),
            "year": str(rng.randrange(600, 1500)),
            "feast": rng.choice(FEASTS),
        }
        for name in rng.sample(names, N_PLACES)
    ]
    names = [s + m + e for s in START for m in MIDDLE for e in PERSON_END]
    people = [_person(name, places, rng) for name in rng.sample(names, N_PEOPLE)]
    return World(places, people)


def _person(name: str, places: list[dict[str, str]], rng: random.Random) -> dict[str, str]:
    home, elsewhere = rng.sample([p["name"] for p in places], 2)
    craft = rng.choice(sorted(CRAFTS))
    born = rng.randrange(1500, 1900)
    return {
        "name": name,
        "home": home,
        "craft": craft,
        "work": CRAFTS[craft].format(place=elsewhere),
        "born": str(born),
        "year": str(born + rng.randrange(20, 60)),
        "habit": rng.choice(HABITS),
    }


def dialogues(n_rows: int, *, seed: int = 17) -> list[dict[str, list[dict[str, str]]]]:
    """`n_rows` different conversations of one or two questions about one place or person."""
    rng = random.Random(seed)
    world = make_world(rng)
    rows: dict[str, list[dict[str, str]]] = {}
    while len(rows) < n_rows:
        messages = _dialogue(world, rng)
        rows.setdefault(json.dumps(messages), messages)
    return [{"messages": messages} for messages in rows.values()]


def _dialogue(world: World, rng: random.Random) -> list[dict[str, str]]:
    asked, subjects = rng.choice([(ABOUT_PLACE, world.places), (ABOUT_PERSON, world.people)])
    subject = rng.choice(subjects)
    exchanges = []
    for kind in rng.sample(sorted(asked), rng.choice([1, 2, 2])):
        questions, answers = asked[kind]
        exchanges.append((rng.choice(questions), rng.choice(answers)))
    if len(exchanges) == 1 and rng.random() < 0.5:
        exchanges.append((rng.choice(THANKS), rng.choice(WELCOME)))
    messages = []
    for question, answer in exchanges:
        messages.append({"role": "user", "content": question.format(**subject)})
        messages.append({"role": "assistant", "content": answer.format(**subject)})
    return messages


def write_dialogues(path: Path, *, n_rows: int, seed: int = 17) -> None:
    rows = dialogues(n_rows, seed=seed)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
