"""Malformed data ends with a message that names the file and the row, or is left out and counted."""

import copy
import datetime
import gzip
import io
import json
import os
import re
import runpy
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra.core.hydra_config import HydraConfig
from transformers import PreTrainedTokenizerBase

from loralab.config.data import (
    ColumnsConfig,
    ContaminationConfig,
    DataConfig,
    PrivacyConfig,
    PromptTemplateConfig,
    QualityConfig,
    SplitConfig,
)
from loralab.data.prepare import PreparedData, prepare_data
from loralab.data.templating import set_chat_template
from loralab.errors import DataError

NUM_GOOD = 12
AFTER = 6
"""Good rows that stand before the bad one, which is the seventh."""
SURROGATE = "\ud800"
CUT_IN_HALF = 0.5
MOST_CHARS = 3000
"""Longest message."""

Row = dict[str, Any]
Good = Callable[[int], Row]


def asked(number: int) -> Row:
    return {"prompt": f"ask {number}", "completion": f"say {number}"}


def chat(number: int, **parts: Any) -> Row:
    answer = {"role": "assistant", "content": f"say {number}", **parts}
    return {"messages": [{"role": "user", "content": f"ask {number}"}, answer]}


def talk(*turns: object) -> Row:
    """An OpenAI row of turns given as pairs of role and content, or as they are."""
    made = [{"role": turn[0], "content": turn[1]} if isinstance(turn, tuple) else turn for turn in turns]
    return {"messages": made}


def share(*turns: object) -> Row:
    return {"conversations": [{"from": t[0], "value": t[1]} if isinstance(t, tuple) else t for t in turns]}


def called(**call: Any) -> Row:
    """A chat whose answer is one tool call."""
    return talk(("user", "ask"), {"role": "assistant", "content": "", "tool_calls": [call]})


GOOD: dict[str, Good] = {
    "prompt_completion": asked,
    "alpaca": lambda i: {"instruction": f"ask {i}", "output": f"say {i}"},
    "sharegpt": lambda i: share(("human", f"ask {i}"), ("gpt", f"say {i}")),
    "openai": chat,
    "question_answer": lambda i: {"question": f"ask {i}", "answer": f"say {i}"},
    "preference": lambda i: {"prompt": f"ask {i}", "chosen": f"say {i}", "rejected": "no"},
    "sharegpt_preference": lambda i: {
        **share(("human", f"ask {i}")),
        "chosen": {"from": "gpt", "value": f"say {i}"},
        "rejected": {"from": "gpt", "value": "no"},
    },
    "unpaired": lambda i: {**asked(i), "label": True},
    "text": lambda i: {"text": f"say {i}"},
    "timed": lambda i: {**asked(i), "time": f"2024-05-{i + 1:02}"},
    "grouped": lambda i: {**asked(i), "group": f"g{i // 2}"},
    "json": lambda i: {"prompt": f"ask {i}", "completion": f'"say {i}"'},
}
"""Well-formed rows of each form; the answers are `say 0` to `say 11`."""


@dataclass(frozen=True)
class Bad:
    """One bad row among good ones."""

    name: str
    row: Row | str | bytes
    """The row, or the text of its line."""
    says: str
    """Part of the message that stops, and of the reason with which the row is left out."""
    form: str = "prompt_completion"
    check: str = "invalid"
    """What the row is counted under."""
    skipped: str = ""
    """The reason where it is another once the other rows have told the form."""
    settings: dict[str, Any] = field(default_factory=dict)
    template: str = "chatml"


@dataclass(frozen=True)
class Whole:
    """A file, or a setting for its rows, that cannot be used at all."""

    name: str
    file: str
    content: bytes
    says: Sequence[str]
    settings: dict[str, Any] = field(default_factory=dict)
    names_file: bool = True


@dataclass(frozen=True)
class Other:
    """A bad row in a file that is not JSONL."""

    name: str
    file: str
    content: bytes
    place: str
    says: str
    check: str = "unreadable"


def line(row: Row | str | bytes) -> bytes:
    text = json.dumps(row) if isinstance(row, dict) else row
    return (text if isinstance(text, bytes) else text.encode()) + b"\n"


def lines(rows: Iterable[Row | str | bytes]) -> bytes:
    return b"".join(map(line, rows))


def good_rows(form: str = "prompt_completion") -> list[Row]:
    return [GOOD[form](number) for number in range(NUM_GOOD)]


def among(bad: Row | str | bytes, form: str = "prompt_completion") -> bytes:
    rows = good_rows(form)
    return lines([*rows[:AFTER], bad, *rows[AFTER:]])


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def arrow(table: pa.Table, opened: Callable[..., Any] = pa.ipc.new_file) -> bytes:
    sink = io.BytesIO()
    with opened(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, "zstd", asbytes=True))


def cut(content: bytes, share: float = CUT_IN_HALF) -> bytes:
    return content[: int(len(content) * share)]


def changed(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place:][1:]


def columns(bad: object, kind: pa.DataType | None = None) -> pa.Table:
    """Twelve good rows and, in the seventh, a bad answer."""
    answers: list[Any] = [row["completion"] for row in good_rows()]
    if isinstance(bad, bytes):
        raw = [*(answer.encode() for answer in answers[:AFTER]), bad]
        raw += [answer.encode() for answer in answers[AFTER:]]
        # Arrow does not check text that is declared to be UTF-8.
        made = pa.array(raw, pa.binary()).view(pa.string())
    else:
        made = pa.array([*answers[:AFTER], bad, *answers[AFTER:]], kind)
    return pa.table({"prompt": [f"ask {number}" for number in range(NUM_GOOD + 1)], "completion": made})


def csv_rows(bad: str, delimiter: str = ",") -> bytes:
    rows = [f"ask {number}{delimiter}say {number}" for number in range(NUM_GOOD)]
    header = f"prompt{delimiter}completion"
    return ("\n".join([header, *rows[:AFTER], bad, *rows[AFTER:]]) + "\n").encode()


def broken_offsets(opened: Callable[..., Any]) -> bytes:
    """An Arrow file whose fourth text ends far outside of the file."""
    content = arrow(pa.table({"prompt": ["ask it"] * 9, "completion": ["say it"] * 9}), opened)
    place = content.index(struct.pack("<4i", 0, 6, 12, 18)) + 12
    return content[:place] + struct.pack("<i", 0x7FFFFF00) + content[place + 4 :]


def rename(content: bytes) -> bytes:
    """Breaks the name of the second column of a table."""
    return content.replace(b"completion", b"complet\xff\xfen")


