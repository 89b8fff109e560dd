from __future__ import annotations

import polars as pl
import pytest
from judging_material import (
    ANNOTATORS,
    TASK,
    Script,
    ScriptedJudge,
    ask_made_corpus,
    find_figure,
    know_authors,
    make_corpus,
    make_generations,
    read_fences,
    say_first,
)

from capo_core.errors import JudgeError
from capo_core.judging.figures import summarise_verdicts
from capo_core.judging.question_set import build_questions
from capo_core.judging.questions import JudgeQuestion
from capo_core.judging.verdicts import collect_verdicts
from schemas.frames import METRICS
from schemas.judge import JudgeConfig

CONFIG = JudgeConfig(
    methods=("human", "sft"), normalisations=("none",), group_size=2, n_references=2, n_groups=3, seed=5
)
ATTRIBUTION = CONFIG.model_copy(update={"protocols": ("attribution",)})
SEEDS = (1, 2)


def summarise(verdicts: pl.DataFrame, config: JudgeConfig = CONFIG) -> pl.DataFrame:
    return summarise_verdicts(verdicts, config, ANNOTATORS, seeds=SEEDS, n_bootstrap=200)


def measure(script: Script, config: JudgeConfig = CONFIG) -> pl.DataFrame:
    return summarise(ask_made_corpus(script, config, SEEDS), config)


def oracle(question: JudgeQuestion) -> int:
    """Name the true or imitated author; the rest as the texts say."""
    if question.protocol == "attribution":
        return question.candidates.index(question.annotator_id)
    return know_authors(question)


def test_a_judge_that_knows_is_always_right() -> None:
    metrics = measure(oracle, ATTRIBUTION)
    assert dict(metrics.schema) == METRICS
    accuracy = find_figure(metrics, "judge_accuracy")
    # 3 annotators x 3 groups; the two seeds judge the same groups of items.
    assert (accuracy["value"], accuracy["ci_low"], accuracy["ci_high"], accuracy["n"]) == (1.0, 1.0, 1.0, 9)
    assert (accuracy["n_seeds"], accuracy["group_size"], accuracy["decision"]) == (2, 2, "sampled")
    assert accuracy["classifier"] == "scripted"
    assert find_figure(metrics, "judge_tie_rate")["value"] == 0.0
    assert find_figure(metrics, "judge_self_consistency")["value"] == 1.0
    assert find_figure(metrics, "judge_parse_rate")["value"] == 1.0
    # Every candidate stands once at every position, so the right one is at each in a third of the questions.
    assert find_figure(metrics, "judge_position_bias")["value"] == pytest.approx(0.0)
    assert find_figure(metrics, "judge_chance")["value"] == pytest.approx(1 / 3)


def test_a_judge_that_knows_the_authors_reaches_the_ceiling_of_every_protocol() -> None:
    config = CONFIG.model_copy(update={"normalisations": ("none", "surface")})
    metrics = measure(know_authors, config)
    for condition in ("raw", "surface_normalised"):
        for metric in (
            "judge_accuracy",
            "judge_pairwise_accuracy",
            "judge_same_author_sensitivity",
            "judge_same_author_specificity",
            "judge_same_author_balanced_accuracy",
            "judge_informative",
            "judge_pairwise_informative",
            "judge_same_author_informative",
        ):
            assert find_figure(metrics, metric, "human", condition=condition)["value"] == 1.0
        assert find_figure(metrics, "judge_same_author_acceptance", condition=condition)["value"] == 1.0
    assert find_figure(metrics, "judge_same_author_acceptance", "human", condition="other_annotator")["value"] == 0.0
    # The model names the person it imitates as the person does: both match, so the first is named in either order.
    assert find_figure(metrics, "judge_pairwise_tie_rate", "all")["value"] == 1.0
    floor = find_figure(metrics, "judge_accuracy", "human", condition="shuffled")["value"]
    assert floor == find_figure(metrics, "judge_accuracy", "human", condition="shuffled:surface_normalised")["value"]
    assert floor < 0.9


