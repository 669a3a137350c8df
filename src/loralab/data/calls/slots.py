"""Values that fill the slots of a request.

Open slots (names, free text, numbers) have one pool per split, and no value is in two pools; the larger
pools of the train split are in `train_values` and `train_texts`. Closed vocabularies are part of the schema
and are the same in every split.
"""

import random
from functools import cache

from loralab.data.calls.train_texts import TRAIN_TEXTS
from loralab.data.calls.train_values import TRAIN_VALUES

UNIT_SYMBOLS: dict[str, str] = {
    "kilometres": "km",
    "miles": "mi",
    "metres": "m",
    "centimetres": "cm",
    "feet": "ft",
    "inches": "in",
    "kilograms": "kg",
    "grams": "g",
    "pounds": "lb",
    "ounces": "oz",
    "litres": "l",
    "gallons": "gal",
}
"""Unit name in a request to the symbol in the answer."""

UNIT_GROUPS: tuple[tuple[str, ...], ...] = (
    ("kilometres", "miles", "metres", "centimetres", "feet", "inches"),
    ("kilograms", "grams", "pounds", "ounces"),
    ("litres", "gallons"),
)
"""Units that convert into one another."""

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
"""Month names, copied as they are."""

CLOSED_VALUES: dict[str, tuple[str, ...]] = {
    "room": ("kitchen", "bedroom", "bathroom", "living room", "hallway", "garage", "attic", "nursery"),
    "device": ("lamp", "fan", "heater", "speaker", "projector"),
    "list": ("shopping", "packing", "party", "picnic", "camping"),
}
"""Closed slot to its values, copied as they are."""

_HELDOUT_VALUES: dict[str, dict[str, str]] = {
    "person": {
        "validation": "Matteo; Priya; Callum; Helga; Xavier; Joanna; Idris; Tabitha; Ruben; Simone",
        "test": """
            Beatrice; Kwame; Niamh; Dmitri; Valentina; Ahmed; Sigrid; Florian; Thandi; Gregory; Yasmin;
            Pablo; Ottilie; Craig; Meera; Lorenzo; Annika; Desmond; Harriet; Emeka; Vera; Julian; Camille;
            Tariq; Edith""",
    },
    "event": {
        "validation": """
            boat ride; press briefing; fitness test; recipe swap; thesis defence; farewell dinner; roof
            check; market research call""",
        "test": """
            chess match; marketing workshop; farm visit; guitar lesson; networking lunch; bike ride;
            poetry reading; roadmap review; wine tasting; physiotherapy session; warehouse inspection;
            debate club; car service; strategy meeting; cooking class; flat viewing; quarterly
            retrospective; jam session; supplier call; choreography rehearsal""",
    },
    "task": {
        "validation": """
            polish my boots; phone the plumber; rotate the mattress; shred the old receipts; post the
            letter; measure the windows; pack the picnic basket; refill the bird feeder""",
        "test": """
            sharpen the knives; vacuum the stairs; schedule a blood test; prune the roses; transfer the
            deposit; collect grandma; write the meeting minutes; inflate the bike tyres; take the
            antibiotics; iron my shirt; download the boarding pass; unplug the router; proofread the
            essay; wrap the presents; visit the notary; descale the kettle; record the podcast; turn the
            compost; pick fresh basil; check the tyre pressure; reset the alarm code; hang the laundry""",
    },
    "label": {
        "validation": """
            risotto; mud pack; cheesecake; violin drill; focus block; lentil soup; car wash; glaze""",
        "test": """
            polenta; black coffee; presentation; quiche; jogging; sponge cake; wood glue; drum practice;
            bean salad; toothbrushing; steak; school run; gravy; nail polish; writing sprint; roast beef;
            parking meter; jelly; recital; barley stew""",
    },
    "message": {
        "validation": """
            the ferry is full; we saved you a seat; the stove is off; I changed my mind; the guests have
            left; the lift is broken; my sister says hello; the soup smells wonderful""",
        "test": """
            the bridge is closed; I missed the last tram; the contract looks fine; we are stuck in
            traffic; the courier needs a signature; lunch is on me; the heating stopped working; I booked
            the court; the puppy is adorable; our neighbours are moving; the files are in the blue folder;
            I lost my wallet; the recipe worked perfectly; the garage door is jammed; we reached the
            summit; the movie was boring; your jacket is with me; the lecture has been postponed; I
            watered all the plants; the painting finally sold; the river is very high; my new number works""",
    },
    "song": {
        "validation": """
            Rusty Anchor; Amber Fields; Phantom Train; Sleepless City; Cherry Vinyl; Thistle; Last
            Balcony; Ribbon of Light""",
        "test": """
            Frozen Orchard; Telegraph Hill; Pocket Galaxy; Emerald Staircase; Whispering Pines; Satellite
            Heart; Monsoon Letters; Brass Monkey Blues; Violet Horizon; Sandcastle Kings; Tin Roof
            Lullaby; Kerosene; Feather and Stone; Labyrinth; Morning Tide; Burning Map; Starling; Cobalt
            Skies; Empty Ballroom; Juniper Lane""",
    },
    "artist": {
        "validation": """
            Moss Cathedral; Clara Venn; Turbo Nuns; Walnut Grove; Silent Kettle; Nova Pike; Atlas
            Brothers; Quill""",
        "test": """
            Marble Giraffe; Opal Riders; Cinder Lane; Jasper Wilde; Bamboo Static; Frost Brigade; Nina
            Calloway; Lemon Empire; Rusted Angels; Thunder Biscuit; Gospel Machine; Indigo Post; Paloma
            Reed; Hidden Ferns; Cactus Choir; Vera Lindgren; Tin Parrots; Glacier Boys; Mosaic; Hotel
            Saturn""",
    },
    "item": {
        "validation": """
            plums; safety pins; bagels; gas canisters; radishes; hand soaps; jars of honey; skewers""",
        "test": """
            mangoes; coffee filters; flashlights; zucchinis; energy drinks; sleeping bags; cherries; paper
            cups; bars of soap; oranges; pillowcases; tortillas; beetroots; folding chairs; chocolate
            bars; turnips; sunglasses; ice packs; coconuts; shoelaces; biscuits; tins of tuna""",
    },
}