DEEP = "[" * 100_000 + "]" * 100_000
NESTED = "[" * 600 + "]" * 600
DEEP_CALL = '[{"name": "f", "arguments": {"a": %s}}]' % NESTED  # noqa: UP031
CALL = {"name": "f", "arguments": {}}
NESTED_CALL = (
    '{"messages": [{"role": "user", "content": "ask"}, '
    f'{{"role": "assistant", "content": "", "tool_calls": {DEEP_CALL}}}]}}'
)
NESTED_TOOLS = json.dumps(chat(99))[:-1] + f', "tools": [{{"name": "f", "parameters": {NESTED}}}]}}'
PAIRS = {"preference": "chosen"}
TEMPLATE = PromptTemplateConfig(user="{{ prompt }}", assistant="{{ completion }}")

LINES = [
    ("a line that is cut off", '{"prompt": "a", "completion": "b"', "broken JSON at column 34"),
    ("two rows in a line", '{"prompt": "a"}{"prompt": "b"}', "broken JSON at column 16: Extra data"),
    ("single quotes", "{'prompt': 'a'}", "broken JSON at column 2"),
    ("a trailing comma", '{"prompt": "a",}', "broken JSON at column"),
    ("no value", '{"prompt": }', "broken JSON at column 12"),
    ("a list", '["a", "b"]', "a list where an object with fields is needed"),
    ("null", "null", "null where an object with fields is needed"),
    ("a number", "5", "a number where an object with fields is needed"),
    ("a string", '"ask"', "a string where an object with fields is needed"),
    ("a byte of Latin-1", b'{"prompt": "caf\xe9", "completion": "b"}', "is not UTF-8: byte 0xe9;"),
    ("half a character", b'{"prompt": "\xe2\x82", "completion": "b"}', "is not UTF-8: byte 0xe2;"),
    ("an encoded surrogate", b'{"prompt": "\xed\xa0\x80", "completion": "b"}', "byte 0xed;"),
    ("a byte-order mark in the middle", "\ufeff" + json.dumps(asked(99)), "BOM"),
    ("NUL bytes", b"\x00" * 40, "broken JSON at column 1"),
    ("a raw control character", b'{"prompt": "a\x01", "completion": "b"}', "Invalid control character"),
    ("a bottomless list", DEEP, "JSON that cannot be read"),
    ("a number of 5000 digits", f'{{"prompt": {"9" * 5000}}}', "JSON that cannot be read"),
]
UNREADABLE = [Bad(name, row, says, check="unreadable") for name, row, says in LINES]

