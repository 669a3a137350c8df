"""Request templates of the train split; no other split uses any of them.

Every call has 50 phrasings. Slots that are easily swapped come in either order equally often (date and time,
source and target unit, title and artist), so that a value is told by its form and wording, not its position.
"""

from loralab.data.calls import train_home_templates as home
from loralab.data.calls import train_planning_templates as planning

TRAIN_TEMPLATES: dict[str, tuple[str, ...]] = {
    "create_event": planning.CREATE_EVENT,
    "set_reminder": planning.SET_REMINDER,
    "set_timer": planning.SET_TIMER,
    "convert_units": home.CONVERT_UNITS,
    "set_level": home.SET_LEVEL,
    "send_message": planning.SEND_MESSAGE,
    "play_music": home.PLAY_MUSIC,
    "add_to_list": home.ADD_TO_LIST,
}