def test_the_floor_is_the_share_of_shuffled_groups_whose_first_author_is_the_claimed_one() -> None:
    verdicts = ask_made_corpus(know_authors, ATTRIBUTION, SEEDS)
    # The judge names the author of the first text of each group; counted by hand from the verdicts.
    floor = verdicts.filter(method="human_shuffled")
    by_hand = (floor["verdict"] == floor["annotator_id"]).mean()
    found = find_figure(summarise(verdicts, ATTRIBUTION), "judge_accuracy", "human", condition="shuffled")
    assert found["value"] == pytest.approx(by_hand)


def test_a_judge_that_always_says_first_comes_out_as_ties_in_every_protocol() -> None:
    metrics = measure(say_first)
    # Attribution: each of 3 rotations names another annotator, a three-way tie worth 1/3. The two orders of the other
    # protocols name different answers: a tie worth 1/2. All verdicts stand at one position: 1 - 1/candidates.
    for prefix, method, credit, chance in (
        ("judge", "sft", ("judge_accuracy", "sft"), 1 / 3),
        ("judge_pairwise", "all", ("judge_pairwise_accuracy", "human"), 1 / 2),
        ("judge_same_author", "sft", ("judge_same_author_acceptance", "sft"), 1 / 2),
    ):
        assert find_figure(metrics, f"{prefix}_tie_rate", method)["value"] == 1.0
        assert find_figure(metrics, f"{prefix}_self_consistency", method)["value"] == 0.0
        assert find_figure(metrics, f"{prefix}_position_bias", method)["value"] == pytest.approx(1 - chance)
        assert find_figure(metrics, *credit)["value"] == pytest.approx(chance)
        # n = 9 groups suffice to tell, and the interval [chance, chance] is not above chance.
        assert find_figure(metrics, f"{prefix}_informative", "human")["value"] == 0.0
        assert find_figure(metrics, f"{prefix}_informative", method)["value"] == 0.0


def test_a_judge_that_accepts_everything_has_no_balanced_accuracy_to_show_for_it() -> None:
    config = CONFIG.model_copy(update={"protocols": ("same_author",)})
    metrics = measure(lambda question: question.candidates.index("same"), config)
    found = {
        name: find_figure(metrics, f"judge_same_author_{name}", "human")["value"]
        for name in (
            "sensitivity", "specificity", "balanced_accuracy", "position_bias", "self_consistency", "informative"
        )
    }  # fmt: skip
    # "same" stands once at either letter: no bias of position, and the orders agree.
    assert found == {
        "sensitivity": 1.0, "specificity": 0.0, "balanced_accuracy": 0.5, "position_bias": 0.0,
        "self_consistency": 1.0, "informative": 0.0,
    }  # fmt: skip


def test_a_judge_that_goes_by_the_surface_is_informative_on_text_as_written_alone() -> None:
    def read_capitals(question: JudgeQuestion) -> int:
        has_capitals = any(name in read_fences(question)["TO ATTRIBUTE"] for name in ("ADA", "BO", "CY"))
        return know_authors(question) if has_capitals else 0

    metrics = measure(read_capitals, ATTRIBUTION.model_copy(update={"normalisations": ("none", "surface")}))
    for method in ("human", "sft"):
        assert find_figure(metrics, "judge_informative", method)["value"] == 1.0
        assert find_figure(metrics, "judge_informative", method, condition="surface_normalised")["value"] == 0.0
    found = find_figure(metrics, "judge_accuracy", "human", condition="surface_normalised")
    assert found["value"] == pytest.approx(1 / 3)


def test_without_people_nothing_is_known_of_the_judge() -> None:
    metrics = measure(know_authors, CONFIG.model_copy(update={"methods": ("sft",)}))
    flags = metrics.filter(pl.col("metric").str.ends_with("_informative"))
    # attribution and same_author of sft; there is no pair of methods to compare.
    assert flags["metric"].to_list() == ["judge_informative", "judge_same_author_informative"]
    assert flags["value"].to_list() == [None, None]