STRINGS = [
    Bad("a number as the prompt", {**asked(99), "prompt": 5}, "the field 'prompt' holds a number"),
    Bad("an object as the prompt", {**asked(99), "prompt": {}}, "the field 'prompt' holds an object"),
    Bad("null as the answer", {**asked(99), "completion": None}, "the field 'completion' holds null"),
    Bad("an empty answer", {**asked(99), "completion": ""}, "the assistant's text in turn 2 is empty"),
    Bad("a blank answer", {**asked(99), "completion": " \n\t"}, "the assistant's text in turn 2 is empty"),
    Bad("two answers", {**asked(99), "response": "c"}, "has both 'completion' and 'response'"),
    Bad("an answer of numbers", {**asked(99), "completion": [1]}, "a list of turns"),
    Bad("half a surrogate pair", asked(99) | {"prompt": SURROGATE}, "turn 1 holds half of a surrogate pair"),
    Bad("an empty row", {}, "line 7 has the fields none", skipped="the field 'prompt' is missing"),
    Bad("a row of another form", GOOD["alpaca"](99), "line 7 has the fields instruction, output and does not "
        "fit 'prompt_completion'", skipped="the field 'prompt' is missing"),
    Bad("a row without an answer", {"prompt": "a"}, "line 7 has the fields prompt and does not fit",
        skipped="the field 'completion' is missing"),
    Bad("a misspelt field", {"prompt": "a", "completoin": "b"}, "Did you mean 'completion'?",
        skipped="the field 'completion' is missing. Did you mean 'completoin'?"),
    Bad("no output", {"instruction": "a"}, "does not fit 'alpaca'", "alpaca",
        skipped="the field 'output' is missing"),
    Bad("a list as the instruction", {"instruction": ["a"], "output": "b"}, "'instruction' holds a list",
        "alpaca"),
    Bad("a number as the input", {**GOOD["alpaca"](99), "input": 3}, "'input' holds a number", "alpaca"),
    Bad("a text as the history", {**GOOD["alpaca"](99), "history": "x"}, "a list of pairs", "alpaca"),
    Bad("half a pair in the history", {**GOOD["alpaca"](99), "history": [["q"]]}, "'history' entry 1",
        "alpaca"),
    Bad("a system prompt of numbers", {**GOOD["alpaca"](99), "system": 1}, "'system' holds a number",
        "alpaca"),
    Bad("a boolean as the answer", {"question": "a", "answer": True}, "'answer' holds true or false",
        "question_answer"),
    Bad("a list as the context", {**GOOD["question_answer"](99), "context": ["x"]}, "'context' holds a list",
        "question_answer"),
    Bad("no question", {"answer": "b"}, "does not fit 'question_answer'", "question_answer",
        skipped="the field 'question' is missing"),
    Bad("a number as the text", {"text": 7}, "'text' holds a number", "text"),
    Bad("null as the text", {"text": None}, "'text' holds null", "text"),
    Bad("a blank text", {"text": "  \n"}, "the text is empty", "text"),
]  # fmt: skip
TURNS = [
    Bad("an unknown speaker", share(("humen", "a"), ("gpt", "b")), "from='humen' is unknown. Did you mean "
        "'human'?", "sharegpt"),
    Bad("no speaker", share(("human", "a"), {"value": "b"}), "turn 2: 'from' is missing", "sharegpt"),
    Bad("a turn without text", share(("human", "a"), {"from": "gpt"}), "turn 2: 'value' is missing",
        "sharegpt"),
    Bad("a number as a turn's text", share(("human", 5), ("gpt", "b")), "turn 1: 'value' is a number",
        "sharegpt"),
    Bad("a string as a turn", share(("human", "a"), "b"), "turn 2: a string where an object", "sharegpt"),
    Bad("no turns", share(), "the conversation is empty", "sharegpt"),
    Bad("a text as the turns", {"conversations": "a"}, "does not fit 'sharegpt'", "sharegpt",
        skipped="'conversations' holds a string"),
    Bad("a call that is no JSON", share(("human", "a"), ("function_call", "{f"), ("gpt", "b")),
        "turn 2: the call is no JSON", "sharegpt"),
    Bad("an unknown role", talk(("user", "a"), ("assistent", "b")), "role='assistent' is unknown. Did you "
        "mean 'assistant'?", "openai"),
    Bad("a role that is a number", talk(("user", "a"), (3, "b")), "'role' is no string", "openai"),
    Bad("null as the content", talk(("user", None), ("assistant", "b")), "'content' is null", "openai"),
    Bad("a number as the content", talk(("user", "a"), ("assistant", 4)), "'content' is a number", "openai"),
    Bad("an image", talk(("user", [{"type": "image_url"}]), ("assistant", "b")),
        "part 1 has type='image_url'; only type='text'", "openai"),
    Bad("a part that is a string", talk(("user", ["a"]), ("assistant", "b")), "part 1 is a string", "openai"),
    Bad("a part without text", talk(("user", [{"type": "text"}]), ("assistant", "b")),
        "part 1 has no string in 'text'", "openai"),
    Bad("a late system turn", talk(("user", "a"), ("system", "s"), ("assistant", "b")),
        "turn 2 is a system turn; only the first", "openai"),
    Bad("a question at the end", talk(("user", "a"), ("assistant", "b"), ("user", "c")),
        "the last turn is of role 'user'", "openai"),
    Bad("a question alone", talk(("user", "a")), "there is no assistant turn", "openai"),
    Bad("null as the turns", {"messages": None}, "does not fit 'openai'", "openai",
        skipped="'messages' holds null"),
    Bad("turns in broken JSON", {"messages": '[{"role": "user"'}, "'messages' holds broken JSON", "openai"),
    Bad("two thoughts", chat(9, thinking="x", reasoning="y"), "hold different texts", "openai"),
    Bad("a negative weight", chat(9, weight=-1), "weight=-1 is no weight", "openai"),
    Bad("a weight that is no number", chat(9, weight=float("nan")), "weight=nan is no weight", "openai"),
    Bad("an endless weight", chat(9, weight=float("inf")), "weight=inf is no weight", "openai"),
    Bad("a weight in quotes", chat(9, weight="1"), "weight='1' is no weight", "openai"),
    Bad("weights at odds", chat(9, weight=1, train=False), "contradict each other", "openai"),
    Bad("train as a number", chat(9, train=1), "train=1 is unknown", "openai"),
]  # fmt: skip
TOOLS = [
    Bad("calls in broken JSON", chat(9, tool_calls="[{"), "'tool_calls' holds broken JSON", "openai"),
    Bad("calls that are a number", chat(9, tool_calls=3), "'tool_calls' is a number", "openai"),
    Bad("a call without a name", called(arguments={}), "call 1 has no 'name'", "openai"),
    Bad("a list of arguments", called(name="f", arguments=[1]), "call 1 has a list as 'arguments'", "openai"),
    Bad("a call of another type", called(type="web", name="f"), "call 1 has type='web'", "openai"),
    Bad("a number as a call's id", called(id=4, **CALL), "call 1 has a number as 'id'", "openai"),
    Bad("both kinds of calls", chat(9, tool_calls=[CALL], function_call=CALL), "has both 'tool_calls' and",
        "openai"),
    Bad("a user who calls", talk({"role": "user", "content": "a", "tool_calls": [CALL]}, ("assistant", "b")),
        "a turn of role 'user' has tool calls", "openai"),
    Bad("an answer that answers a call", chat(9, tool_call_id="c"), "has 'tool_call_id'", "openai"),
    Bad("tools in broken JSON", {**chat(9), "tools": "[{"}, "'tools' holds broken JSON", "openai"),
    Bad("tools that are a number", {**chat(9), "tools": 3}, "'tools' holds a number", "openai"),
    Bad("a tool that is a string", {**chat(9), "tools": ["f"]}, "'tools' entry 1 is a string", "openai"),
    Bad("arguments nested 600 deep", NESTED_CALL, "nested", "openai", template="qwen2_5"),
    Bad("a schema nested 600 deep", NESTED_TOOLS, "nested", "openai", template="qwen2_5"),
    Bad("half a surrogate pair in arguments", called(name="f", arguments={"a": SURROGATE}), "surrogate",
        "openai", template="qwen2_5"),
    Bad("half a surrogate pair in a call's name", called(name=SURROGATE, arguments={}), "surrogate",
        "openai", template="qwen2_5"),
    Bad("half a surrogate pair in a schema", {**chat(9), "tools": [{"name": "f", "description": SURROGATE}]},
        "surrogate", "openai", template="qwen2_5"),
]  # fmt: skip
JUDGED = [
    Bad("a number as the preferred answer", {**GOOD["preference"](9), "chosen": 4}, "'chosen' holds a number",
        "preference", settings=PAIRS),
    Bad("null as the other answer", {**GOOD["preference"](9), "rejected": None}, "'rejected' holds null",
        "preference", settings=PAIRS),
    Bad("no other answer", {"prompt": "a", "chosen": "b"}, "does not fit 'preference'", "preference",
        skipped="the field 'rejected' is missing", settings=PAIRS),
    Bad("answers to nothing", {"chosen": "a", "rejected": "b"}, "there is no 'prompt' that it answers",
        "preference", settings=PAIRS),
    Bad("answers to other questions", {side: talk(("user", side), ("assistant", "b"))["messages"]
        for side in ("chosen", "rejected")}, "share no first turn", "preference", settings=PAIRS),
    Bad("a question as the answer", {**GOOD["sharegpt_preference"](9), "chosen": {"from": "human",
        "value": "b"}}, "'chosen' has no assistant turn", "sharegpt_preference", settings=PAIRS),
    Bad("a label of maybe", {**asked(9), "label": "maybe"}, "'label' holds 'maybe'; true, false, 1 or 0",
        "unpaired", settings={**PAIRS, "format": "unpaired"}),
    Bad("a label of null", {**asked(9), "label": None}, "'label' holds null", "unpaired",
        settings={**PAIRS, "format": "unpaired"}),
    Bad("labels at odds", {**asked(9), "label": 1, "kto_tag": 0}, "contradict each other", "unpaired",
        settings=PAIRS),
]  # fmt: skip
CONFIGURED = [
    Bad("a mapped column that a row lacks", {"prompt": "a"},
        "'completion' (data.columns.response) is missing", settings={"format": "prompt_completion",
        "columns": ColumnsConfig(prompt="prompt", response="completion")}),
    Bad("a template's field that a row lacks", {"prompt": "a"}, "data.prompt_template.assistant: the field "
        "'completion' is missing. Fields: prompt", settings={"prompt_template": TEMPLATE}),
    Bad("a template's field that is null", {"prompt": "a", "completion": None}, "a field holds null",
        settings={"prompt_template": TEMPLATE}),
    Bad("no time", asked(9), "the field 'time' (data.split.by) is missing", "timed",
        settings={"split": SplitConfig("temporal", "time")}),
    Bad("null as the group", {**asked(9), "group": None}, "the field 'group' (data.split.by) is missing",
        "grouped", settings={"split": SplitConfig("grouped", "group")}),
    Bad("half a surrogate pair as the group", {**asked(9), "group": SURROGATE}, "surrogate", "grouped",
        settings={"split": SplitConfig("grouped", "group")}),
]  # fmt: skip
UNRENDERED = [
    Bad("an end of turn in a question", {**asked(9), "prompt": "a<|im_end|>"}, "turn 1 (user) holds the text "
        "of the special token '<|im_end|>', which would be read as that token; take it out of the text",
        check="special_token"),
    Bad("a begin of turn in an answer", {**asked(9), "completion": "<|im_start|>b"}, "turn 2 (assistant)",
        check="special_token"),
    Bad("an end of text in a document", {"text": "a<|endoftext|>b"}, "'<|endoftext|>'", "text",
        "special_token"),
    Bad("tools that the template does not know", {**chat(9), "tools": [{"name": "f"}]},
        "leaves out the tools", "openai", "chat_template"),
    Bad("a weight on a question", talk({"role": "user", "content": "a", "weight": 1}, ("assistant", "b")),
        "turn 1 (user) has the weight 1: only assistant turns", "openai", "chat_template"),
]  # fmt: skip
REMOVED = [
    Bad("an empty question", {**asked(9), "prompt": " "}, "turn 1 (user) has 0 of at least 1",
        check="min_chars"),
    Bad("two questions in a row", talk(("user", "a"), ("user", "b"), ("assistant", "c")),
        "turn 2 (user) follows turn 1 (user)", "openai", "role_order"),
    Bad("no question", talk(("system", "a"), ("assistant", "c")), "there is no user turn", "openai",
        "role_order"),
    Bad("control characters", {**asked(9), "completion": "\x00\x01ab"}, "garbled", check="max_garble"),
    Bad("replacement characters", {**asked(9), "prompt": "\ufffd\ufffdab"}, "garbled", check="max_garble"),
    Bad("an open code fence", {**asked(9), "completion": "```\nb"}, "is not closed", check="balanced",
        settings={"quality": QualityConfig(balanced=True)}),
    Bad("a fence of broken JSON", {**asked(9), "completion": "```json\n{b\n```"}, "declared as JSON",
        check="balanced", settings={"quality": QualityConfig(balanced=True)}),
    Bad("an answer that is no JSON", {**asked(9), "completion": "{b"}, "is no JSON", "json", "json_response",
        settings={"quality": QualityConfig(json_response=True)}),
    Bad("NaN as a JSON answer", {**asked(9), "completion": "NaN"}, "NaN is no JSON", "json", "json_response",
        settings={"quality": QualityConfig(json_response=True)}),
    Bad("an address", {**asked(9), "completion": "ann@example.org"}, "1 email", check="privacy",
        settings={"privacy": PrivacyConfig(action="drop")}),
    Bad("a copy of a row", asked(0), "line 1", check="duplicate"),
    Bad("a bad answer", {**asked(9), "label": 0}, "labelled as a bad one", "unpaired", "preference",
        settings=PAIRS),
]  # fmt: skip
DATED_CALL = {"name": "f", "arguments": {"at": datetime.datetime(2024, 5, 31)}}
DATED = [*map(chat, range(AFTER)), chat(99, tool_calls=[DATED_CALL]), *map(chat, range(AFTER, NUM_GOOD))]
OTHER = [
    Other("too few fields", "a.csv", csv_rows("alone"), "line 8", "1 field where the header names 2"),
    Other("too many fields", "a.csv", csv_rows("a,b,c"), "line 8", "3 fields where the header names 2"),
    Other("an open quote", "a.csv", csv_rows('a,"b'), "line 8", "never closed"),
    Other("text after a quote", "a.csv", csv_rows('a,"b"c'), "line 8", "text follows a closing quote"),
    Other("commas in a TSV file", "a.tsv", csv_rows("a,b", "\t"), "line 8",
        "1 field where the header names 2"),
    Other("no answer in a CSV file", "a.csv", csv_rows("a,"), "line 8", "turn 2 is empty", "invalid"),
    Other("a number in a JSON list", "a.json", json.dumps([*good_rows()[:6], 5, *good_rows()[6:]]).encode(),
        "row 7", "a number where an object"),
    Other("null in Parquet", "a.parquet", parquet(columns(None)), "row 7", "'completion' holds null",
        "invalid"),
    Other("no UTF-8 in Parquet", "a.parquet", parquet(columns(b"\xff\xfe")), "row 7",
        "a value that cannot be read"),
    Other("no UTF-8 in Arrow", "a.arrow", arrow(columns(b"\xff\xfe")), "row 7",
        "a value that cannot be read"),
    Other("a date in a call in Parquet", "a.parquet", parquet(pa.Table.from_pylist(DATED)), "row 7",
        "datetime", "invalid"),
    Other("a last line that is cut off", "a.jsonl", lines(good_rows()) + b'{"prompt": "a", "comp', "line 13",
        "broken JSON at column"),
    Other("a bad line after Windows line ends", "a.jsonl", among("{a").replace(b"\n", b"\r\n"), "line 7",
        "broken JSON at column"),
    Other("a bad line in gzip", "a.jsonl.gz", gzip.compress(among("{a")), "line 7", "broken JSON at column"),
    Other("sixty bad lines first", "a.jsonl", lines(["{a"] * 60) + lines(good_rows()), "line 1",
        "broken JSON at column"),
]  # fmt: skip
FINE = lines(good_rows())
TABLE = pa.Table.from_pylist(good_rows())
WHOLE = [
    Whole("an empty file", "a.jsonl", b"", ["is empty"]),
    Whole("blank lines", "a.jsonl", b"\n \n\n", ["is empty"]),
    Whole("a header alone", "a.csv", b"prompt,completion\n", ["has no rows"]),
    Whole("UTF-16 with its mark", "a.jsonl", FINE.decode().encode("utf-16"),
          ["UTF-16", "data.encoding=utf-16"]),
    Whole("UTF-16 without a mark", "a.jsonl", FINE.decode().encode("utf-16-le"), ["data.encoding=utf-16-le"]),
    Whole("UTF-32", "a.json", json.dumps(good_rows()).encode("utf-32"), ["data.encoding=utf-32"]),
    Whole("Latin-1 in JSON", "a.json", b'[{"prompt": "a",\n"completion": "\xe9"}]', ["byte 0xe9 in line 2"]),
    Whole("Latin-1 in CSV", "a.csv", b"prompt,completion\na,b\na,\xe9\n", ["byte 0xe9 in line 3"]),
    Whole("an unknown encoding", "a.jsonl", FINE, ["data.encoding='klingon' is unknown"],
          {"encoding": "klingon"}, names_file=False),
    Whole("the wrong encoding", "a.jsonl", FINE, ["is not utf-16"], {"encoding": "utf-16"}),
    Whole("an unknown extension", "a.txt", FINE, ["the extension '.txt' is unknown", ".jsonl"]),
    Whole("no extension", "rows", FINE, ["the name has no extension"]),
    Whole("Parquet as JSONL", "a.jsonl", parquet(TABLE), ["is a Parquet file; name it .parquet"]),
    Whole("gzip as JSONL", "a.jsonl", gzip.compress(FINE), ["add .gz to its name"]),
    Whole("JSONL as gzip", "a.jsonl.gz", FINE, ["is not compressed with gzip"]),
    Whole("JSONL as Parquet", "a.parquet", FINE, ["is no whole Parquet file"]),
    Whole("a ZIP archive", "a.jsonl", b"PK\x03\x04" + b"\x00" * 60, ["is a ZIP archive"]),
    Whole("a Git LFS pointer", "a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", ["git lfs pull"]),
    Whole("gzip cut off", "a.jsonl.gz", cut(gzip.compress(FINE)), ["is cut off"]),
    Whole("gzip with a wrong sum", "a.jsonl.gz", changed(gzip.compress(FINE), -6), ["has broken gzip data"]),
    Whole("gzip of nothing", "a.jsonl.gz", gzip.compress(b""), ["is empty"]),
    Whole("zstd cut off", "a.jsonl.zst", cut(zstd(FINE)), ["is cut off"]),
    Whole("zstd and then garbage", "a.jsonl.zst", zstd(FINE) + b"garbage", ["has broken zstd data"]),
    Whole("JSON cut off", "a.json", cut(json.dumps(good_rows()).encode()),
          ["has broken JSON at line 1, column"]),
    Whole("a comma at the end of JSON", "a.json", b'[{"prompt": "a"},\n]',
          ["broken JSON at line 2, column 1"]),
    Whole("text after JSON", "a.json", b'[{"prompt": "a"}]\nx',
          ["broken JSON at line 2, column 1: Extra data"]),
    Whole("a bottomless JSON list", "a.json", f"[{DEEP}]".encode(),
          ["JSON from line 1 on that cannot be read"]),
    Whole("a JSON string", "a.json", b'"rows"', ["holds a string; a list of objects is needed"]),
    Whole("a JSON object without rows", "a.json", b'{"a":\n 1}',
          ["holds an object without a list of objects"]),
    Whole("two lists in JSON", "a.json", b'{"a": [{"x": 1}],\n"b": [{"x": 1}]}', ["2 lists", "'a', 'b'"]),
    Whole("JSON objects over lines", "a.json", b'{"a":\n1}\n{"a":\n2}',
          ["several objects over several lines"]),
    Whole("an empty JSON list", "a.json", b"[]", ["has no rows"]),
    Whole("a list of numbers", "a.json", b"[1, 2]", ["2 of 2 rows", "row 1: a number where an object"]),
    Whole("a JSON document as JSONL", "a.jsonl", json.dumps(good_rows(), indent=1).encode(),
          ["name it .json"]),
    Whole("a web page", "a.jsonl", b"<!DOCTYPE html>\n<html>\n", ["line 1: broken JSON at column 1"]),
    Whole("one broken line alone", "a.jsonl", b'{"prompt"\n', ["line 1: broken JSON at column 10"]),
    Whole("a column named twice", "a.csv", b"a,a\n1,2\n", ["names the column 'a' twice in its header"]),
    Whole("a column without a name", "a.csv", b"a,,b\n1,2,3\n", ["has no name for column 2"]),
    Whole("semicolons in CSV", "a.csv", b"prompt;completion\na;b\n", ["parts its columns by ';'"]),
    Whole("an open quote in a header", "a.csv", b'"prompt,completion\na,b\n', ["header that cannot be read"]),
    Whole("Parquet cut off", "a.parquet", cut(parquet(TABLE)), ["is no whole Parquet file"]),
    Whole("Parquet without rows", "a.parquet", parquet(TABLE[:0]), ["has no rows"]),
    Whole("bytes in Parquet", "a.parquet", parquet(pa.table({"prompt": [b"a"], "completion": [b"b"]})),
          ["row 1: the field 'prompt' holds", "bytes"]),
    Whole("a column name that is no UTF-8 in Parquet", "a.parquet", rename(parquet(TABLE)),
          ["is no whole Parquet file"]),
    Whole("a column name that is no UTF-8 in Arrow", "a.arrow", rename(arrow(TABLE)),
          ["is no whole Arrow file"]),
    Whole("Arrow cut off", "a.arrow", cut(arrow(TABLE)), ["is no whole Arrow file"]),
    Whole("an Arrow stream cut off", "a.arrow", cut(arrow(TABLE, pa.ipc.new_stream), 0.9),
          ["is no whole Arrow file"]),
    Whole("rows of no known form", "a.jsonl", line({"foo": 1}), ["no form fits line 1", "fields foo"]),
    Whole("rows of two forms", "a.jsonl", line({**asked(1), "text": "x"}),
          ["2 forms fit", "data.format=text"]),
    Whole("preferences", "a.jsonl", lines(good_rows("preference")), ["data.preference=chosen"]),
    Whole("questions alone", "a.jsonl", lines([{"prompt": "a"}, {"prompt": "b"}]), ["no assistant turns"]),
    Whole("a column that is not there", "a.jsonl", FINE, ["data.columns.prompt='promt' is not a field",
          "Did you mean 'prompt'?"], {"columns": ColumnsConfig(prompt="promt", response="completion")}),
    Whole("a template with an unknown field", "a.jsonl", FINE,
          ["line 1: data.prompt_template.user", "'titel'", "12 of 12"],
          {"prompt_template": PromptTemplateConfig(user="{{ titel }}", assistant="b")}),
    Whole("a split by an unknown field", "a.jsonl", FINE, ["line 1: the field 'group' (data.split.by)"],
          {"split": SplitConfig("grouped", "group")}),
    Whole("answers that are not learned", "a.jsonl", among(chat(9, weight=0), "openai"),
          ["have no token to learn", "line 7"]),
    Whole("a row that is too long", "a.jsonl", among({**asked(9), "completion": "b " * 2000}),
          ["longer than data.max_length=256", "line 7"]),
    Whole("one row and its copies", "a.jsonl", lines([asked(1)] * 13), ["too few", "duplicate"],
          names_file=False),
    Whole("blank questions alone", "a.jsonl", lines([{**asked(i), "prompt": ""} for i in range(13)]),
          ["of 13, 13 were left out (min_chars)"], names_file=False),
]  # fmt: skip

