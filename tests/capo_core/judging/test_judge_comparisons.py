from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from judging_material import ANNOTATORS, ask_made_corpus, say_first

from capo_core.judging.comparisons import compare_verdicts, count_wins
from capo_core.judging.figures import summarise_verdicts
from capo_core.judging.questions import JudgeQuestion
from schemas.frames import COMPARISONS, JUDGE_PAIRS, VERDICTS
from schemas.judge import JudgeConfig

CONFIG = JudgeConfig(
    methods=("human", "sft", "capo"), normalisations=("none",), group_size=2, n_references=2, n_groups=3, seed=5
)


def narrow(protocol: str, methods: tuple[str, ...] = ("sft", "capo")) -> JudgeConfig:
    return CONFIG.model_copy(update={"protocols": (protocol,), "methods": methods})


def compare(verdicts: pl.DataFrame, config: JudgeConfig) -> pl.DataFrame:
    return compare_verdicts(verdicts, config, ANNOTATORS, n_bootstrap=200)


def prefer(method: str):
    return lambda question: question.candidates.index(method) if method in question.candidates else 0


def test_wins_of_two_annotators_and_ties_of_the_third() -> None:
    def script(question: JudgeQuestion) -> int:
        return 0 if question.annotator_id == ANNOTATORS[2] else question.candidates.index("capo")

    config = narrow("pairwise")
    verdicts = ask_made_corpus(script, config, (1,))
    row = compare(verdicts, config).row(0, named=True)
    assert (row["method_a"], row["method_b"], row["metric"]) == ("capo", "sft", "judge_win_rate")
    # 3 groups each of Ada and Bo are won (+1), Cy's 3 are ties (0): (1 + 1 + 0) / 3.
    assert row["difference"] == pytest.approx(2 / 3)
    # Swapping: the sum of six groups' signs is as great as 6 in 2 of 2^6 patterns.
    assert row["p_value"] == row["p_holm"] == pytest.approx(2 / 64)
    # Standard deviation of six ones and three zeros: √(2/9).
    assert row["effect_size"] == pytest.approx((2 / 3) / np.sqrt(2 / 9))
    # Within annotators nothing varies.
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (row["n"], row["n_seeds"], row["decision"], row["classifier"]) == (9, 1, "sampled", "scripted")
    metrics = summarise_verdicts(verdicts, config, ANNOTATORS, seeds=(1,), n_bootstrap=100)
    pairs = count_wins(verdicts, config, ANNOTATORS, metrics)
    assert dict(pairs.schema) == JUDGE_PAIRS
    counts = ["annotator_id", "n_wins_a", "n_ties", "n_wins_b", "n_unmeasured", "informative"]
    assert pairs.select(counts).rows() == [
        ("all", 6, 3, 0, 0, None),
        (ANNOTATORS[0], 3, 0, 0, 0, None),
        (ANNOTATORS[1], 3, 0, 0, 0, None),
        (ANNOTATORS[2], 0, 3, 0, 0, None),
    ]


def test_a_judge_that_always_says_first_finds_no_difference() -> None:
    comparisons = compare(ask_made_corpus(say_first, CONFIG, (1, 2)), CONFIG)
    assert dict(comparisons.schema) == COMPARISONS
    # 3 protocols x 3 pairs of methods.
    assert comparisons.height == 9
    assert comparisons["difference"].to_list() == pytest.approx([0.0] * 9)
    assert comparisons["p_value"].to_list() == [1.0] * 9
    assert comparisons["effect_size"].to_list() == [None] * 9


def test_capo_against_sft_stands_first_in_every_family() -> None:
    comparisons = compare(ask_made_corpus(say_first, CONFIG, (1,)), CONFIG)
    for family in comparisons.partition_by("metric", maintain_order=True):
        assert family.select("method_a", "method_b").rows() == [("capo", "sft"), ("capo", "human"), ("sft", "human")]


def test_accuracy_is_compared_group_by_group() -> None:
    def script(question: JudgeQuestion) -> int:
        right = question.candidates.index(question.annotator_id)
        return right if question.method == "capo" else (right + 1) % 3

    row = compare(ask_made_corpus(script, narrow("attribution"), (1,)), narrow("attribution")).row(0, named=True)
    # capo is right in all 9 groups, sft in none: 2 of 2^9 sign patterns are as extreme.
    assert (row["metric"], row["difference"], row["n"]) == ("judge_accuracy", 1.0, 9)
    assert row["p_value"] == pytest.approx(2 / 512)


