"""The configuration of one experiment. `deployments/configs/<corpus>/<model>.yaml` holds one, complete.

Defaults that the paper (arXiv 2605.28802) does not state are ours and are named in docs/method.md.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.human_validation import HumanValidationConfig
from schemas.judge import JudgeConfig
from schemas.promotion import PromotionConfig
from schemas.release import ReleaseConfig
from schemas.section import (
    Classifier,
    Decision,
    Fraction,
    Method,
    Normalisation,
    Reduction,
    Section,
    Seed,
    Slug,
    Subjectivity,
)
from schemas.training import AdapterConfig, CAPOConfig, EmbeddingConfig, ModelConfig, PairConfig, SFTConfig


class NominalLabels(Section):
    """Unordered categories."""

    type: Literal["nominal"] = "nominal"
    names: tuple[Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)], ...] = Field(
        min_length=2, description="label names exactly as they stand in the data"
    )

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        if len({n.casefold() for n in self.names}) < len(self.names):
            raise ValueError(f"label names must differ in more than case: {list(self.names)}")
        return self

    @property
    def level(self) -> Literal["nominal", "ordinal"]:
        """Level of measurement, as Krippendorff's α needs it."""
        return "nominal"


class OrdinalLabels(Section):
    """Integer scores from `minimum` to `maximum`, both included."""

    type: Literal["ordinal"] = "ordinal"
    minimum: int
    maximum: int

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.maximum <= self.minimum:
            raise ValueError(f"maximum ({self.maximum}) must be greater than minimum ({self.minimum})")
        if self.maximum - self.minimum > 100:
            raise ValueError("at most 101 distinct scores are supported")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Every score as a decimal integer, ascending."""
        return tuple(str(score) for score in range(self.minimum, self.maximum + 1))

    @property
    def level(self) -> Literal["nominal", "ordinal"]:
        """Level of measurement, as Krippendorff's α needs it."""
        return "ordinal"


class TaskSpec(Section):
    """What annotators were asked. A new task needs only a new one of these."""

    name: Slug
    question: str = Field(min_length=10, description="instruction given to the model, as an annotator would read it")
    text_a_name: str = Field(min_length=1, description="what the first text is called, e.g. Context")
    text_b_name: str = Field(min_length=1, description="what the second text is called, e.g. Statement")
    labels: Annotated[NominalLabels | OrdinalLabels, Field(discriminator="type")]
    multiple_labels: bool = Field(default=False, description="may one annotator give one item several labels")
    subjectivity: Subjectivity | None = Field(
        default=None, description="class of the task (arXiv 2503.04910); null: proposed from the agreement figures"
    )


class CorpusConfig(Section):
    """Where the annotations are."""

    name: Slug
    format: Literal["varierr", "lewidi", "table"]
    paths: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        min_length=1,
        description="files, read in order; 'bundled:…' names a corpus shipped with capo, "
        "a relative path is looked up in CAPO_DATA_DIR (default: the working directory)",
    )
    annotators_path: str | None = Field(default=None, description="annotator metadata (LeWiDi form)")
    max_items: int | None = Field(
        default=None,
        ge=10,
        description="seeded sample of whole contexts, at most this many items; batches are taken in whole",
    )
    version: int | None = Field(
        default=None,
        ge=1,
        description="1: the files above alone; n: with the first n - 1 batches; null: with all batches taken in so far",
    )
    annotator_ids: Literal["pseudonymise", "keep"] = Field(
        default="pseudonymise",
        description="pseudonymise: ids become keyed pseudonyms when files are read, before anything is stored; keep: "
        "they are pseudonyms already",
    )
    require_consent: bool = Field(
        default=False,
        description="whether people who state no consent scope (analysis, modelling, release) are left out like those "
        "who refuse",
    )


class BatchConfig(Section):
    """What later batches of annotations lead to."""

    min_annotations: int | None = Field(
        default=50,
        ge=1,
        description="training annotations from which on a person gets an adapter; before, prompts only. null: as many "
        "as the convergence analysis says attribution needs",
    )
    start: Literal["base", "previous"] = Field(
        default="base",
        description="whether SFT begins anew or from the person's adapter of the version before; a shared adapter "
        "likewise",
    )


class SplitConfig(Section):
    """Items are split by context; the default shares give the paper's 300/100/100 of 500 items."""

    train: Fraction = 0.6
    validation: Fraction = 0.2
    test: Fraction = 0.2
    seed: Seed = 13

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train + validation + test must be 1, is {total:g}")
        return self


