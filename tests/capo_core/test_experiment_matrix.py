"""Matrices: what ships expands; overrides reach the arms they are meant for; what cannot be run is refused first."""

from __future__ import annotations

from pathlib import Path

import pytest

from capo_core.config_file import load_config
from capo_core.errors import ConfigError
from capo_core.experiment_matrix import expand_arms, load_matrix, split_methods
from schemas.config import ExperimentConfig
from schemas.experiment import Arm, ExperimentMatrix

ROOT = Path(__file__).parent.parent.parent / "deployments"
SHIPPED = sorted((ROOT / "experiments").glob("*.yaml"))
VARIERR = load_config(ROOT / "configs" / "varierr" / "smollm2-135m.yaml")
PARAPHRASE = load_config(ROOT / "configs" / "paraphrase" / "smollm2-135m.yaml")


def _matrix(**sections: object) -> ExperimentMatrix:
    return ExperimentMatrix.model_validate({"name": "m", "configs": ["a.yaml", "b.yaml"], **sections})


def _expand(*configs: ExperimentConfig, **sections: object) -> list[Arm]:
    return expand_arms(_matrix(**sections), configs or (VARIERR, PARAPHRASE))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_matrix_expands(path: Path) -> None:
    matrix, configs = load_matrix(path)
    arms = expand_arms(matrix, configs)
    assert len({arm.label for arm in arms}) == len(arms) > 0


def test_the_shipped_experiment_has_both_corpora_both_layouts_and_three_seeds() -> None:
    arms = expand_arms(*load_matrix(ROOT / "experiments" / "smollm2-135m.yaml"))
    found = {(arm.config.corpus.name, arm.config.adapter.layout, len(arm.config.seeds)) for arm in arms}
    layouts = ("per_annotator", "shared")
    assert found == {(corpus, layout, 3) for corpus in ("varierr", "paraphrase") for layout in layouts}
    # 391 items of VariErr: 242 to train on
    assert all(391 * arm.config.splits.train >= 240 and arm.config.corpus.max_items is None for arm in arms)


def test_an_arm_is_a_configuration_with_a_layout_and_a_strategy() -> None:
    arms = _expand(layouts=["per_annotator", "shared"], pair_strategies=["all", "nearest"], seeds=[1, 2])
    assert [tuple(arm.identity.values()) for arm in arms] == [
        (corpus, "bundled:smollm2-135m-instruct", layout, strategy)
        for corpus in ("varierr", "paraphrase")
        for layout in ("per_annotator", "shared")
        for strategy in ("all", "nearest")
    ]
    assert arms[3].config.adapter.layout == "shared"
    assert arms[3].config.pairs.strategy == "nearest"
    assert all((arm.config.seeds, arm.config.name) == ((1, 2), "m") for arm in arms)


def test_a_strategy_by_validity_is_left_out_where_nobody_judged() -> None:
    arms = _expand(pair_strategies=["all", {"strategy": "all", "min_validity": 0.5}])
    assert [(arm.identity["corpus"], arm.identity["pair_strategy"]) for arm in arms] == [
        ("varierr", "all"),
        ("varierr", "all, validity >= 0.5"),
        ("paraphrase", "all"),
    ]
    with pytest.raises(ConfigError, match="every pair strategy asks for judgements"):
        _expand(PARAPHRASE, pair_strategies=[{"strategy": "all", "min_validity": 0.5}])


def test_pair_strategies_make_no_arms_without_capo() -> None:
    assert len(_expand(methods=["sft"], pair_strategies=["all", "nearest", "farthest"])) == 2


def test_recipes_win_over_overrides_and_later_recipes_over_earlier_ones() -> None:
    arms = _expand(
        layouts=["per_annotator", "shared"],
        overrides={"capo": {"beta": 0.2, "learning_rate": 2e-4}, "sft.n_epochs": 5, "corpus.max_items": None},
        recipes=[
            {"corpus": "paraphrase", "set": {"capo.beta": 0.3, "capo.n_epochs": 4}},
            {"layout": "shared", "set": {"capo": {"beta": 0.4, "learning_rate": 5e-5}}},
            {"corpus": "varierr", "layout": "shared", "set": {"capo.beta": 0.5}},
        ],
    )
    assert [arm.config.capo.beta for arm in arms] == [0.2, 0.5, 0.3, 0.4]
    assert [arm.config.capo.n_epochs for arm in arms] == [1, 1, 4, 4]
    assert [arm.config.capo.learning_rate for arm in arms] == [2e-4, 5e-5, 2e-4, 5e-5]
    assert {(arm.config.sft.n_epochs, arm.config.corpus.max_items) for arm in arms} == {(5, None)}


