"""The judge's steps on a tiny random model: asking part by part, then one summary."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from endpoint_server import complete, serve
from judging_material import TASK, make_corpus, make_generations
from tiny_model import save_tiny_model

from capo_core.judging.workload import PAIRS, count_questions, narrow_judge
from schemas.artifacts import ArtifactRef
from schemas.frames import TABLES
from schemas.judge import JudgeConfig, OpenAIJudge
from schemas.training import ModelConfig
from tasks.judge import judge_method, judge_pairs, summarise_judges
from tasks.storage.artifact_store import ArtifactStore

CONFIG = JudgeConfig(
    methods=("human", "sft", "capo"), normalisations=("none",), group_size=1, n_references=1, n_groups=1
)


def test_every_part_is_asked_and_all_are_summed_up(home: Path, tmp_path: Path) -> None:
    store = ArtifactStore()
    corpus = store.write("corpus", {"data.parquet": make_corpus()})
    generations = store.write("generations", {"data.parquet": make_generations(("sft", "capo"), (1,))})
    base = save_tiny_model(tmp_path / "tiny", max_position_embeddings=4096)
    model = ModelConfig(id=base.path, dtype="float32")
    counts = count_questions(CONFIG, n_annotators=3, n_seeds=1)
    asked: dict[str, ArtifactRef] = {}
    for part in counts:
        about = (base, model, TASK, narrow_judge(CONFIG, CONFIG.backends[0], part, 0.25))
        asked[part] = (
            judge_pairs.fn(corpus, [generations], *about)
            if part == PAIRS
            else judge_method.fn(corpus, [generations], part, *about)
        )
    assert {part: ref.rows for part, ref in asked.items()} == counts
    assert store.metadata(asked["capo"])["n_ok"] == counts["capo"]
    assert store.metadata(asked["capo"])["judge"] == "local:tiny"
    prompts = {path.name for path in store.path(asked["capo"]).glob("*.txt")}
    assert prompts == {"attribution_v1.txt", "same_author_v1.txt"}, "what was asked lies beside the verdicts"
    assert not list((home / "scratch").glob("*/*")), "journals are removed once the verdicts are stored"

    summary = summarise_judges.fn(corpus, [generations], list(asked.values()), TASK, CONFIG, [1])
    tables = {name: store.read_table(summary, name) for name in TABLES["verdicts"]}
    assert tables["data.parquet"].height == sum(counts.values())
    assert tables["metrics.parquet"]["classifier"].unique().to_list() == ["local:tiny"]
    assert tables["comparisons.parquet"].height == 3 * 3  # protocols x pairs of methods
    assert tables["pairs.parquet"].filter(annotator_id="all").height == 3 + 1  # and the calibration
    judges = tables["agreement.parquet"].select(pl.concat_str("judge_a", "judge_b", separator=" ")).unique()
    assert judges.item() == "local:tiny stylometry"


def test_a_raised_budget_asks_only_what_is_still_open(home: Path) -> None:
    store = ArtifactStore()
    corpus = store.write("corpus", {"data.parquet": make_corpus()})
    counts = count_questions(CONFIG, n_annotators=3, n_seeds=1)

    def ask(address: str, max_tokens: int | None) -> ArtifactRef:
        backend = OpenAIJudge(base_url=address, model="m", n_concurrent=1, max_tokens_spent=max_tokens)
        judge = narrow_judge(CONFIG, backend, "human", 1.0)
        return judge_method.fn(corpus, [], "human", None, None, TASK, judge)

    with serve(lambda request: complete("A")) as server:
        # Every answer takes 80 tokens: after the third 240 are spent.
        first = store.metadata(ask(server.address, 200))
        assert (first["n_ok"], first["n_not_asked"]) == (3, counts["human"] - 3)
        second = store.metadata(ask(server.address, None))
        assert (second["n_ok"], second["n_not_asked"]) == (counts["human"], 0)
        assert len(server.requests) == counts["human"]
    assert not list((home / "scratch").glob("*/*"))
