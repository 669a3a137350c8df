"""Keys of services, private keys and assigned secrets; all values are made up here, in pieces."""

import pytest

from loralab.data.privacy.credentials import find_secrets

MIXED = "aB3dE5fG7h" * 4
BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 3
KEYS = [
    "AKIA" + "QZ2345" + "ABCDEFGHIJ",
    "ASIA" + "QZ2345" + "ABCDEFGHIJ",
    "gh" + "p_" + MIXED[:36],
    "github" + "_pat_" + MIXED,
    "sk" + "-" + MIXED,
    "sk" + "-proj-" + MIXED,
    "sk" + "-ant-api03-" + MIXED,
    "xox" + "b-" + "123456789012-" + MIXED[:20],
    "AI" + "za" + MIXED[:35],
    "sk" + "_live_" + MIXED[:24],
    "hf" + "_" + MIXED[:34],
    "ey" + "J" + MIXED[:20] + ".ey" + "J" + MIXED[:30] + "." + MIXED[:25],
    "-----BEGIN " + f"RSA PRIVATE KEY-----\n{BODY}\n-----END " + "RSA PRIVATE KEY-----",
    "-----BEGIN " + f"PRIVATE KEY-----\nProc-Type: 4\n{BODY}\n-----END " + "PRIVATE KEY-----",
    "-----BEGIN " + f"PRIVATE KEY-----\n{BODY}",
]
RANDOM = "x9" + "Kq" + "7!vR" + "2m"


def found(text: str) -> list[str]:
    return [text[start:end] for start, end in find_secrets(text)]


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_services_are_found(key: str) -> None:
    assert found(f"use {key}") == [key]
    assert found(f'key "{key}".') == [key]


@pytest.mark.parametrize(
    "text",
    [
        f"password = {RANDOM}",
        f"PASSWORD: {RANDOM}.",
        f'{{"api_key": "{RANDOM}"}}',
        f"export DB_PASSWORD='{RANDOM}'",
        f"client-secret := {RANDOM}",
        f"access_token => '{RANDOM}'",
        f"pwd={RANDOM};",
        f"private_key: `{RANDOM}`",
    ],
)
def test_of_an_assignment_the_value_is_found(text: str) -> None:
    assert found(text) == [RANDOM]


@pytest.mark.parametrize(
    "text",
    [
        "password = hunter2horse7Q",
        "PASSWORD: Tr0ub4dor&3",
        "passwd: 7hG!kd92",
        "secret = 'Zx81qLm92pTr'",
        "pwd=q1w2e3r4t5y6u7",
        '"token": "a1b2c3d4e5f6a7b8c9"',
        "password: Correct2Horse",
    ],
)
def test_values_that_look_random_are_found(text: str) -> None:
    (value,) = found(text)
    assert value == text.rstrip("'\"").replace("'", " ").replace('"', " ").replace("=", " ").split()[-1]


def test_a_long_hexadecimal_value_counts() -> None:
    value = "9f86d081" + "884c7d65"
    assert found(f"auth_key={value}") == [value]


@pytest.mark.parametrize(
    "text",
    [
        "the password: correcthorse",
        "password = 'password123A'",
        "api_key = 'YOUR_API_KEY_1a'",
        "token = tokenizer.encode_plus2(text)",
        "secret = os.environ['A1b2C3d4E5']",
        "api_key = config.Keys.API_V2x",
        "password = ${DB_PASS_1aB2}",
        "key: C major in 4/4",
        "Token: 2023-01-01T00:00:00",
        "the risk-adjusted-return-2020-report-value",
        "pip install sk-learn-compatible-estimators",
        "AKIA1234",
        "hf_transfer and hf_hub_download",
        "-----BEGIN " + "PRIVATE KEY-----\n...\n-----END " + "PRIVATE KEY-----",
        "-----BEGIN "
        + "PRIVATE KEY-----\n(put the whole of your own key in here)\n-----END "
        + "PRIVATE KEY-----",
        "-----BEGIN " + f"PUBLIC KEY-----\n{BODY}\n-----END " + "PUBLIC KEY-----",
        "password must have 8 characters: Aa1!",
        "token: [SECRET]",
        "password = word",
        "password = sunflower",
        "tokenizer: GPT2TokenizerFast",
        "token=eosToken2Id",
        "client_key = clientKey2024",
        "token_url=api/v2/Oauth3",
        "private_key_path: /home/User1/key2.pem",
        "secret_name: my-App-1-Prod",
        "passwordField: Field2Name",
        "api_key_header: X-Api-Key-2024",
    ],
)
def test_examples_and_code_are_left_alone(text: str) -> None:
    assert found(text) == []
