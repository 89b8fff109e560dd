"""Reading files and JSON without trusting them: what each reader of a corpus format shares."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capo_core.errors import InputFileError
from capo_core.quality import Problem

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STRING_OR_TRAILING_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[}\]])', re.DOTALL)


class RepeatedKeys(list[tuple[str, Any]]):
    """A JSON object in which a key stands twice, as its (key, value) pairs in file order: nothing is overwritten."""

    def repeated(self) -> list[str]:
        """Return the keys that stand more than once, in order of first appearance."""
        keys = [key for key, _ in self]
        return [key for key in dict.fromkeys(keys) if keys.count(key) > 1]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a JSON Lines file: its 1-based number, the object on it or the problem with it, and its text."""

    number: int
    value: dict[str, Any] | None
    problem: Problem | None
    text: str


def read_bytes(path: Path) -> bytes:
    """Return the content of a file without byte-order mark.

    Raises:
        InputFileError: if it is missing, a folder, unreadable, empty or in UTF-16.
    """
    if path.is_dir():
        raise InputFileError(f"{path}: is a folder, a file is needed; name the file in corpus.paths")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputFileError(
            f"{path}: no such file; check corpus.paths (relative paths are looked up in CAPO_DATA_DIR)"
        ) from None
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror}); check the file's permissions") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputFileError(f"{path}: is UTF-16; save it as UTF-8")
    content = content.removeprefix(_BYTE_ORDER_MARK)
    if not content.strip():
        raise InputFileError(f"{path}: is empty; nothing was downloaded or exported into it")
    return content


def read_text(path: Path) -> str:
    """Return the content of a file as text.

    Raises:
        InputFileError: as `read_bytes`, and where the file is not UTF-8; names the line.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputFileError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def parse_json(text: str) -> Any:
    """Return the value of strict JSON; objects with a key that stands twice come as `RepeatedKeys`.

    Raises:
        json.JSONDecodeError: if `text` is not JSON; NaN and infinities are not.
        ValueError: if it is nested too deeply or holds an absurdly long number.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _require_depth(value)
    return value


def parse_json_file(path: Path, *, trailing_commas: bool = False) -> tuple[Any, int]:
    """Return the value of a JSON file and how many trailing commas were taken out of it.

    Args:
        path: a UTF-8 file.
        trailing_commas: whether commas before a closing bracket or brace are forgiven; nothing else is.

    Raises:
        InputFileError: if the file cannot be read or is not JSON; names line and column.
    """
    text = read_text(path)
    n_repaired = 0
    if trailing_commas:
        # A comma becomes a space, so that line and column of any other error still hold.
        def repair(match: re.Match[str]) -> str:
            return match.group() if match.group() != "," else " "

        repaired = _STRING_OR_TRAILING_COMMA.sub(repair, text)
        n_repaired = sum(before != after for before, after in zip(text, repaired, strict=True))
        text = repaired
    try:
        return parse_json(text), n_repaired
    except json.JSONDecodeError as error:
        hint = "correct the file there"
        if error.msg == "Extra data":
            hint = "the file holds more than one JSON value; if it is JSON Lines, set corpus.format to varierr or table"
        raise InputFileError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}); {hint}"
        ) from None
    except ValueError as error:
        raise InputFileError(f"{path}: not valid JSON ({error}); correct the file") from None


def read_json_lines(path: Path) -> list[Line]:
    """Return every line of a JSON Lines file that is not blank; a bad line does not stop the others.

    Raises:
        InputFileError: as `read_bytes`.
    """
    lines = enumerate(read_bytes(path).split(b"\n"), start=1)
    return [_parse_line(number, content) for number, content in lines if content.strip()]


def type_name(value: object) -> str:
    """Return what JSON calls the type of a parsed value."""
    if isinstance(value, RepeatedKeys):
        return f"an object in which {', '.join(map(repr, value.repeated()))} stands twice"
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null or absent"}
    return names.get(type(value), "a number")


def _parse_line(number: int, content: bytes) -> Line:
    """Return one line, parsed or with its problem."""
    text = content.decode("utf-8", "backslashreplace").rstrip("\r")
    try:
        value = parse_json(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        detail = f"byte {error.start + 1} of the line (0x{content[error.start]:02x}) is not UTF-8; save it as UTF-8"
        return Line(number, None, Problem("line", "not_utf8", detail), text)
    except json.JSONDecodeError as error:
        detail = f"not valid JSON at column {error.colno} ({error.msg}); one complete JSON object per line is needed"
        return Line(number, None, Problem("line", "invalid_json", detail), text)
    except ValueError as error:
        return Line(number, None, Problem("line", "invalid_json", f"not valid JSON ({error}); correct it"), text)
    if isinstance(value, RepeatedKeys):
        detail = f"the line is {type_name(value)}; keep one of them"
        return Line(number, None, Problem("line", "duplicate_key", detail), text)
    if not isinstance(value, dict):
        detail = f"the line is {type_name(value)}, an object is needed"
        return Line(number, None, Problem("line", "malformed_row", detail), text)
    return Line(number, value, None, text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | RepeatedKeys:
    """Return a JSON object, as pairs where a dict would lose one."""
    value = dict(pairs)
    return value if len(value) == len(pairs) else RepeatedKeys(pairs)


def _require_depth(value: Any) -> None:
    """Return nothing if `value` is nested at most 100 deep; what recurses over it later must not run out of stack."""
    level = [value]
    for _ in range(100):
        containers = (inner for inner in level if isinstance(inner, dict | list | tuple))
        level = [child for inner in containers for child in (inner.values() if isinstance(inner, dict) else inner)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
