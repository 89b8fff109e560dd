from __future__ import annotations

import polars as pl
import pytest
from evaluation_material import NLI
from judging_material import ANNOTATORS, TASK, ask_made_corpus, make_corpus, make_generations, read_fences, say_first
from real_data import varierr_corpus

from capo_core.judging.calibration import STYLOMETRY, attribute_groups, measure_agreement
from capo_core.judging.fencing import neutralise
from capo_core.judging.question_set import build_questions
from capo_core.judging.questions import JudgeQuestion
from schemas.frames import GENERATIONS, JUDGE_AGREEMENT, empty
from schemas.judge import JudgeConfig

CONFIG = JudgeConfig(
    protocols=("attribution",), methods=("human", "sft"), normalisations=("none",), group_size=2, n_references=2,
    n_groups=3, seed=5,
)  # fmt: skip
ADA, BO, CY = ANNOTATORS


def name_author(question: JudgeQuestion) -> int:
    return question.candidates.index(question.annotator_id)


def take_cy_for_ada(question: JudgeQuestion) -> int:
    return question.candidates.index(ADA if question.annotator_id == CY else question.annotator_id)


def measure(verdicts: pl.DataFrame, attributed: dict | None = None, config: JudgeConfig = CONFIG) -> pl.DataFrame:
    return measure_agreement(verdicts, config, attributed or {}, n_bootstrap=100)


def find(table: pl.DataFrame, metric: str, source: str = "human") -> dict:
    rows = table.filter(metric=metric, source=source)
    assert rows.height == 1
    return rows.row(0, named=True)


def test_two_judges_agree_by_the_usual_coefficients() -> None:
    scripts = {"first": name_author, "second": take_cy_for_ada}
    table = measure(pl.concat([ask_made_corpus(script, CONFIG, (1,), name) for name, script in scripts.items()]))
    assert dict(table.schema) == JUDGE_AGREEMENT
    # 9 groups of people's own text: Ada, Bo, Cy three each for the first judge; Ada six, Bo three for the second.
    # p_o = 6/9, p_e = (3·6 + 3·3 + 3·0) / 81 = 1/3, κ = (2/3 - 1/3) / (2/3).
    kappa = find(table, "cohen_kappa")
    assert (kappa["judge_a"], kappa["judge_b"], kappa["n_groups"]) == ("first", "second", 9)
    assert kappa["value"] == pytest.approx(0.5)
    # α: of 18 values 9 are Ada, 6 Bo, 3 Cy; 6 ordered pairs differ; 18² - (81 + 36 + 9) = 198. 1 - 17 · 6 / 198.
    alpha = find(table, "krippendorff_alpha_nominal")
    assert alpha["value"] == pytest.approx(1 - 102 / 198)
    assert alpha["judge_a"] is None
    agreed = table.filter(metric="percent_agreement", source="human", judge_a="first")
    assert agreed["value"].to_list() == pytest.approx([6 / 9])


def test_ties_are_missing_not_disagreement() -> None:
    table = measure(
        pl.concat(
            [ask_made_corpus(name_author, CONFIG, (1,), "wise"), ask_made_corpus(say_first, CONFIG, (1,), "rash")]
        )
    )
    kappa = find(table, "cohen_kappa")
    # Every group of the judge that always names the first is a tie: no group is left to compare.
    assert (kappa["value"], kappa["n_groups"]) == (None, 0)


def test_the_classifier_finds_the_authors_who_name_themselves() -> None:
    config = CONFIG.model_copy(update={"normalisations": ("none", "surface")})
    attributed = attribute_groups(make_corpus(), make_generations(("sft",)), TASK, config)
    # 9 groups of human, human_shuffled and two seeds of sft, under two normalisations.
    assert len(attributed) == 9 * 4 * 2
    for (_, method, _, annotator, _), named in attributed.items():
        assert method != "human" or named == annotator