def test_a_two_way_tie_counts_half() -> None:
    config = ATTRIBUTION.model_copy(update={"methods": ("human",)})
    ada, bo, _ = ANNOTATORS

    def undecided(question: JudgeQuestion) -> int | str:
        # Per group: one verdict for Ada, one for Bo, one unreadable.
        named = {ada: ada, bo: bo}.get(question.candidates[0])
        return question.candidates.index(named) if named else "both"

    metrics = measure(undecided, config)
    values = [find_figure(metrics, "judge_accuracy", "human", who)["value"] for who in ("all", *ANNOTATORS)]
    # Ada's and Bo's groups are right by half, Cy's never: (1/2 + 1/2 + 0) / 3 = 1/3.
    assert values == pytest.approx([1 / 3, 0.5, 0.5, 0.0])
    assert find_figure(metrics, "judge_tie_rate", "human")["value"] == 1.0
    assert find_figure(metrics, "judge_parse_rate", "human")["value"] == pytest.approx(2 / 3)


def test_the_plurality_of_rotations_decides() -> None:
    config = ATTRIBUTION.model_copy(update={"methods": ("human",)})

    def mostly_right(question: JudgeQuestion) -> int:
        return (oracle(question) + (question.candidates[0] == ANNOTATORS[1])) % 3

    metrics = measure(mostly_right, config)
    assert find_figure(metrics, "judge_accuracy", "human")["value"] == 1.0
    assert find_figure(metrics, "judge_tie_rate", "human")["value"] == 0.0
    # Two of three orders agree: one of the three pairs of orders.
    assert find_figure(metrics, "judge_self_consistency", "human")["value"] == pytest.approx(1 / 3)


def test_a_group_without_a_majority_of_readable_verdicts_is_not_measured() -> None:
    def mumbling(question: JudgeQuestion) -> int | str:
        spoken = question.annotator_id != ANNOTATORS[0] or question.order == 0
        return oracle(question) if spoken else "hm"

    metrics = measure(mumbling)
    # Of Ada's groups one rotation in three is readable, or one order of two: none is measured. 3 groups x 2 seeds are
    # short.
    for prefix, main, share in (
        ("judge", "judge_accuracy", 1 / 3),
        ("judge_same_author", "judge_same_author_acceptance", 1 / 2),
    ):
        ada = find_figure(metrics, main, who=ANNOTATORS[0])
        assert (ada["value"], ada["ci_low"], ada["n"]) == (None, None, 0)
        assert find_figure(metrics, f"{prefix}_group_shortfall", who=ANNOTATORS[0])["value"] == 6.0
        assert find_figure(metrics, f"{prefix}_parse_rate", who=ANNOTATORS[0])["value"] == pytest.approx(share)
        overall = find_figure(metrics, main)
        assert (overall["value"], overall["n"]) == (1.0, 6)
        assert find_figure(metrics, f"{prefix}_group_shortfall")["value"] == 6.0


def test_missing_explanations_are_counted_as_a_shortfall() -> None:
    generations = make_generations(("sft",), SEEDS).filter(pl.col("annotator_id") != ANNOTATORS[2])
    questions = build_questions(make_corpus(), generations, TASK, CONFIG)
    metrics = summarise(collect_verdicts(questions, ScriptedJudge(oracle)))
    # Of 3 x 3 x 2 = 18 groups Cy's 6 are missing; likewise of the 18 pairs of groups of sft and human.
    for name, method in (("judge", "sft"), ("judge_same_author", "sft"), ("judge_pairwise", "all")):
        shortfall = find_figure(metrics, f"{name}_group_shortfall", method)
        assert (shortfall["value"], shortfall["n"]) == (6.0, 18)
        assert find_figure(metrics, f"{name}_parse_rate", method, ANNOTATORS[2])["value"] is None