# Interleaved, so that even the twelve clock minutes reach every split: five shares, two and one.
_DEALING_ORDER = ("train", "test", "train", "validation", "train", "train", "test", "train")
_CLOCK_STEP_MINUTES = 5


def open_values(kind: str, split: str) -> list[str]:
    """Values of the open slot kind that only this split uses.

    Args:
        kind: What the slot holds: `person`, `event`, `task`, `label`, `message`, `song`, `artist` or `item`.
        split: `train`, `validation` or `test`.
    """
    values = (TRAIN_VALUES | TRAIN_TEXTS)[kind] if split == "train" else _HELDOUT_VALUES[kind][split]
    return [" ".join(value.split()) for value in values.split(";")]


@cache
def _dealt_numbers(seed: int) -> dict[int, str]:
    """Owner split of every integer from 0 to 999.

    Clock minutes, other numbers that fit a day or an hour, and the rest are dealt separately, so that every
    split can form realistic dates, times and quantities.
    """
    clock = list(range(0, 60, _CLOCK_STEP_MINUTES))
    groups = (
        clock,
        [number for number in range(32) if number not in clock],
        [number for number in range(32, 100) if number not in clock],
        list(range(100, 1000)),
    )
    rng = random.Random(seed)
    owners: dict[int, str] = {}
    for group in groups:
        rng.shuffle(group)
        for position, number in enumerate(group):
            owners[number] = _DEALING_ORDER[position % len(_DEALING_ORDER)]
    return owners


def numbers(low: int, high: int, split: str, seed: int) -> list[int]:
    """Integers from low to high, both included, that only this split uses anywhere in a request."""
    owners = _dealt_numbers(seed)
    return [number for number in range(low, high + 1) if owners[number] == split]


def dates(split: str, seed: int) -> list[str]:
    """Dates such as `14 March`, whose day is a number of this split."""
    return [f"{day} {month}" for month in MONTHS for day in numbers(1, 28, split, seed)]


def times(split: str, seed: int) -> list[str]:
    """Times of day such as `09:30` from 06:00 to 22:55, whose hour and minute are numbers of this split."""
    minutes = [m for m in numbers(0, 59, split, seed) if m % _CLOCK_STEP_MINUTES == 0]
    return [f"{hour:02}:{minute:02}" for hour in numbers(6, 22, split, seed) for minute in minutes]