def test_a_judge_is_held_against_the_classifier_on_people_and_on_models() -> None:
    verdicts = ask_made_corpus(take_cy_for_ada, CONFIG, (1,))
    right = {
        ("raw", method, seed, who, tuple(items)): who
        for method, seed, who, items in verdicts.select("method", "seed", "annotator_id", "item_ids").iter_rows()
    }
    table = measure(verdicts, right)
    assert table["judge_b"].unique().to_list() == [STYLOMETRY]
    assert find(table, "cohen_kappa")["value"] == pytest.approx(0.5)
    assert find(table, "percent_agreement")["value"] == pytest.approx(6 / 9)
    assert find(table, "percent_agreement", "models")["n_groups"] == 9  # the shuffled floor enters neither


def test_pairwise_and_same_author_are_compared_between_judges_only() -> None:
    config = CONFIG.model_copy(update={"protocols": ("pairwise", "same_author")})

    def answer_second(question: JudgeQuestion) -> int:
        return 1 - question.order

    one, two = (ask_made_corpus(answer_second, config, (1,), name) for name in ("one", "two"))
    assert measure(one, {("raw", "sft", 1, ADA, ("x",)): ADA}, config).height == 0
    table = measure(pl.concat([one, two]), config=config)
    assert table.group_by("protocol", "source").len().height == 4
    agreed = table.filter(metric="percent_agreement")["value"].to_list()
    assert agreed == pytest.approx([1.0] * len(agreed))
    # sft against human: 9 pairs of groups; human and human_other: 18 groups by the same_author protocol.
    sizes = dict(table.filter(metric="cohen_kappa").select(pl.concat_str("protocol", "source"), "n_groups").iter_rows())
    assert sizes == {"pairwisehuman": 9, "pairwisemodels": 9, "same_authorhuman": 18, "same_authormodels": 9}


def test_agreement_does_not_depend_on_row_order() -> None:
    verdicts = ask_made_corpus(take_cy_for_ada, CONFIG, (1,))
    attributed = attribute_groups(make_corpus(), make_generations(("sft",), (1,)), TASK, CONFIG)
    shuffled = attribute_groups(
        make_corpus().sample(fraction=1.0, shuffle=True, seed=1),
        make_generations(("sft",), (1,)).sample(fraction=1.0, shuffle=True, seed=2),
        TASK,
        CONFIG,
    )
    assert shuffled == attributed
    reordered = verdicts.sample(fraction=1.0, shuffle=True, seed=3)
    assert measure(reordered, attributed).equals(measure(verdicts, attributed))


def test_on_real_explanations_the_classifier_meets_ceiling_and_floor() -> None:
    config = CONFIG.model_copy(
        update={"methods": ("human",), "normalisations": ("none", "surface"), "group_size": 5, "n_groups": 4}
    )
    attributed = attribute_groups(varierr_corpus(), empty(GENERATIONS), NLI, config)
    hits: dict[tuple[str, str], list[bool]] = {}
    for (condition, method, _, annotator, _), named in attributed.items():
        hits.setdefault((method, condition), []).append(named == annotator)
    # 4 annotators x 4 groups; chance is .25. The surface gives little away: the floor stays, and so does the ceiling.
    assert {key: len(found) for key, found in hits.items()} == dict.fromkeys(hits, 16)
    for condition in ("raw", "surface_normalised"):
        assert sum(hits["human", condition]) >= 15
        assert sum(hits["human_shuffled", condition]) <= 9


def test_on_real_explanations_no_reference_is_of_a_judged_item() -> None:
    corpus = varierr_corpus()
    config = JudgeConfig(methods=("human",), normalisations=("none",), n_groups=2)
    trained = set(corpus.filter(pl.col("split") == "train")["item_id"])
    written = {
        neutralise(text.strip()): item for text, item in corpus.select("explanation", "item_id").iter_rows() if text
    }
    for question in build_questions(corpus, empty(GENERATIONS), NLI, config):
        assert not set(question.item_ids) & trained
        references = [text for name, text in read_fences(question).items() if name.startswith("WRITTEN BY")]
        shown = [line.split(". ", 1)[1] for text in references for line in text.splitlines()]
        assert {written[line] in trained for line in shown} == {True}
