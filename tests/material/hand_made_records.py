"""JSON files that somebody might send, by mistake or on purpose."""

from __future__ import annotations

import json

from hand_made_forms import HandMade, entry, item, lewidi_file, lines_file, record, row, varierr_file

DEEP = "[" * 100_000 + "]" * 100_000
RECORDS: dict[str, HandMade] = {
    # JSON Lines
    "good lines": lines_file(row(), row(annotator_id="ben"), rows=(2, 0)),
    "mixed types": lines_file(
        row(), row(label=3), row(annotator_id=7), row(explanation=["a"]), 5, None, "x", rows=(2, 5)
    ),
    "numbers beyond floats": lines_file(row(), row(annotator_id=10**400), '{"label": 1e999}', rows=(2, 1)),
    "absurdly long number": lines_file(row(), "[" + "9" * 100_000 + "]", rows=(1, 1)),
    "not numbers": lines_file(row(), '{"label": NaN}', '{"label": -Infinity}', rows=(1, 2)),
    "duplicate keys": lines_file(row(), json.dumps(row())[:-1] + ', "label": "entailment"}', rows=(1, 1)),
    "duplicate keys inside metadata": lines_file(json.dumps(row())[:-1] + ', "extra": {"a": 1, "a": 2}}', rows=(1, 0)),
    "lone surrogates": lines_file(
        row(), json.dumps(row(explanation="\ud800")), json.dumps(row(annotator_id="\udfff")), rows=(1, 2)
    ),
    "lone surrogate in metadata and key": lines_file(row(**{"\ud800": "\ud800"}), rows=(1, 0)),
    "nested lines": lines_file(
        row(), DEEP, '{"a":' * 50_000, row(annotator_id="ben", extra=json.loads("[" * 90 + "]" * 90)), rows=(2, 2)
    ),
    "two objects on a line": lines_file(row(), json.dumps(row()) * 2, rows=(1, 1)),
    "gigantic line": lines_file(row(), row(explanation="x" * 5_000_000, annotator_id="ben"), rows=(2, 0)),
    "array instead of lines": lines_file(json.dumps([row()]), says="none of"),
    # VariErr
    "varierr plain": varierr_file(record(), rows=(1, 0)),
    "varierr types": varierr_file(
        record(),
        record(idk=3, error_labels=5, label_count_round_1="x", neutral="no"),
        record(id=["a"], neutral=[None, entry(annotator={"a": 1}), entry(judgments=7)]),
        rows=(1, 4),
    ),
    "varierr doubled label": varierr_file(record(), json.dumps(record())[:-1] + ', "neutral": []}', rows=(1, 1)),
    "varierr deep": varierr_file(record(), json.dumps(record())[:-1] + ', "x": ' + DEEP + "}", rows=(1, 1)),
    "varierr huge annotator": varierr_file(
        record(), record(statement="x", neutral=[entry(annotator=10**300), entry(annotator="²")]), rows=(3, 0)
    ),
    # LeWiDi
    "lewidi plain": lewidi_file({"1": item()}, (1, 0)),
    "lewidi doubled item": lewidi_file(f'{{"1": {json.dumps(item())}, "1": {json.dumps(item())}}}', (1, 1)),
    "lewidi deep": lewidi_file('{"1": ' + DEEP + "}", says="nested too deeply"),
    "lewidi deep objects": lewidi_file('{"a":' * 100_000, says="not valid JSON"),
    "lewidi types": lewidi_file(
        {
            "1": item(),
            "2": None,
            "3": item(text=[]),
            "4": item(annotations={"a": 3}, other_info={"explanations": [1]}),
            "5": item(annotators=9, other_info=[]),
        },
        (1, 4),
    ),
    "lewidi list": lewidi_file([item()], says="an object of items by id is needed"),
    "lewidi surrogates": lewidi_file({"1": item(), "\ud800": item(annotations={"\ud800": "neutral"})}, (1, 1)),
    "lewidi cut": lewidi_file(json.dumps({"1": item()})[:-9], says="line 1, column"),
    "lewidi many explanations": lewidi_file(
        {"1": item(), "2": item(other_info={"explanations": ["x"] * 200_000})}, (1, 1)
    ),
}
