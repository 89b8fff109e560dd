"""Mutants of files: bytes, lines, cells, JSON values and Parquet columns changed as accidents and attackers do."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Mutation = Callable[[bytes, random.Random], bytes]

SPLINTERS = [
    b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\xaf", b'"', b'""', b"'", b",", b";", b"\t",
    b"\r", b"\r\n", b"\n\n", b"{", b"}", b"[", b"]", b":", b"\\", b"\\ud800", b"\\u0000", b"\xe2\x80\xae",
    b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"null", b"true", b"../../etc/passwd", b"=cmd|' /C calc'!A1", b" ",
    b"<script>", b"%s%n", b"[" * 300, b'{"a":' * 150,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 10**30, 1.5, 1e308, "", " ", "\u200b", "\ud800", "\u0000", "\u202eabc", "x" * 20_000,
    [], {}, [[]], ["a", None, 3], {"a": {"b": [1]}}, {"__class__": "os.system"}, "../../x", "NaN", "🙂", "İ", "ﬁ",
]  # fmt: skip


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return the content with one to four byte-level accidents."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + rng.choice((1, 2, 8, 64, 512)))
        match rng.randrange(7):
            case 0 if start < len(content):
                flipped = content[start] ^ (1 << rng.randrange(8))
                content = content[:start] + bytes([flipped]) + content[start + 1 :]
            case 1:
                content = content[:start] + content[end:]
            case 2:
                content = content[:start] + content[start:end] * rng.randint(2, 5) + content[end:]
            case 3:
                content = content[:start]
            case 4:
                content = content[:start] + rng.randbytes(rng.choice((1, 4, 32))) + content[end:]
            case _:
                content = content[:start] + rng.choice(SPLINTERS) + content[start:]
    return content


def mutate_bits(content: bytes, rng: random.Random) -> bytes:
    """Return the content with one to three bits changed: its length and most of its structure stay."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def mutate_lines(content: bytes, rng: random.Random) -> bytes:
    """Return the content with lines lost, doubled, swapped, joined or cut."""
    lines = content.split(b"\n")
    for _ in range(rng.randint(1, 3)):
        one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(6):
            case 0 if len(lines) > 1:
                del lines[one]
            case 1:
                lines.insert(one, lines[other])
            case 2:
                lines[one], lines[other] = lines[other], lines[one]
            case 3:
                lines[one] = lines[one] + lines[other]
            case 4:
                lines[one] = lines[one][: rng.randrange(len(lines[one]) + 1)]
            case _:
                lines = [line + b"\r" for line in lines]
    return b"\n".join(lines)


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Return a JSON document with values of other types, keys lost, renamed or doubled, at random places."""
    value = json.loads(content)
    doubled: list[str] = []
    for _ in range(rng.randint(1, 3)):
        parent, key = rng.choice(_places(value))
        match rng.randrange(5):
            case 0:
                del parent[key]
            case 1:
                parent[key] = copy.deepcopy(rng.choice(_places(value)))[0]
            case 2 if isinstance(parent, dict):
                parent[rng.choice(("", "id", "text_a", "label", "\ud800", key + " ", key.upper()))] = parent.pop(key)
            case 3 if isinstance(parent, dict):
                doubled.append(key)
            case _:
                parent[key] = copy.deepcopy(rng.choice(VALUES))
        if not _places(value):
            break
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    for key in doubled:
        name = json.dumps(key)
        text = text.replace(f"{name}:", f"{name}: 1, {name}:", 1)
    return text.encode("utf-8", "surrogatepass")


def mutate_json_line(content: bytes, rng: random.Random) -> bytes:
    """Return JSON Lines with one record mutated as `mutate_json` does."""
    lines = content.rstrip(b"\n").split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = mutate_json(lines[place], rng)
    return b"\n".join(lines) + b"\n"


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key or index) of every value inside a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def mutate_columns(content: bytes, rng: random.Random) -> bytes:
    """Return a Parquet file with columns of other types, lost, doubled or null, or laid out otherwise."""
    table = pq.read_table(io.BytesIO(content))
    for _ in range(rng.randint(1, 2)):
        place = rng.randrange(table.num_columns)
        name = table.column_names[place]
        match rng.randrange(5):
            case 0 if table.num_columns > 1:
                table = table.remove_column(place)
            case 1:
                table = table.append_column(name, table.column(place))
            case 2:
                names = [rng.choice(("", "label", column, column, column)) for column in table.column_names]
                table = table.rename_columns(names)
            case _:
                table = table.set_column(place, name, _odd_column(table.num_rows, rng))
    sink = io.BytesIO()
    rows = rng.choice((None, 1, 7))
    pq.write_table(table, sink, compression=rng.choice(("none", "snappy", "zstd", "gzip")), row_group_size=rows)
    return sink.getvalue() if rng.random() < 0.8 else mutate_bits(sink.getvalue(), rng)


def _odd_column(n_rows: int, rng: random.Random) -> pa.Array:
    make: list[Callable[[], pa.Array]] = [
        lambda: pa.nulls(n_rows),
        lambda: pa.array(range(n_rows), pa.int8()),
        lambda: pa.array([i / 3 if i % 2 else float("nan") for i in range(n_rows)]),
        lambda: pa.array([bytes([255, i]) for i in range(n_rows)]),
        lambda: pa.array([[str(i), None] for i in range(n_rows)]),
        lambda: pa.array([{"a": i, "b": [i]} for i in range(n_rows)]),
        lambda: pa.array(range(n_rows), pa.timestamp("ns", tz="UTC")),
        lambda: pa.array(range(n_rows), pa.int64()).cast(pa.duration("us")),
        lambda: pa.array(range(n_rows), pa.date32()),
        lambda: pa.array(range(n_rows)).cast(pa.decimal128(38, 2)),
        lambda: pa.array([str(i % 2) for i in range(n_rows)]).dictionary_encode(),
        lambda: pa.array([bool(i % 2) for i in range(n_rows)]),
        lambda: pa.array([[("k", i)] for i in range(n_rows)], pa.map_(pa.string(), pa.int64())),
        lambda: pa.array([f"\u202e{i}\u0000" for i in range(n_rows)], pa.large_string()),
        lambda: pa.array(["x" * 50_000] * n_rows),
    ]  # fmt: skip
    return rng.choice(make)()


MUTATIONS: dict[str, tuple[Mutation, ...]] = {
    "varierr": (mutate_bytes, mutate_lines, mutate_json_line, mutate_json_line),
    "jsonl": (mutate_bytes, mutate_lines, mutate_json_line, mutate_json_line),
    "lewidi": (mutate_bytes, mutate_json, mutate_json),
    "meta": (mutate_bytes, mutate_json),
    "csv": (mutate_bytes, mutate_bytes, mutate_lines),
    "parquet": (mutate_bits, mutate_bytes, mutate_columns, mutate_columns),
}


def make_mutant(form: str, content: bytes, number: int) -> bytes:
    """Return the mutant of that number of a file, the same one every time."""
    rng = random.Random(f"{form}-{number}")
    return rng.choice(MUTATIONS[form])(content, rng)