class StabilityConfig(Section):
    """Whether each annotator has a stable way of explaining: attribution, features, reliability."""

    reductions: tuple[Reduction, ...] = (
        "none",
        "shared_words_masked",
        "content_words_masked",
        "embedding_minus_item_mean",
        "embedding_input_residual",
    )
    normalisations: tuple[Normalisation, ...] = ("none", "surface")
    classifiers: tuple[Classifier, ...] = Field(
        default=("ngrams", "embeddings"),
        description="ngrams read text only, so the embedding reductions are attributed by embeddings alone",
    )
    group_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5, 10, 20)
    n_folds: int = Field(default=5, ge=2)
    n_repeats: int = Field(default=3, ge=1, description="foldings averaged over; as many shuffles for the control")
    n_bootstrap: int = Field(default=1000, ge=100)
    n_permutations: int = Field(default=10_000, ge=100, description="within-item permutations of the feature tests")
    n_examples: int = Field(default=5, ge=1, description="example explanations in each annotator's style profile")
    seed: Seed = 13


class ConvergenceConfig(Section):
    """How figures settle as items and annotators accrue."""

    n_sizes: int = Field(default=6, ge=3, description="numbers of items tried, evenly spaced on a log scale")
    n_repeats: int = Field(default=20, ge=3, description="sub-samples per size")
    group_size: int = Field(default=5, ge=1, description="of the attribution accuracy that is followed")
    interval_width: Fraction = Field(default=0.1, description="width of the 95% interval that is asked for")
    seed: Seed = 13


class ProfileConfig(Section):
    """The value profile: the model describes an annotator from training annotations; the text then is the prompt."""

    n_examples: int = Field(default=50, ge=1, description="the annotator's training annotations shown to the model")
    max_new_tokens: int = Field(default=256, ge=16)


class GenerationConfig(Section):
    """Responses to held-out items."""

    methods: tuple[Method, ...] = ("zero_shot", "history", "profile", "sft", "capo")
    decisions: tuple[Decision, ...] = Field(
        default=("sampled", "greedy", "constrained"),
        min_length=1,
        description="sampled: drawn at the temperature; greedy: the most probable token each time; constrained: the "
        "most probable of the task's labels, then a sampled explanation",
    )
    split: Literal["validation", "test"] = "test"
    n_history: int = Field(default=50, ge=1, description="the annotator's training annotations shown in context")
    temperature: float = Field(
        default=1.0,
        ge=0,
        description="1: as the model has learned it; below it everybody's text is more typical than it is; 0 is greedy",
    )
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=96, ge=8)
    batch_size: int = Field(default=128, ge=1, description="responses decoded at a time, at most")
    engine: Literal["built_in", "vllm"] = Field(
        default="built_in",
        description="what generates the responses to evaluate; vllm: a server of an installed vLLM, for each step anew",
    )

    def narrow(self, method: Method) -> GenerationConfig:
        """Return the part that matters to one method, so that a change elsewhere does not make it stale."""
        n_history = self.n_history if method == "history" else 1
        return self.model_copy(update={"methods": (method,), "n_history": n_history})


class EvaluationConfig(Section):
    """How generations are held against the people they imitate."""

    group_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5, 10, 20)
    reductions: tuple[Reduction, ...] = ("none", "shared_words_masked", "embedding_minus_item_mean")
    normalisations: tuple[Normalisation, ...] = ("none", "surface")
    classifiers: tuple[Classifier, ...] = ("ngrams", "embeddings")
    n_groups: int = Field(default=100, ge=10, description="random groups per annotator, method and size")
    n_bootstrap: int = Field(default=1000, ge=100)
    confidence: Fraction = 0.95
    min_readable: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="a method's figure for an annotator is excluded where fewer of the responses could be read",
    )
    seed: Seed = 13


class ExperimentConfig(Section):
    """Everything one run of the line needs. This model is the parameter of every flow."""

    name: Slug = Field(description="names the MLflow experiment")
    task: TaskSpec
    corpus: CorpusConfig
    batches: BatchConfig = BatchConfig()
    splits: SplitConfig = SplitConfig()
    stability: StabilityConfig = StabilityConfig()
    convergence: ConvergenceConfig = ConvergenceConfig()
    pairs: PairConfig = PairConfig()
    model: ModelConfig
    embedding: EmbeddingConfig = EmbeddingConfig()
    adapter: AdapterConfig = AdapterConfig()
    sft: SFTConfig = SFTConfig()
    capo: CAPOConfig = CAPOConfig()
    profile: ProfileConfig = ProfileConfig()
    generation: GenerationConfig = GenerationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    judge: JudgeConfig = JudgeConfig()
    human_validation: HumanValidationConfig = HumanValidationConfig()
    promotion: PromotionConfig = PromotionConfig()
    release: ReleaseConfig = ReleaseConfig()
    seeds: tuple[Seed, ...] = Field(
        default=(13,), min_length=1, description="training and sampling are repeated per seed"
    )

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ: {list(self.seeds)}")
        for section, methods in (("judge", self.judge.methods), ("human_validation", self.human_validation.methods)):
            missing = sorted(set(methods) - {"human", *self.generation.methods})
            if missing:
                raise ValueError(f"{section}.methods names {missing}, which generation.methods does not produce")
        return self
