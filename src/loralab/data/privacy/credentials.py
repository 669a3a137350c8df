"""Secrets: keys of known services, private keys, and values assigned to names such as `password`."""

import math
import re
from collections import Counter

# What a text must contain for a pattern to be tried, and the pattern.
_SERVICE_KEYS = (
    # Amazon Web Services: access key ids are base 32 after their prefix.
    ("AKIA", re.compile(r"(?<![A-Za-z0-9])AKIA[A-Z2-7]{16}(?![A-Za-z0-9])")),
    ("ASIA", re.compile(r"(?<![A-Za-z0-9])ASIA[A-Z2-7]{16}(?![A-Za-z0-9])")),
    *(
        (prefix, re.compile(rf"(?<![A-Za-z0-9]){prefix}[A-Za-z0-9]{{36,255}}(?![A-Za-z0-9])"))
        for prefix in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")
    ),
    ("github_pat_", re.compile(r"(?<![A-Za-z0-9])github_pat_[A-Za-z0-9_]{36,255}(?![A-Za-z0-9])")),
    (
        "xox",
        re.compile(r"(?<![A-Za-z0-9])xox[abeoprs]-(?=[A-Za-z-]{0,40}[0-9])[A-Za-z0-9-]{10,250}(?![\w-])"),
    ),
    ("AIza", re.compile(r"(?<![A-Za-z0-9])AIza[\w-]{35}(?![\w-])", re.ASCII)),
    ("k_live_", re.compile(r"(?<![A-Za-z0-9])[sr]k_live_[A-Za-z0-9]{16,255}(?![A-Za-z0-9])")),
    ("k_test_", re.compile(r"(?<![A-Za-z0-9])[sr]k_test_[A-Za-z0-9]{16,255}(?![A-Za-z0-9])")),
    ("hf_", re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30,60}(?![A-Za-z0-9])")),
    # JSON Web Tokens (RFC 7519): header and payload are JSON objects in base 64.
    ("eyJ", re.compile(r"(?<![\w-])eyJ[\w-]{10,4000}\.eyJ[\w-]{10,8000}\.[\w-]{10,2000}(?![\w-])", re.ASCII)),
)
# OpenAI and Anthropic: `sk-` alone also begins words such as sk-learn, so the rest must look random.
_SK_KEY = re.compile(r"(?<![\w-])sk-(?:ant-|proj-|svcacct-|admin-)?([\w-]{20,255})(?![\w-])", re.ASCII)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<name>[A-Z0-9 ]{0,24}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?P<body>(?:[^-]|-(?!----)){40,8000}+-----END (?P=name)-----|[A-Za-z0-9+/=\s\\]{40,8000}+)"
)
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/=]{40}")

_ASSIGNED_NAMES = ("pass", "pwd", "secret", "key", "token")
_ASSIGNMENT = re.compile(
    r"(?:(?P<password>passw(?:or)?d|passphrase|pwd)(?![a-z0-9_])|passw(?:or)?d|passphrase|pwd|secret|(?:api|access|auth|private|client|account|encryption)[_-]?key"
    r"|token)[a-z0-9_]{0,20}[\"'`]?\s{0,3}(?::=|=>|=|:)\s{0,3}"
    r"(?:(?P<quote>[\"'`])(?P<quoted>[^\s\"'`]{8,200})(?P=quote)|(?P<bare>[^\s\"'`,;(){}\[\]<>]{8,200}+)(?![(\[{<]))",
    re.IGNORECASE,
)
_PLACEHOLDERS = re.compile(
    r"your|example|placeholder|change|dummy|sample|pass(?:word|wd|phrase)|secret|xxx|\*\*\*|\.\.\.|12345|abcde"
    r"|\$\{|\{\{|<|^\$|^%|://|\[",
    re.IGNORECASE,
)
_WORD = re.compile("[A-Z]?[a-z]{2,}")
_VOWEL = re.compile("[aeiouy]", re.IGNORECASE)
_WORDY = re.compile(r"[A-Za-z0-9_./:-]+")
_WORDY_SHARE = 0.7
_WORDY_NUMBERS = 2
_DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(?:(?:\.|::|->)[A-Za-z_]\w*)+", re.ASCII)
_MIN_ENTROPY_BITS = 3.0
_MIN_CLASSES = 3
_MIN_LETTERS = 3
_MIN_CHARS = 8
_ALTERNATING_CHARS, _MIN_ALTERNATIONS = 10, 4
_HEXADECIMAL_CHARS = 16  # from here on letters of one case and digits will do


def find_secrets(text: str) -> list[tuple[int, int]]:
    """Returns the spans of secrets; of an assignment, that of the value alone.

    A value assigned to a name such as `api_key` counts where it looks random: at least 8 characters
    of 3 classes (lower case, upper case, digits, others), or of letters and digits from 16 characters
    on, or from 10 where they alternate four times, a Shannon entropy of its characters of at least 3 bits,
    and no word that marks an example. Words with one or two numbers, such as `GPT2TokenizerFast` or a path,
    count only where the name is `password` or one of its other spellings.
    """
    spans = [
        match.span()
        for needle, pattern in _SERVICE_KEYS
        if needle in text
        for match in pattern.finditer(text)
    ]
    if "sk-" in text:
        spans += [match.span() for match in _SK_KEY.finditer(text) if _looks_random(match.group(1))]
    if "PRIVATE KEY" in text:
        spans += _find_private_keys(text)
    if "=" in text or ":" in text:
        lower = text.lower()
        if any(name in lower for name in _ASSIGNED_NAMES):
            spans += _find_assigned(text)
    return spans


def _find_private_keys(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _PRIVATE_KEY.finditer(text) if _BASE64_RUN.search(match["body"])]


def _find_assigned(text: str) -> list[tuple[int, int]]:
    spans = []
    for match in _ASSIGNMENT.finditer(text):
        group = "quoted" if match["quoted"] else "bare"
        value = match[group]
        if group == "bare":
            value = value.rstrip(".,:!?")
            if _DOTTED_NAME.fullmatch(value):
                continue
        if not match["password"] and _is_made_of_words(value):
            continue
        if not _PLACEHOLDERS.search(value) and _looks_random(value):
            spans.append((match.start(group), match.start(group) + len(value)))
    return spans


def _is_made_of_words(value: str) -> bool:
    """Whether a value reads like a name in code or a path: mostly words that can be spoken, few numbers."""
    if not _WORDY.fullmatch(value) or len(re.findall("[0-9]+", value)) > _WORDY_NUMBERS:
        return False
    spoken = sum(len(word) for word in _WORD.findall(value) if _VOWEL.search(word))
    return spoken >= _WORDY_SHARE * sum(char.isalpha() for char in value)


def _looks_random(value: str) -> bool:
    digits = sum(char.isdigit() for char in value)
    letters = sum(char.isalpha() for char in value)
    classes = sum(
        (
            any(char.islower() for char in value),
            any(char.isupper() for char in value),
            digits > 0,
            digits + letters < len(value),
        )
    )
    alternations = len(re.findall("[0-9](?=[A-Za-z])|[A-Za-z](?=[0-9])", value))
    is_varied = (
        classes >= _MIN_CLASSES
        or (len(value) >= _HEXADECIMAL_CHARS and digits > 1)
        or (len(value) >= _ALTERNATING_CHARS and alternations >= _MIN_ALTERNATIONS)
    )
    is_mixed = digits > 0 and letters >= _MIN_LETTERS and is_varied
    return is_mixed and len(value) >= _MIN_CHARS and _entropy_bits(value) >= _MIN_ENTROPY_BITS


def _entropy_bits(value: str) -> float:
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