def test_sections_that_name_methods_keep_those_that_the_matrix_has() -> None:
    (arm,) = _expand(VARIERR, methods=["sft"])
    assert arm.config.generation.methods == ("sft",)
    assert arm.config.judge.methods == arm.config.human_validation.methods == ("human", "sft")


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"overrides": {"capo.betta": 1}}, r"capo\.betta: unknown key; allowed here: .*beta"),
        ({"recipes": [{"corpus": "snli", "set": {"capo.beta": 1}}]}, r"recipes name corpus \['snli'\]"),
        ({"recipes": [{"layout": "shared", "set": {"capo.beta": 1}}]}, r"recipes name layout \['shared'\]"),
        ({"recipes": [{"layout": "per_annotator", "set": {"seeds": [1]}}]}, r"overrides set \['seeds'\]"),
        ({"overrides": {"pairs.strategy": "all"}}, r"overrides set \['pairs\.strategy'\]"),
        ({"overrides": {"seeds": [1]}}, r"overrides set \['seeds'\]"),
    ],
)
def test_overrides_that_reach_nothing_are_refused(sections: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        _expand(**sections)


def test_two_configurations_of_one_corpus_and_model_are_refused() -> None:
    with pytest.raises(ConfigError, match="same corpus and model"):
        _expand(VARIERR, VARIERR)


def test_transfer_needs_two_corpora() -> None:
    with pytest.raises(ConfigError, match="two corpora or more"):
        _expand(VARIERR, transfer=True)


@pytest.mark.parametrize("field", ["configs", "methods", "layouts", "pair_strategies", "seeds"])
def test_nothing_may_stand_twice(field: str) -> None:
    twice = {
        "configs": ["a", "a"], "methods": ["sft", "sft"], "layouts": ["shared", "shared"], "seeds": [1, 1],
        "pair_strategies": ["all", {"strategy": "all"}],
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"{field}: each may stand once only"):
        _matrix(**{field: twice[field]})


def test_configurations_are_found_beside_the_matrix_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "m.yaml"
    path.write_text("name: m\nconfigs: [../one.yaml]\nlayers: [shared]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"(?s)m\.yaml.*layers: unknown key; allowed here: configs, layouts, methods"):
        load_matrix(path)
    path.write_text("name: m\nconfigs: [../one.yaml]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"one\.yaml: cannot be read"):
        load_matrix(path)
    text = (ROOT / "configs" / "varierr" / "smollm2-135m.yaml").read_text(encoding="utf-8")
    (tmp_path / "one.yaml").write_text(text, encoding="utf-8")
    matrix, configs = load_matrix(path, ["seeds=[5]", "overrides.capo.beta=0.7"])
    assert [config.corpus.name for config in configs] == ["varierr"]
    (arm,) = expand_arms(matrix, configs)
    assert (arm.config.seeds, arm.config.capo.beta) == ((5,), 0.7)


def test_baselines_are_those_of_every_layout_strategy_and_training() -> None:
    arms = _expand(
        VARIERR,
        layouts=["per_annotator", "shared"],
        pair_strategies=["all", "nearest"],
        recipes=[{"layout": "shared", "set": {"capo.beta": 0.4, "evaluation.n_groups": 50}}],
    )
    parts = [split_methods(arm.config) for arm in arms]
    assert len({prompted.model_dump_json() for prompted, _ in parts if prompted}) == 1
    assert all(prompted and prompted.generation.methods == ("zero_shot", "history", "profile") for prompted, _ in parts)
    assert all(tuned and tuned.generation.methods == ("sft", "capo") for _, tuned in parts)


def test_a_change_that_prompts_see_makes_other_baselines() -> None:
    one, other = (split_methods(_expand(VARIERR, overrides={"generation.n_history": n})[0].config)[0] for n in (10, 20))
    assert one != other


def test_methods_that_are_not_there_have_no_configuration() -> None:
    assert split_methods(_expand(VARIERR, methods=["sft"])[0].config)[0] is None
    assert split_methods(_expand(VARIERR, methods=["history"])[0].config)[1] is None
