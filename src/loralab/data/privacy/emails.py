"""E-mail addresses."""

import re

# Letters of Latin scripts: a wider class would take the Chinese words before an address into its name.
_LATIN = "A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_LOCAL_PART = re.compile(rf"(?<![{_LATIN}@._%+'-])[{_LATIN}._%+'-]{{1,64}}+@")
_DOMAIN = re.compile(
    rf"(?:[{_LATIN}](?:[{_LATIN}-]{{0,61}}[{_LATIN}])?\.){{1,8}}(xn--[A-Za-z0-9-]{{1,58}}[A-Za-z0-9]|[A-Za-z]{{2,24}})"
    rf"(?![{_LATIN}_@(]|-[{_LATIN}])"
)
_BORDER = "._%+'-"
# What an @ stands before in file names such as icon@2x.png; none is a top-level domain.
_FILE_ENDINGS = ("css", "gif", "html", "ico", "jpeg", "jpg", "js", "json", "pdf", "png", "svg", "txt", "webp")


def find_emails(text: str) -> list[tuple[int, int]]:
    """Returns the spans of e-mail addresses: a name, an @ and a domain with a top level of letters.

    Of what RFC 5322, section 3.4.1, allows in a name, letters, digits and `._%+'-` are read. Handles
    (`@name@server.org`), the `git@host:` of repositories, and files such as `icon@2x.png` are no addresses.
    """
    if "@" not in text:
        return []
    spans = []
    for local in _LOCAL_PART.finditer(text):
        at = local.end() - 1
        domain = _DOMAIN.match(text, local.end())
        name = text[local.start() : at].lstrip(_BORDER)
        if not domain or not name or name[-1] in ".'" or ".." in name:
            continue
        is_file = domain[1].lower() in _FILE_ENDINGS
        is_repository = name == "git" and text.startswith(":", domain.end())
        if not is_file and not is_repository:
            spans.append((at - len(name), domain.end()))
    return spans
