"""Values that fill the slots of a request.

Open slots (names, free text, numbers) have one pool per split, and no value is in two pools. Closed
vocabularies are part of the schema and are the same in every split.
"""

import random
from functools import cache

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

_OPEN_VALUES: dict[str, dict[str, str]] = {
    "person": {
        "train": """
            Maria; Tomas; Aisha; Kenji; Ingrid; Paulo; Fatima; Declan; Yuki; Sandra; Omar; Greta; Felix;
            Nadia; Marcus; Leila; Henrik; Chloe; Rajesh; Bianca; Stefan; Amara; Victor; Hannah; Diego;
            Sofia; Liam; Mei; Andre; Freya; Hugo; Zainab; Peter; Lucia; Anton; Rosa; Samuel; Elif; Jonas;
            Carmen; Ethan; Noor; Gavin; Teresa; Ivan; Bridget; Malik; Astrid; Oscar; Wendy""",
        "validation": "Matteo; Priya; Callum; Helga; Xavier; Joanna; Idris; Tabitha; Ruben; Simone",
        "test": """
            Beatrice; Kwame; Niamh; Dmitri; Valentina; Ahmed; Sigrid; Florian; Thandi; Gregory; Yasmin;
            Pablo; Ottilie; Craig; Meera; Lorenzo; Annika; Desmond; Harriet; Emeka; Vera; Julian; Camille;
            Tariq; Edith""",
    },
    "event": {
        "train": """
            budget review; team lunch; project kickoff; design workshop; sales call; dentist visit; piano
            lesson; tennis match; coffee break; birthday dinner; code review; parent meeting; house tour;
            job interview; yoga class; walk in the woods; movie night; contract signing; hiring panel;
            product demo; planning session; hiking trip; safety drill; wedding rehearsal; museum tour;
            client breakfast; vet checkup; swim practice; tax consultation; game night; status update;
            haircut; road test; lab meeting; garden party; choir rehearsal; Spanish class; photo shoot;
            bank appointment; book club""",
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
        "train": """
            water the ferns; call the bank; pay the rent; take out the bins; renew my passport; feed the
            cat; book the flights; pick up the dry cleaning; charge the camera; send the invoice; buy
            stamps; return the library books; check the oven; cancel the gym membership; back up my
            laptop; walk the dog; order new glasses; clean the fish tank; print the tickets; wash the
            curtains; email the landlord; take my vitamins; change the bed sheets; collect the parcel;
            read the lease; defrost the chicken; sign the permission slip; replace the smoke alarm
            battery; mow the lawn; submit the expense report; thank my aunt; empty the dishwasher; review
            the slides; lock the shed; update my resume; move the car; stretch my back; bake the birthday
            cake; fix the leaking tap; confirm the hotel""",
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
        "train": """
            pasta; rice; green tea; yoga; laundry; bread dough; plank hold; piano practice; chicken; oven
            pizza; face mask; meditation; homework; soup; banana bread; hair dye; reading; dryer;
            stretching; lasagne; leek tart; power nap; study break; sourdough; cold brew; screen time;
            porridge; quiz round; broth; apple pie; warm-up; sauna; ice bath; marinade; salmon; speech;
            floor wax; pancake batter; board game; standup""",
        "validation": """
            risotto; mud pack; cheesecake; violin drill; focus block; lentil soup; car wash; glaze""",
        "test": """
            polenta; black coffee; presentation; quiche; jogging; sponge cake; wood glue; drum practice;
            bean salad; toothbrushing; steak; school run; gravy; nail polish; writing sprint; roast beef;
            parking meter; jelly; recital; barley stew""",
    },
    "message": {
        "train": """
            the train is delayed; dinner is ready; the keys are under the mat; I am running late; the
            meeting moved upstairs; we landed safely; the package arrived this morning; I left the door
            open; the car is parked outside; my phone is almost dead; we are out of milk; the plumber is
            here; I found your scarf; the concert was amazing; your order is ready; I will bring dessert;
            the baby is asleep; the printer works again; we won the game; my flight got cancelled; the
            tickets are sold out; I passed the exam; the dog needs a walk; the report is finished; our
            table is booked; it is snowing here; the wifi password changed; I forgot my umbrella; the bus
            just left; the kids are already home; the cake turned out great; I like the new design; the
            shop closes early; we need more chairs; your mother called twice; the power is back; I signed
            the papers; the view is beautiful; the doctor can see us now; the paint is still wet""",
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
        "train": """
            Silver Lanterns; Midnight Ferry; Paper Boats; Golden Hour Drive; Echo Valley; Broken Compass;
            Summer Static; Northern Rain; Glass Garden; Velvet Sunday; Hollow Moon; Distant Thunder;
            Crimson Sail; Wildflower Road; Slow Burn; Falling Upward; Neon Rivers; Winter Postcard;
            Gravity Waltz; Lost Signal; Ocean Avenue Blues; Candle Smoke; Runaway Sky; Dust and Diamonds;
            Quiet Machine; Lighthouse Keeper; Borrowed Time; Desert Bloom; Blue Umbrella; Saturday Ghost;
            Copper Wings; Homeward; Little Earthquake; Marble Halls; Shadow Parade; Tangerine Dream Girl;
            Umbra; Carousel; Sugar Rush; Cold Harbour""",
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
        "train": """
            Copper Meadow; Luna Parade; Nightjar; Stone Cartel; Velvet Foxes; Harbor Lights Trio; Mira
            Solano; Electric Plum; Dusty Pilots; Ivory Choir; Polar Kin; Jade Mercer; Sunday Robots; Fable
            Street; Iron Willow; Cass Holloway; Pink Turbine; Orchid Club; Wolf Theory; Delta Bloom; Mono
            Lake; Tessa Grand; Holy Socks; Canyon Radio; Theo Marsh; Bright Arcade; Salt Sisters; Kite
            District; Hazel Quartet; Lazy Comets; Rook; Vanta Pop; Ezra Finch; Tidal Mint; Plastic Crown;
            Ada Nightingale; Odd Socks Orchestra; Magnet Youth; Pepper Kings; Zephyr""",
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
        "train": """
            limes; paper towels; eggs; batteries; candles; tomatoes; trash bags; bananas; tea bags; light
            bulbs; apples; paper plates; onions; water bottles; napkins; avocados; granola bars; sponges;
            lemons; carrots; wool socks; plastic cups; yogurts; garlic bulbs; tent pegs; cucumbers;
            croissants; matches; peaches; balloons; bread rolls; mushrooms; sandwiches; blankets; juice
            boxes; toothbrushes; bell peppers; pears; wooden spoons; cans of beans; potatoes; notebooks;
            face towels; straws; muffins""",
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
    return [" ".join(value.split()) for value in _OPEN_VALUES[kind][split].split(";")]


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