def test_peoples_acceptance_meets_that_of_every_seed() -> None:
    config = narrow("same_author", ("human", "sft"))

    def script(question: JudgeQuestion) -> int:
        is_accepted = question.method == "human" or (question.method == "sft" and question.seed == 2)
        return question.candidates.index("same" if is_accepted else "different")

    row = compare(ask_made_corpus(script, config, (1, 2)), config).row(0, named=True)
    # sft minus human: 0 - 1 at seed 1, 1 - 1 at seed 2.
    assert (row["method_a"], row["method_b"], row["metric"]) == ("sft", "human", "judge_same_author_acceptance")
    assert (row["difference"], row["n"], row["n_seeds"]) == (-0.5, 9, 2)
    # Groups alone would give 2/512. The seeds differ by more than they agree: t = -.5 / √(.5 / 2) = -1 with 1 degree
    # of freedom, p = .5.
    assert row["p_value"] == pytest.approx(0.5, abs=0.01)


def test_holm_corrects_over_the_pairs_of_one_metric() -> None:
    config = narrow("pairwise", ("human", "sft", "capo"))
    comparisons = compare(ask_made_corpus(prefer("capo"), config, (1,)), config)
    # capo wins both its pairs in all 9 groups (p = 2/512); of sft and human the first is named: ties, p = 1.
    assert comparisons["p_value"].to_list() == pytest.approx([2 / 512, 2 / 512, 1.0])
    assert comparisons["p_holm"].to_list() == pytest.approx([6 / 512, 6 / 512, 1.0])


def test_a_pair_with_one_order_unread_is_not_measured() -> None:
    config = narrow("pairwise", ("human", "sft", "capo"))
    verdicts = ask_made_corpus(lambda q: "hm" if q.order and "capo" in q.candidates else 0, config, (1,))
    metrics = summarise_verdicts(verdicts, config, ANNOTATORS, seeds=(1,), n_bootstrap=100)
    counts = count_wins(verdicts, config, ANNOTATORS, metrics).filter(annotator_id="all")
    assert counts.select("method_a", "method_b", "n_ties", "n_unmeasured", "informative").rows() == [
        ("capo", "sft", 0, 9, False),
        ("capo", "human", 0, 9, False),
        ("sft", "human", 9, 0, False),
        ("human", "human_other", 9, 0, False),
    ]
    row = compare(verdicts, config).row(0, named=True)
    assert (row["difference"], row["ci_low"], row["p_value"], row["p_holm"], row["n"]) == (None, None, None, None, 0)


def test_comparisons_do_not_depend_on_row_order() -> None:
    verdicts = ask_made_corpus(lambda q: int(q.question_id, 16) % 2, CONFIG, (1, 2))
    shuffled = verdicts.sample(fraction=1.0, shuffle=True, seed=7)
    assert compare(shuffled, CONFIG).equals(compare(verdicts, CONFIG))


def test_a_judge_that_guesses_finds_a_difference_as_often_as_chance_allows() -> None:
    n_groups, n_simulations = 40, 1000
    config = narrow("pairwise").model_copy(update={"n_groups": n_groups})
    rows = [
        {
            "question_id": f"{who}/{group}/{order}", "protocol": "pairwise", "method": "capo", "compared_with": "sft",
            "seed": 1, "annotator_id": who, "item_ids": [f"{group:02d}"], "normalisation": "none", "order": order,
            "candidates": ["capo", "sft"][:: 1 - 2 * order], "status": "ok", "response": "",
            "prompt_version": "pairwise_v1", "n_attempts": 1,
        }
        for who in ANNOTATORS
        for group in range(n_groups)
        for order in (0, 1)
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema={name: kind for name, kind in VERDICTS.items() if name in rows[0]})
    rng = np.random.default_rng(11)
    # A thousand judges in one frame are a thousand comparisons.
    judges = [f"judge{number}" for number in range(n_simulations)]
    guessed = np.where(rng.random(n_simulations * frame.height) < 0.5, "capo", "sft")
    verdicts = pl.concat([frame] * n_simulations).with_columns(
        pl.Series("judge", np.repeat(judges, frame.height)), pl.Series("verdict", guessed)
    )
    found = compare_verdicts(verdicts, config, ANNOTATORS, n_bootstrap=2, n_permutations=499)
    assert found.height == n_simulations
    share = (found["p_value"] < 0.05).mean()
    assert isinstance(share, float)
    assert 0.03 <= share <= 0.07
