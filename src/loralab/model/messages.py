"""Wording that the messages of several model modules share."""


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or the name of its class when it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
