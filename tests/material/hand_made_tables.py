"""CSV files that somebody might send, by mistake or on purpose."""

from __future__ import annotations

import gzip

from hand_made_forms import GOOD, HEADER, HandMade, csv_file

TABLES: dict[str, HandMade] = {
    # encodings
    "utf-8": csv_file(GOOD, (2, 0)),
    "byte-order mark": csv_file(GOOD, (2, 0), encoding="utf-8-sig"),
    "byte-order mark in every line": csv_file(GOOD.replace("\n", "\n\ufeff"), (2, 1)),
    "utf-16 with mark": csv_file(GOOD, says="UTF-16", encoding="utf-16"),
    "utf-16 without mark": csv_file(GOOD, says="missing column", encoding="utf-16-le"),
    "utf-32": csv_file(GOOD, says="UTF-16", encoding="utf-32"),
    "latin-1": csv_file(GOOD.replace("wets", "wéts"), (1, 1), encoding="latin-1"),
    "overlong utf-8": csv_file(GOOD.replace("wets", "\udcc0\udcaf"), (1, 1)),
    "lone surrogate in bytes": csv_file(GOOD.replace("wets", "\udced\udca0\udc80"), (1, 1)),
    "no final line end": csv_file(GOOD.rstrip(), (2, 0)),
    "windows line ends": csv_file(GOOD.replace("\n", "\r\n"), (2, 0), header=HEADER.replace("\n", "\r\n")),
    "old mac line ends": csv_file(GOOD.replace("\n", "\r"), (2, 0), header=HEADER.replace("\n", "\r")),
    "unicode line separators inside": csv_file(GOOD.replace("Rain", "Ra\u2028in\x85"), (2, 0)),
    "gzip under a wrong name": HandMade("table", ".csv", lambda: gzip.compress(HEADER.encode()), says="column"),
    # characters
    "nul in a text": csv_file(GOOD.replace("wets", "we\0ts"), (2, 0)),
    "nothing but nul": HandMade("table", ".csv", lambda: bytes(1000), says="column"),
    "nul as an explanation": csv_file(GOOD.replace("Rain wets.", "\0"), (1, 1)),
    "right-to-left marks": csv_file(GOOD.replace("wets", "\u202ewets\u202c"), (2, 0)),
    "only right-to-left marks": csv_file(GOOD.replace("Rain wets.", "\u202e\u200f"), (1, 1)),
    "zero-width annotator": csv_file(GOOD.replace("ada", "\u200b"), (1, 1)),
    "combining flood": csv_file(GOOD.replace("wets", "w" + "\u0301" * 50_000), (2, 0)),
    "emoji and astral": csv_file(GOOD.replace("wets", "👩‍👩‍👧‍👦 𝒘𝒆𝒕𝒔"), (2, 0)),
    "formulas": csv_file(GOOD.replace("Rain wets.", "=cmd|' /C calc'!A1"), (2, 0)),
    "markup": csv_file(GOOD.replace("Rain wets.", "<script>alert(1)</script>{{7*7}}"), (2, 0)),
    "path as ids": csv_file(GOOD.replace("ada", "../../etc/passwd").replace("1,", "../x,", 1), (2, 0)),
    # structure of CSV
    "empty": HandMade("table", ".csv", bytes, says="is empty"),
    "blank lines only": HandMade("table", ".csv", lambda: b"\n\n \n", says="is empty"),
    "header only": csv_file("", says="no annotations at all"),
    "semicolons": csv_file(GOOD.replace(",", ";"), says="separated by commas", header=HEADER.replace(",", ";")),
    "column twice": csv_file(GOOD, says="stand twice", header=HEADER.replace("label", "text_a,label")),
    "column missing": csv_file(GOOD, says="missing column", header=HEADER.replace("label", "etikett")),
    "too few cells": csv_file(GOOD + "3,only\n", (2, 1)),
    "too many cells": csv_file(GOOD + "3,a,b,ada,neutral,e,f,g\n", (2, 1)),
    "quote never closed": csv_file(GOOD + '3,a,"b,ada,neutral,e\n4,a,b,ada,neutral,e\n', (2, 1)),
    "quote inside quotes": csv_file(GOOD + '3,"a"b",c,ada,neutral,e\n', (2, 1)),
    "line break in a cell": csv_file(GOOD + '3,"a\nb",c,ada,neutral,e\n', (3, 0)),
    "gigantic cell": csv_file(GOOD + f"3,{'x' * 5_000_000},c,ada,neutral,e\n", (2, 1)),
    "gigantic cell of many lines": csv_file(GOOD + '3,"' + "x\n" * 100_000 + '",c,ada,neutral,e\n'),
    "a hundred thousand cells": csv_file(GOOD + "," * 100_000 + "\n", (2, 1)),
    "a hundred thousand columns": csv_file(
        "", says="missing column", header=",".join(f"c{i}" for i in range(100_000)) + "\n"
    ),
    "five thousand broken rows": csv_file(GOOD + '3,"a"b,c,ada,neutral,e\n' * 5_000, (2, 5_000)),
}
