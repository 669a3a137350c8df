"""Request templates of the validation and test splits, worded unlike those of the train split.

Once the slots are blanked out, no test template shares four successive words with a train template, and no
validation template five.
"""

VALIDATION_TEMPLATES: dict[str, tuple[str, ...]] = {
    "create_event": (
        "There will be a {title} with {person}, {date}, {time}. Please get it into the calendar.",
        "Plan a {title} for {person} and me: {date}, {time}.",
        "Mark {date}, {time}, as a {title} with {person}.",
        "How about we fix a {title} with {person}, {time}, {date}?",
    ),
    "set_reminder": (
        "Schedule a reminder telling me to {text}, {time}, {date}.",
        "I'd hate to miss this: {text}. Remind me {date}, {time}.",
        "Please keep me honest and remind me: {text} by {time}, {date}.",
        "When {date} arrives, make my phone remind me at {time} that I should {text}.",
    ),
    "set_timer": (
        "Count {minutes} minutes starting now and tag the timer {label}.",
        "Begin timing: {label}, {minutes} minutes in total.",
        "Sound the alarm once the {label} has had its {minutes} minutes.",
        "Do me a favour and watch the {label}; the timer says {minutes} minutes.",
    ),
    "convert_units": (
        "Help me read {value} {from} as an amount of {to}.",
        "Swap units: {value} {from} becomes how many {to}?",
        "In {to}, {value} {from} equals what?",
        "Show the figure {value} {from} again but with {to} instead.",
    ),
    "set_level": (
        "Bump the {device} over in the {room} so it reads {level} percent.",
        "How about {level}% for the {room} {device}?",
        "Somebody is sitting in the {room}; give the {device} {level} percent.",
        "Let's have {level} percent from the {device} that is in the {room}.",
    ),
    "send_message": (
        "Shoot {to} a text: {text}",
        "Please notify {to} by message that {text}.",
        'Type "{text}" and send it over to {to}.',
        "Get in touch with {to} and mention that {text}.",
    ),
    "play_music": (
        "Get {artist} going, specifically the tune {title}.",
        "Crank up that {title} tune {artist} wrote.",
        'Switch the music over to "{title}" performed by {artist}.',
        "Might we have {title}? {artist} recorded it.",
    ),
    "add_to_list": (
        "Include {quantity} {item} when you update the {list} list.",
        "Please jot {item} down, {quantity} in total, {list} list.",
        "Extend my {list} list: {item}, quantity {quantity}.",
        "Make sure {quantity} {item} end up in the {list} list.",
    ),
}

TEST_TEMPLATES: dict[str, tuple[str, ...]] = {
    "create_event": (
        "Pencil {person} in: {title}, day {date}, hour {time}.",
        "Reserve {time} of {date} for my {title}; the guest is {person}.",
        "Is there space in my agenda? {title} alongside {person}, from {time}, {date}.",
        "My agenda needs a {title} attended by {person}, beginning {time}, dated {date}.",
        "Organise a {title} for {date}; it begins at {time} and {person} attends.",
        "Kindly enter this meeting: {title}, together with {person}, {time}, {date}.",
        "Set aside {date} from {time} onwards, since {person} and I hold a {title}.",
    ),
    "set_reminder": (
        "My memory is terrible: prompt me to {text} when it is {time}, {date}.",
        "Alert me {date}, {time} sharp, because I have promised to {text}.",
        "Is a reminder possible? Task: {text}. Day: {date}. Hour: {time}.",
        "Jog my memory, {date}, {time} precisely: {text}.",
        "Once it's {time} during {date}, nag me until I {text}.",
        "It slips my mind to {text}, so buzz me {date}, {time}.",
        'Leave me a reminder that reads "{text}" and goes off {time}, {date}.',
    ),
    "set_timer": (
        "Kick off a countdown: it's the {label}, lasting {minutes} minutes.",
        "Let me know when {minutes} minutes have passed; this one is for {label}.",
        "Give the {label} exactly {minutes} minutes from now and ring afterwards.",
        'Is it possible to track {minutes} minutes using a timer titled "{label}"?',
        "{label} takes {minutes} minutes. Begin counting now.",
        "Ring a bell after {minutes} minutes, since the {label} gets no longer.",
        "I want a timer {minutes} minutes long; name: {label}.",
    ),
    "convert_units": (
        "Switch units into {to}: {value} {from}.",
        "Measured as {to}, how big is {value} {from}?",
        "Someone quoted {value} {from} yet my form wants {to}.",
        "Calculate the equivalent of {value} {from}; use {to} as the unit.",
        "I'm used to {to}; translate {value} {from}, would you?",
        "Take {value} {from} and report the amount using {to}.",
        "{value} {from} makes what when counted as {to}?",
    ),
    "set_level": (
        "Let the {room} have its {device} running with {level} percent power.",
        "Level {level} would be perfect for our {device}, the one inside the {room}.",
        "My {device} should go to {level}%; it stands next door, inside my {room}.",
        "Make {level} percent the new {device} setting for the whole {room}.",
        "For the {room}: {device} = {level}%.",
        "Is {level} percent possible for the {device} we keep in our {room}?",
        "Dial {room} {device} output over to {level} percent now.",
    ),
    "send_message": (
        'Inform {to} by text: "{text}".',
        "Pass this on to {to}: {text}.",
        "{to} is waiting for news, so write back that {text}.",
        'Is {to} reachable? Then forward these words: "{text}".',
        "Get the following across to {to}, please: {text}",
        'My note "{text}" has to reach {to} right away.',
        'Reply to {to} with "{text}" from my phone.',
    ),
    "play_music": (
        'Stream "{title}" as recorded by {artist}.',
        "My favourite band, {artist}, has a tune named {title}; start it.",
        'Time for music: {artist} singing "{title}", please.',
        "Is there a copy of {title} around? I mean what {artist} recorded. Let it play.",
        "Fill the house using {title}, the {artist} track.",
        "Spin {title}, that one {artist} made.",
        'Let\'s dance to {artist} while they perform "{title}".',
    ),
    "add_to_list": (
        "Expand my {list} list by {quantity} {item}.",
        "Somebody asked for {quantity} {item}; record that under {list}.",
        "Under {list}, jot down {item}, amount {quantity}.",
        "Are {item} listed under {list} yet? Enter {quantity} there.",
        "Let's get {quantity} {item}: pop them onto that {list} list.",
        "{item} are running low, so the {list} list should have {quantity}.",
        "Append {item} ({quantity}) at the end of our {list} list.",
    ),
}
