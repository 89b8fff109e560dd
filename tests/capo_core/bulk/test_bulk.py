"""Corpora in parts: what one pass in memory gives, whatever the parts, and gone on with where it was broken off."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from capo_core.bulk.distribution import distribute_rows
from capo_core.bulk.folders import BulkFolders
from capo_core.bulk.line import run_bulk
from capo_core.bulk.parts import ingest_part
from capo_core.config_file import load_config
from capo_core.corpora import read_corpus
from capo_core.corpora.identities import Naming
from capo_core.errors import ConfigError, InputFileError
from capo_core.preference_pairs import build_preferences
from capo_core.splits import assign_splits
from capo_core.stylometry.features import style_features
from schemas.config import ExperimentConfig

EXAMPLE = Path(__file__).parents[3] / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    return load_config(EXAMPLE, ["corpus.max_items=null"])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The example's rows in two files and in no order, with rows that break every kind of rule."""
    rows = pl.read_csv(str(files("capo_core.corpora") / "example" / "nli.csv")).with_columns(day=pl.lit("monday"))
    spoiled = rows.head(4).with_columns(
        label=pl.Series(["no such label", "entailment", "neutral", None]),
        explanation=pl.Series(["fine", " ", "another label of the same item", "no label"]),
    )
    respelt = rows.slice(8, 1).with_columns(
        pl.col("text_a").str.replace(" ", "\u00a0 \x1f"), annotator_id=pl.lit("eve")
    )
    mixed = pl.concat([rows, spoiled, respelt, rows.slice(20, 2)]).sample(fraction=1, shuffle=True, seed=3)
    folder = tmp_path_factory.mktemp("raw")
    paths = [folder / "first.parquet", folder / "second.parquet"]
    for path, part in zip(paths, (mixed.head(100), mixed.slice(100)), strict=True):
        part.write_parquet(path)
    return paths


@pytest.fixture(scope="module")
def in_memory(sources: list[Path], config: ExperimentConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    found = read_corpus(sources, "table", config.task)
    return assign_splits(found.annotations, config.splits), found.quarantine


@pytest.fixture(scope="module")
def bulk(sources: list[Path], config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> BulkFolders:
    root = tmp_path_factory.mktemp("bulk") / "out"
    counts = run_bulk(sources, root, config, ["ada", "eve"], n_processes=2, n_parts=7)
    assert counts["rows_in"] == counts["rows_accepted"] + counts["rows_quarantined"]
    assert counts["rows_quarantined"] == sum(n for name, n in counts.items() if name.startswith("quarantined_"))
    return BulkFolders(root)


def _whole(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))])


