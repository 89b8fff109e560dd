"""What holds for whatever is stored: it comes back as it was, and no changed byte is read."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capo_core.errors import DamagedArtifactError
from schemas.artifacts import ArtifactRef
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.manifests import canonical_json

TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(content=st.binary(max_size=200), metadata=st.dictionaries(TEXT, JSON, max_size=3), data=st.data())
def test_what_is_stored_comes_back_and_no_changed_byte_is_read(
    tmp_path: Path, content: bytes, metadata: dict, data: st.DataObject
) -> None:
    store = ArtifactStore(tmp_path / uuid.uuid4().hex)
    ref = store.write("report", fill=lambda folder: (folder / "page.html").write_bytes(content), metadata=metadata)
    assert store.metadata(ref) == metadata
    assert (store.path(ref) / "page.html").read_bytes() == content
    again = store.write("report", fill=lambda folder: (folder / "page.html").write_bytes(content), metadata=metadata)
    assert again == ref
    assert ArtifactRef.parse(str(ref)) == ref
    files = [path for path in sorted(store.path(ref).iterdir()) if path.stat().st_size]
    path = data.draw(st.sampled_from(files))
    changed = bytearray(path.read_bytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(changed))
    with pytest.raises(DamagedArtifactError):
        store.verify(ref)


@QUICK
@given(JSON, JSON)
def test_equal_values_and_no_others_have_the_same_canonical_json(one: object, other: object) -> None:
    assert (canonical_json(one) == canonical_json(other)) == (identity_of(one) == identity_of(other))


def identity_of(value: object) -> object:
    """Return a value in which keys have no order and 1 is not true."""
    if isinstance(value, dict):
        return frozenset((key, identity_of(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return ("list", *map(identity_of, value))
    return type(value), value


@QUICK
@given(st.text(max_size=80))
def test_a_text_is_a_reference_or_refused_and_never_a_path_elsewhere(text: str) -> None:
    store = ArtifactStore(Path("/home-of-nobody"))
    whole = f"retention/{'0' * 64}"
    for candidate in (text, f"retention/{text}", f"../{text}", f"retention/../../{text}", f"{whole}/{text}"):
        try:
            ref = ArtifactRef.parse(candidate)
        except ValueError:
            continue
        assert store.path(ref).parent.parent == store.root
        assert ".." not in store.path(ref).parts