Prepare = Callable[..., PreparedData]


@pytest.fixture
def prepare(tokenizer: PreTrainedTokenizerBase) -> Prepare:
    """Prepares the rows of a path, a fifth of them for validation and another for the test."""

    def run(path: Path, on_error: str, template: str = "chatml", **settings: Any) -> PreparedData:
        own = tokenizer
        if template != "chatml":
            own = copy.deepcopy(tokenizer)
            set_chat_template(own, template)
        config = DataConfig(name="file", path=str(path), cache=False, max_length=256, on_error=on_error)
        config.val_fraction = config.test_fraction = 0.2
        config.num_workers = 0
        for key, value in settings.items():
            setattr(config, key, value)
        return prepare_data(config, own, seed=0)

    return run


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refusal(prepare: Prepare, path: Path, on_error: str = "raise", **settings: Any) -> str:
    """The message with which the rows are refused."""
    with pytest.raises(DataError) as caught:
        prepare(path, on_error, **settings)
    return str(caught.value)


def removed(data: PreparedData) -> dict[str, int]:
    """Every removal, before and after the split, by its check."""
    tallies = [*(source.tally for source in data.report.sources), *data.report.splits.values()]
    return {check: each.count for tally in tallies for check, each in tally.removed.items()}


def assert_nothing_is_lost(data: PreparedData, num_rows: int) -> None:
    """Rows in are rows kept and rows counted, at every step up to the examples."""
    sources, splits = data.report.sources, data.report.splits
    assert sum(source.tally.rows for source in sources) == num_rows
    for tally in (*(source.tally for source in sources), *splits.values()):
        assert tally.rows == tally.kept + sum(each.count for each in tally.removed.values())
    assert sum(tally.rows for tally in splits.values()) == sum(source.tally.kept for source in sources)
    for part, tally in splits.items():
        assert len(getattr(data, part).examples) == tally.kept


