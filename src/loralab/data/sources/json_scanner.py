"""Decodes JSON piece by piece from text that comes in chunks."""

import json
import re
from collections.abc import Iterator
from typing import Any

from loralab.data.sources.faults import FileFault

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER_PART = re.compile(r"[-+.0-9eE]*")
_MOST_CUT_CHARS = 16
"""A chunk border inside a literal, an escape or a number makes an error at most this far before the end."""


class JsonScanner:
    """Holds the piece of a document that is being decoded, and no more.

    A value that does not decode is tried again with twice the text if the end of the text may be what it
    lacks; so the work stays linear, and an error is found where it stands instead of at the file's end.
    """

    def __init__(self, chunks: Iterator[str]) -> None:
        """Starts before the first character.

        Args:
            chunks: The document's text in order, in chunks of any size.
        """
        self._chunks = chunks
        self._text, self._at, self._ended = "", 0, False
        self._line, self._column = 1, 1

    @property
    def line(self) -> int:
        """The line of the next character, counted from 1."""
        return self._line + self._text.count("\n", 0, self._at)

    def peek(self) -> str:
        """Returns the next character that is not white space, or an empty string at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._refill()

    def take(self, allowed: str, fault: str) -> str:
        """Reads one character, or raises the fault where another one stands.

        Raises:
            FileFault: None of the allowed characters is next.
        """
        char = self.peek()
        if not char or char not in allowed:
            raise self._broken(fault, self._at)
        self._at += 1
        return char

    def value(self) -> Any:
        """Decodes the next value as a whole.

        Raises:
            FileFault: It is broken, cut off or too deeply nested.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or not self._may_be_cut(error):
                    raise self._broken(error.msg, error.pos) from None
            except (RecursionError, ValueError) as error:
                raise FileFault(f" has JSON from line {self.line} on that cannot be read: {error}.") from None
            else:
                if self._ended or not self._may_go_on(end):
                    self._at = end
                    return value
            self._refill()

    def elements(self) -> Iterator[Any]:
        """Decodes the elements of a list one at a time.

        Raises:
            FileFault: The list is broken or cut off; the elements before were yielded.
        """
        self.take("[", "Expecting value")
        if self.peek() == "]":
            self.take("]", "")
            return
        while True:
            yield self.value()
            if self.take(",]", "Expecting ',' delimiter") == "]":
                return

    def members(self) -> Iterator[str]:
        """Yields the keys of an object; the caller reads the value of each before it asks for the next.

        Raises:
            FileFault: The object is broken or cut off.
        """
        self.take("{", "Expecting value")
        if self.peek() == "}":
            self.take("}", "")
            return
        while True:
            if self.peek() != '"':
                raise self._broken("Expecting property name enclosed in double quotes", self._at)
            key = self.value()
            self.take(":", "Expecting ':' delimiter")
            yield key
            if self.take(",}", "Expecting ',' delimiter") == "}":
                return

    def finish(self) -> None:
        """Checks that nothing but white space follows.

        Raises:
            FileFault: Something does.
        """
        if self.peek():
            raise self._broken("Extra data", self._at)

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated string") or (error.pos >= len(self._text) - _MOST_CUT_CHARS)

    def _may_go_on(self, end: int) -> bool:
        """Whether a value that ends here may be the first half of a number."""
        match = _NUMBER_PART.match(self._text, end)
        return match is not None and match.end() == len(self._text)

    def _refill(self) -> None:
        """Forgets what was read, and at least doubles what was not."""
        rest = self._text[self._at :]
        self._line, self._column = self._place(self._at)
        pieces, size = [rest], 0
        while size <= len(rest):
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended = True
                break
            pieces.append(chunk)
            size += len(chunk)
        self._text, self._at = "".join(pieces), 0

    def _place(self, position: int) -> tuple[int, int]:
        newlines = self._text.count("\n", 0, position)
        if newlines:
            return self._line + newlines, position - self._text.rfind("\n", 0, position)
        return self._line, self._column + position

    def _broken(self, fault: str, position: int) -> FileFault:
        line, column = self._place(position)
        return FileFault(f" has broken JSON at line {line}, column {column}: {fault}.")