def test_the_corpus_is_that_of_one_pass(bulk: BulkFolders, in_memory: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    order = ["item_id", "annotator_id", "label"]
    assert_frame_equal(_whole(bulk.corpus).sort(order), in_memory[0].sort(order))


def test_refused_rows_are_those_of_one_pass_with_their_file_and_line(
    bulk: BulkFolders, in_memory: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    order = ["source_file", "source_line"]
    assert in_memory[1].height >= 5
    assert_frame_equal(_whole(bulk.quarantine).sort(order), in_memory[1].sort(order))


def test_features_and_pairs_are_those_of_one_pass(
    bulk: BulkFolders, in_memory: tuple[pl.DataFrame, pl.DataFrame], config: ExperimentConfig
) -> None:
    order = ["item_id", "annotator_id", "label"]
    expected = style_features(in_memory[0]).drop("explanation")
    assert_frame_equal(_whole(bulk.features).sort(order), expected.sort(order))
    for annotator in ("ada", "eve"):
        preferences, _ = build_preferences(in_memory[0], annotator, config.task, config.pairs, tag=None)
        pairs = ["item_id", "chosen_label", "rejected_annotator_id", "rejected_label"]
        assert_frame_equal(_whole(bulk.preferences(annotator)).sort(pairs), preferences.sort(pairs))


def test_an_item_is_in_one_part_however_its_texts_are_spelt(sources: list[Path], tmp_path: Path) -> None:
    parts = distribute_rows(sources, tmp_path, 50)
    places = pl.concat(
        pl.read_parquet(path).select(
            pl.col("text_a").str.replace_all(r"[\s\x1f]+", " "), "text_b", pl.lit(number).alias("part")
        )
        for number, path in enumerate(parts)
    )
    assert places.group_by("text_a", "text_b").agg(pl.col("part").n_unique())["part"].max() == 1
    assert len(places["part"].unique()) > 10


def test_people_are_renamed_left_out_and_erased_as_in_one_pass(
    sources: list[Path], config: ExperimentConfig, tmp_path: Path
) -> None:
    raw = tmp_path / "raw.parquet"
    refusing = {"dov": "analysis", "chi": "none"}
    note = pl.when(pl.col("item_id").str.ends_with("3")).then(pl.lit("asked margaret about it"))
    rows = pl.concat([pl.read_parquet(path) for path in sources]).with_columns(
        pl.col("annotator_id").replace_strict(refusing, default="all").alias("consent").replace("all", None),
        pl.col("annotator_id").replace("ada", "margaret"), note.alias("note"),
    )  # fmt: skip
    rows.write_parquet(raw)
    naming = Naming("example", b"k" * 32)
    naming = replace(naming, erased=frozenset({naming.pseudonym("ben")}))
    ada = naming.pseudonym("margaret")
    counts = run_bulk([raw], tmp_path / "out", config, [ada, "dov"], n_processes=1, n_parts=5, naming=naming)
    assert counts["rows_erased"] == rows.filter(annotator_id="ben").height > 0
    assert counts["rows_in"] == counts["rows_accepted"] + counts["rows_quarantined"] + counts["rows_erased"]
    folders = BulkFolders(tmp_path / "out")
    corpus = _whole(folders.corpus)
    assert set(corpus["annotator_id"]) == {naming.pseudonym(name) for name in ("margaret", "dov", "eve")}
    preferences = _whole(folders.preferences(ada))
    assert set(preferences["rejected_annotator_id"]) <= {naming.pseudonym("eve")}
    assert counts["pairs.dov"] == 0
    for path in (tmp_path / "out").rglob("*.parquet"):
        assert "margaret" not in str(pl.read_parquet(path).to_dicts()).casefold(), path
    assert not folders.raw.exists()


def test_what_was_done_is_not_done_again_and_what_is_missing_is(
    bulk: BulkFolders, sources: list[Path], config: ExperimentConfig, tmp_path: Path
) -> None:
    root = tmp_path / "out"
    shutil.copytree(bulk.root, root)
    folders = BulkFolders(root)
    lost = folders.features / "part-00003.parquet"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")}
    expected = lost.read_bytes()
    lost.unlink()
    (folders.features / ".part-00003.parquet").write_bytes(b"half a file of a run that was killed")
    run_bulk(sources, root, config, ["ada", "eve"], n_processes=1, n_parts=7)
    assert lost.read_bytes() == expected
    changed = {path for path in root.rglob("*.parquet") if path.stat().st_mtime_ns != before.get(path)}
    # A part without rows of an annotator has no pairs to write, so it is looked at each time.
    assert changed == {lost}


def test_a_folder_of_another_corpus_is_refused(
    bulk: BulkFolders, sources: list[Path], config: ExperimentConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="other files or settings"):
        run_bulk(sources[:1], bulk.root, config, [], n_processes=1, n_parts=7)
    changed = tmp_path / sources[0].name  # of the same size
    content = bytearray(sources[0].read_bytes())
    content[8] ^= 1
    changed.write_bytes(content)
    with pytest.raises(ConfigError, match="other files or settings"):
        run_bulk([changed, *sources[1:]], bulk.root, config, [], n_processes=1, n_parts=7)
    with pytest.raises(ConfigError, match="not empty"):
        run_bulk(sources, tmp_path, config, [], n_processes=1)


def test_what_compares_a_whole_corpus_is_refused(sources: list[Path], tmp_path: Path) -> None:
    nearest = load_config(EXAMPLE, ["pairs.strategy=nearest"])
    with pytest.raises(ConfigError, match=r"pairs\.strategy nearest"):
        run_bulk(sources, tmp_path / "out", nearest, [], n_processes=1)


def test_files_that_do_not_fit_are_named(sources: list[Path], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.parquet"
    row = pl.read_parquet(sources[0]).head(1)
    for frame, message in ((row.drop("label"), r"missing column\(s\) label"), (row.with_columns(text_a=1), "or types")):
        frame.write_parquet(wrong)
        with pytest.raises(InputFileError, match=rf"wrong\.parquet.*{message}"):
            distribute_rows([sources[0], wrong], tmp_path, 2)
    wrong.write_bytes(b"PAR1 no more")
    with pytest.raises(InputFileError, match=r"wrong\.parquet: not a readable Parquet file"):
        distribute_rows([wrong], tmp_path, 2)


def test_ray_data_maps_the_same_functions(sources: list[Path], config: ExperimentConfig, tmp_path: Path) -> None:
    data = pytest.importorskip("ray.data", reason="Ray not tested: pip install 'capo[ray]'")
    import ray

    parts = distribute_rows(sources, tmp_path, 3)

    def check(row: dict) -> dict:
        raw = Path(row["item"])
        return ingest_part(raw, raw.with_suffix(".annotations"), raw.with_suffix(".quarantine"), config.task)

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        counts = data.from_items([str(part) for part in parts]).map(check).to_pandas()
    finally:
        ray.shutdown()
    n_rows = sum(pl.read_parquet(source).height for source in sources)
    assert int(np.sum(counts["rows_in"])) == n_rows == int(np.sum(counts["rows_accepted"] + counts["rows_quarantined"]))