def test_a_method_without_a_readable_explanation_is_not_measured() -> None:
    generations = make_generations(("sft",), SEEDS).with_columns(pl.lit(None, pl.String).alias("explanation"))
    questions = build_questions(make_corpus(), generations, TASK, ATTRIBUTION)
    metrics = summarise(collect_verdicts(questions, ScriptedJudge(oracle)), ATTRIBUTION)
    assert find_figure(metrics, "judge_accuracy")["value"] is None
    assert find_figure(metrics, "judge_position_bias")["value"] is None
    assert find_figure(metrics, "judge_group_shortfall")["value"] == 18.0


def test_failures_are_told_from_unreadable_answers_and_both_from_what_was_not_asked() -> None:
    said = {0: "failed", 1: "hm", 2: "not_asked"}
    metrics = measure(lambda q: said[q.order] if q.annotator_id == ANNOTATORS[0] else oracle(q), ATTRIBUTION)
    found = [
        find_figure(metrics, f"judge_{name}", who=ANNOTATORS[0])
        for name in ("parse_rate", "failure_rate", "not_asked_rate")
    ]
    # 3 groups x 2 seeds x 3 orders = 18 questions, of which 12 were asked and 6 of these failed.
    assert [(row["value"], row["n"]) for row in found] == [(0.0, 12), (0.5, 12), (pytest.approx(1 / 3), 18)]
    assert find_figure(metrics, "judge_accuracy")["value"] == 1.0


def test_too_few_groups_say_nothing_about_the_judge() -> None:
    # 1 group for each of 3 annotators; with 1/3 chance 3 hits come about by luck in 1/27 < 5% of the cases, with 1/2 in
    # 1/8. Balanced accuracy has as many groups again: 1/64.
    config = CONFIG.model_copy(update={"methods": ("human",), "n_groups": 1})
    metrics = measure(oracle, config)
    found = {
        prefix: find_figure(metrics, f"{prefix}_informative", "human")["value"]
        for prefix in ("judge", "judge_pairwise", "judge_same_author")
    }
    assert found == {"judge": 1.0, "judge_pairwise": None, "judge_same_author": 1.0}
    assert find_figure(metrics, "judge_pairwise_accuracy", "human")["value"] == 1.0


def test_intervals_resample_groups_and_repeat_with_the_seed() -> None:
    def half_right(question: JudgeQuestion) -> int:
        wrong = question.item_ids[0] < "item10"
        return (oracle(question) + wrong) % 3

    verdicts = ask_made_corpus(half_right, ATTRIBUTION, SEEDS)
    metrics = summarise(verdicts, ATTRIBUTION)
    accuracy = find_figure(metrics, "judge_accuracy")
    assert accuracy["ci_low"] < accuracy["value"] < accuracy["ci_high"]
    assert summarise(verdicts.sample(fraction=1.0, shuffle=True, seed=3), ATTRIBUTION).equals(metrics)


def test_several_judges_are_summarised_apart() -> None:
    both = pl.concat(
        [
            ask_made_corpus(oracle, ATTRIBUTION, SEEDS, name="wise"),
            ask_made_corpus(say_first, ATTRIBUTION, SEEDS, name="rash"),
        ]
    )
    metrics = summarise(both, ATTRIBUTION)
    for name, script in (("wise", oracle), ("rash", say_first)):
        alone = summarise(ask_made_corpus(script, ATTRIBUTION, SEEDS, name=name), ATTRIBUTION)
        assert metrics.filter(classifier=name).equals(alone)


def test_two_judges_of_one_name_are_refused() -> None:
    verdicts = ask_made_corpus(oracle, ATTRIBUTION, SEEDS)
    with pytest.raises(JudgeError, match=r"'scripted' answered \d+ questions twice"):
        summarise(pl.concat([verdicts, verdicts]), ATTRIBUTION)