def answers(data: PreparedData) -> list[str]:
    examples = (example for part in (data.train, data.val, data.test) for example in part.examples)
    return sorted(example.conversation.response for example in examples)


def good_answers(form: str = "prompt_completion") -> list[str]:
    quote = '"' if form == "json" else ""
    return sorted(f"{quote}say {number}{quote}" for number in range(NUM_GOOD))


def by_name(case: Any) -> str:
    return str(case.name).replace(" ", "-")


STOPPING = [*UNREADABLE, *STRINGS, *TURNS, *TOOLS, *JUDGED, *CONFIGURED]


@pytest.mark.parametrize("case", STOPPING, ids=by_name)
def test_a_bad_row_stops_with_its_file_line_and_reason(case: Bad, prepare: Prepare, tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", among(case.row, case.form))

    message = refusal(prepare, path, template=case.template, **case.settings)

    assert f"data.path={str(path)!r}" in message
    assert "line 7" in message
    assert case.says in message


@pytest.mark.parametrize("case", UNRENDERED, ids=by_name)
def test_a_row_that_cannot_be_rendered_stops_with_its_file_and_line(
    case: Bad, prepare: Prepare, tmp_path: Path
) -> None:
    path = write(tmp_path, "rows.jsonl", among(case.row, case.form))

    assert f"{path} line 7: " in (message := refusal(prepare, path))
    assert case.says in message


@pytest.mark.parametrize("case", STOPPING, ids=by_name)
def test_a_bad_row_is_left_out_and_counted(case: Bad, prepare: Prepare, tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", among(case.row, case.form))

    data = prepare(path, "skip", case.template, **case.settings)

    assert_nothing_is_lost(data, NUM_GOOD + 1)
    assert removed(data) == {case.check: 1}
    (example,) = data.report.sources[0].tally.removed[case.check].examples
    assert (example.file, example.place) == (str(path), "line 7")
    assert (case.skipped or case.says) in example.reason
    assert answers(data) == good_answers(case.form)


@pytest.mark.parametrize("case", UNRENDERED, ids=by_name)
def test_a_row_that_cannot_be_rendered_is_left_out_and_counted(
    case: Bad, prepare: Prepare, tmp_path: Path
) -> None:
    path = write(tmp_path, "rows.jsonl", among(case.row, case.form))

    data = prepare(path, "skip")

    assert_nothing_is_lost(data, NUM_GOOD + 1)
    assert removed(data) == {case.check: 1}
    found = [tally.removed[case.check] for tally in data.report.splits.values() if tally.removed]
    assert [(row.file, row.place) for row in found[0].examples] == [(str(path), "line 7")]
    assert case.says in found[0].examples[0].reason
    assert answers(data) == good_answers(case.form)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("case", REMOVED, ids=by_name)
def test_a_row_that_fails_a_check_is_left_out_and_counted(
    case: Bad, on_error: str, prepare: Prepare, tmp_path: Path
) -> None:
    path = write(tmp_path, "rows.jsonl", among(case.row, case.form))

    data = prepare(path, on_error, **case.settings)

    assert_nothing_is_lost(data, NUM_GOOD + 1)
    assert removed(data) == {case.check: 1}
    (example,) = data.report.sources[0].tally.removed[case.check].examples
    assert (example.file, example.place) == (str(path), "line 7")
    assert case.says in example.reason
    assert answers(data) == good_answers(case.form)


@pytest.mark.parametrize("case", OTHER, ids=by_name)
def test_a_bad_row_of_any_kind_of_file_stops_or_is_counted(
    case: Other, prepare: Prepare, tmp_path: Path
) -> None:
    path = write(tmp_path, case.file, case.content)

    message = refusal(prepare, path)
    data = prepare(path, "skip")

    assert f"data.path={str(path)!r}" in message
    assert f"{case.place}: " in message
    assert case.says in message
    count = removed(data)[case.check]
    assert_nothing_is_lost(data, NUM_GOOD + count)
    assert removed(data) == {case.check: 60 if case.name.startswith("sixty") else 1}
    assert data.report.sources[0].tally.removed[case.check].examples[0].place == case.place
    assert answers(data) == good_answers()


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("case", WHOLE, ids=by_name)
def test_a_file_that_cannot_be_used_is_refused(
    case: Whole, on_error: str, prepare: Prepare, tmp_path: Path
) -> None:
    path = write(tmp_path, case.file, case.content)

    message = refusal(prepare, path, on_error, **case.settings)

    assert str(path) in message or not case.names_file
    for fragment in case.says:
        assert fragment in message


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.arrow"])
def test_a_file_that_is_cut_off_anywhere_is_refused(
    name: str, share: float, prepare: Prepare, tmp_path: Path
) -> None:
    content = {
        "a.jsonl.gz": gzip.compress(FINE),
        "a.jsonl.zst": zstd(FINE),
        "a.parquet": parquet(TABLE),
        "a.arrow": arrow(TABLE),
    }[name]
    path = write(tmp_path, name, cut(content, share))

    assert str(path) in refusal(prepare, path, "skip")


@pytest.mark.parametrize("opened", [pa.ipc.new_file, pa.ipc.new_stream], ids=["file", "stream"])
def test_a_broken_arrow_file_is_refused_and_does_not_end_the_process(
    opened: Callable[..., Any], tmp_path: Path
) -> None:
    path = write(tmp_path, "a.arrow", broken_offsets(opened))
    program = (
        "import pathlib, sys\n"
        "from loralab.data.sources import read_rows\n"
        "from loralab.errors import DataError\n"
        "try:\n"
        "    rows = list(read_rows(pathlib.Path(sys.argv[1])))\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60, check=False
    )

    assert result.returncode == 0, result.stderr
    assert f"data.path={str(path)!r} is no whole Arrow file" in result.stdout


def test_the_file_of_each_bad_row_of_a_folder_is_named(prepare: Prepare, tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", among("{a"))
    write(tmp_path, "b.jsonl", lines([asked(20), "{b"]))

    message = refusal(prepare, tmp_path)

    for name, place in (("a.jsonl", "line 7"), ("b.jsonl", "line 2")):
        assert str(tmp_path / name) in message
        assert place in message


def test_the_bad_rows_of_a_folder_are_counted_with_their_files(prepare: Prepare, tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", among("{a"))
    write(tmp_path, "b.jsonl", line("{b"))

    data = prepare(tmp_path, "skip")

    assert_nothing_is_lost(data, NUM_GOOD + 2)
    examples = data.report.sources[0].tally.removed["unreadable"].examples
    assert [(Path(row.file).name, row.place) for row in examples] == [
        ("a.jsonl", "line 7"),
        ("b.jsonl", "line 1"),
    ]


def test_the_file_of_a_folder_whose_rows_have_another_form_is_named(prepare: Prepare, tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", FINE)
    write(tmp_path, "b.jsonl", line({"foo": 1}))

    message = refusal(prepare, tmp_path)

    assert str(tmp_path / "b.jsonl") in message
    assert "line 1 has the fields foo" in message


def test_a_split_that_loses_all_its_rows_is_refused_with_the_reason(prepare: Prepare, tmp_path: Path) -> None:
    rows = [{**row, "prompt": f"{row['prompt']} <|im_end|>"} for row in good_rows()]
    path = write(tmp_path, "a.jsonl", lines(rows))

    message = refusal(prepare, path, "skip")

    assert str(path) in message
    assert "'<|im_end|>'" in message


def test_a_row_of_a_third_form_does_not_decide_between_two(prepare: Prepare, tmp_path: Path) -> None:
    rows = [{**row, "text": row["prompt"]} for row in good_rows()]
    path = write(tmp_path, "a.jsonl", lines([*rows, GOOD["alpaca"](99)]))

    message = refusal(prepare, path, "skip")

    assert str(path) in message
    assert "data.format=prompt_completion or data.format=text" in message


@pytest.mark.parametrize(("row", "form", "named"), [
    (dict.fromkeys((f"column{number}" for number in range(5000)), 1), "prompt_completion", "auto"),
    (talk(("x" * 100_000, "a"), ("assistant", "b")), "openai", "auto"),
    ({**asked(9), "label": "y" * 100_000}, "unpaired", "unpaired"),
], ids=["fields", "role", "label"])  # fmt: skip
def test_a_message_stays_short_however_much_a_row_holds(
    row: Row, form: str, named: str, prepare: Prepare, tmp_path: Path
) -> None:
    path = write(tmp_path, "a.jsonl", among(row, form))

    message = refusal(prepare, path, format=named, preference="chosen")

    assert "line 7" in message
    assert len(message) < MOST_CHARS


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_validation_rows_that_all_fail_a_check_are_not_replaced_by_training_rows(
    on_error: str, prepare: Prepare, tmp_path: Path
) -> None:
    path = write(tmp_path, "a.jsonl", FINE)
    val_path = write(tmp_path, "val.jsonl", lines([{"prompt": "", "completion": str(i)} for i in range(3)]))

    message = refusal(prepare, path, on_error, val_path=str(val_path))

    assert "data.val_path" in message
    assert "min_chars" in message


def test_a_time_that_cannot_be_read_is_named_with_its_file_and_line(prepare: Prepare, tmp_path: Path) -> None:
    first, *rest = good_rows("timed")
    path = write(tmp_path, "a.jsonl", lines([first, first, *rest, {**asked(99), "time": "soon"}]))

    message = refusal(prepare, path, split=SplitConfig("temporal", "time"))

    assert "data.split.by" in message
    assert "'soon'" in message
    assert str(path) in message
    assert re.search(r"\b(line|row) 14\b", message)


def test_bad_validation_rows_are_counted_apart(prepare: Prepare, tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", FINE)
    val_path = write(tmp_path, "val.jsonl", lines([asked(20), "{a", asked(21)]))

    message = refusal(prepare, path, val_path=str(val_path))
    data = prepare(path, "skip", val_path=str(val_path))

    assert f"data.val_path={str(val_path)!r} line 2: broken JSON" in message
    assert_nothing_is_lost(data, NUM_GOOD + 3)
    train, val = data.report.sources
    assert (train.tally.rows, train.tally.kept, val.tally.rows, val.tally.kept) == (12, 12, 3, 2)


@pytest.mark.parametrize(("content", "says"), [
    (None, "does not exist"),
    (b"", "is empty"),
    (b"{a\n", "line 1"),
    (lines([{"number": 1}, {"number": 2}]), "no field of the row holds text"),
    (lines([asked(30), "{a", {"prompt": 5, "completion": "b"}]), "line 2"),
], ids=["missing", "empty", "broken", "no-text", "partly-broken"])  # fmt: skip
def test_benchmark_rows_that_cannot_be_read_are_not_passed_over(
    content: bytes | None, says: str, prepare: Prepare, tmp_path: Path
) -> None:
    path, benchmark = write(tmp_path, "a.jsonl", FINE), tmp_path / "benchmark.jsonl"
    if content is not None:
        benchmark.write_bytes(content)

    message = refusal(prepare, path, contamination=ContaminationConfig(benchmarks=[str(benchmark)]))

    assert f"data.contamination.benchmarks={str(benchmark)!r}" in message
    assert says in message


def test_rows_that_are_too_long_are_counted_where_that_is_allowed(prepare: Prepare, tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", among({**asked(9), "completion": "b " * 2000}))

    data = prepare(path, "raise", max_dropped=CUT_IN_HALF)

    assert_nothing_is_lost(data, NUM_GOOD + 1)
    assert removed(data) == {"over_length": 1}
    assert answers(data) == good_answers()


@pytest.mark.parametrize(("check", "settings", "completion"), [
    ("max_tokens", QualityConfig(max_tokens=60), "b " * 60),
    ("min_tokens", QualityConfig(min_tokens=19), "b"),
])  # fmt: skip
def test_rows_outside_of_the_token_limits_are_counted(
    check: str, settings: QualityConfig, completion: str, prepare: Prepare, tmp_path: Path
) -> None:
    path = write(tmp_path, "a.jsonl", among({"prompt": "a", "completion": completion}))

    data = prepare(path, "raise", quality=settings)

    assert_nothing_is_lost(data, NUM_GOOD + 1)
    assert removed(data) == {check: 1}
    assert answers(data) == good_answers()


def test_one_good_row_among_bad_ones_is_too_few(prepare: Prepare, tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", lines(["{a"] * AFTER + [asked(1)] + ["{a"] * AFTER))

    message = refusal(prepare, path)
    skipped = refusal(prepare, path, "skip")

    assert f"data.path={str(path)!r}: 12 of 13 rows cannot be used: line 1: broken JSON" in message
    assert "and 7 more" in message
    assert "1 usable rows are too few" in skipped
    assert "unreadable" in skipped


@pytest.mark.parametrize(("path", "says"), [
    ("no.jsonl", ["no.jsonl' does not exist", "Did you mean 'an.jsonl'?"]),
    ("no/a.jsonl", ["does not exist", "Its folder"]),
    ("*.csv", ["*.csv' matches no file"]),
    ("*.txt", ["matches no file of a known kind, only", "notes.txt"]),
    ("plain", ["plain' is a folder without a file of a known kind in it"]),
    ("lost.jsonl", ["lost.jsonl' is a symbolic link to", "which does not exist"]),
    ("splits", ["splits' holds the splits 'train' of one dataset"]),
    ("named.jsonl", ["named.jsonl' is a folder without a file"]),
    ("a\x00b.jsonl", ["cannot be read: embedded null byte"]),
])  # fmt: skip
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_path_that_leads_to_no_rows_is_refused(
    path: str, says: Sequence[str], on_error: str, prepare: Prepare, tmp_path: Path
) -> None:
    for folder in ("plain", "splits/train", "named.jsonl"):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path, "an.jsonl", FINE)
    write(tmp_path, "notes.txt", b"x")
    write(tmp_path / "splits", "dataset_dict.json", b"{}")
    (tmp_path / "lost.jsonl").symlink_to(tmp_path / "gone.jsonl")

    message = refusal(prepare, tmp_path / path, on_error)

    for fragment in ("data.path=", *says):
        assert fragment in message


COMMANDS = {
    "a cut line": ("a.jsonl", among('{"prompt": "a'), ["line 7", "broken JSON"]),
    "bad UTF-8": ("a.jsonl", among(b'{"prompt": "\xff"}'), ["line 7", "byte 0xff"]),
    "cut gzip": ("a.jsonl.gz", cut(gzip.compress(FINE)), ["is cut off"]),
    "a header alone": ("a.csv", b"prompt,completion\n", ["has no rows"]),
    "a special token": ("a.jsonl", among({**asked(9), "prompt": "<|im_end|>"}), ["line 7", "'<|im_end|>'"]),
    "an unknown role": ("a.jsonl", among(talk(("usr", "a")), "openai"), ["line 7", "Did you mean 'user'?"]),
    "broken lines alone": ("a.jsonl", b"{a\n{b\n", ["line 1", "broken JSON"]),
    "half a surrogate pair": ("a.jsonl", among(asked(9) | {"prompt": SURROGATE}), ["line 7", "surrogate"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_ends_with_code_2_and_no_traceback(
    name: str,
    repository: Path,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file, content, says = COMMANDS[name]
    path = write(tmp_path, file, content)
    overrides = [f"model.path={tiny_model_dir}", "data=file", f"data.path={path}", "data.max_length=256"]
    overrides += ["trainer=cpu", "dry_run=true", "data.cache=false", f"run.outputs_dir={tmp_path}/outputs"]
    monkeypatch.chdir(repository)
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])

    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path("train.py", run_name="__main__")
    finally:
        HydraConfig.instance().cfg = None

    out, err = capfd.readouterr()
    assert ended.value.code == 2
    assert "Traceback" not in out + err
    assert err.startswith("error: ")
    assert str(path) in err
    for fragment in says:
        assert fragment in err


def test_the_command_in_a_process_of_its_own_ends_with_code_2(
    repository: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, "a.jsonl", among("{a"))
    overrides = [f"model.path={tiny_model_dir}", "data=file", f"data.path={path}", "data.max_length=256"]
    overrides += ["trainer=cpu", "dry_run=true", f"run.outputs_dir={tmp_path}/outputs"]

    result = subprocess.run(
        [sys.executable, "train.py", *overrides],
        cwd=repository,
        env={**os.environ, "LORALAB_CACHE": f"{tmp_path}/cache"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.returncode == 2
    assert "Traceback" not in result.stdout + result.stderr
    assert f"data.path={str(path)!r} line 7: broken JSON" in result.stderr
