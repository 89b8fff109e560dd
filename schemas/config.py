"""The configuration of one experiment. `deployments/configs/<corpus>/<model>.yaml` holds one, complete.

Defaults that the paper (arXiv 2605.28802) does not state are ours and are named in docs/method.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Method = Literal["zero_shot", "history", "profile", "sft", "capo"]
Source = Literal["human", "zero_shot", "history", "profile", "sft", "capo"]
Decision = Literal["sampled", "greedy", "constrained"]
Reduction = Literal[
    "none", "shared_words_masked", "content_words_masked", "embedding_minus_item_mean", "embedding_input_residual"
]
Normalisation = Literal["none", "surface"]
Classifier = Literal["ngrams", "embeddings"]
PairStrategy = Literal["all", "same_label", "different_label", "nearest", "farthest"]
PairWeighting = Literal["uniform", "style_distance", "validity", "relation"]
PreferenceLoss = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "robust", "apo_zero", "plackett_luce"]
TagPosition = Literal["last", "first"]
Subjectivity = Literal["manifest", "latent_pattern", "latent_projective"]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]


def flatten_keys(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten_keys(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class Section(BaseModel):
    """Base of every configuration section: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    paths: tuple[str, ...] = Field(
        min_length=1,
        description="files, read in order; 'bundled:…' names a corpus shipped with capo, "
        "a relative path is looked up in CAPO_DATA_DIR (default: the working directory)",
    )
    annotators_path: str | None = Field(default=None, description="annotator metadata (LeWiDi form)")
    max_items: int | None = Field(
        default=None, ge=10, description="seeded sample of whole contexts, at most this many items"
    )


class SplitConfig(Section):
    """Items are split by context; the default shares give the paper's 300/100/100 of 500 items."""

    train: Fraction = 0.6
    validation: Fraction = 0.2
    test: Fraction = 0.2
    seed: int = 13

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
    seed: int = 13


class ConvergenceConfig(Section):
    """How figures settle as items and annotators accrue."""

    n_sizes: int = Field(default=6, ge=3, description="numbers of items tried, evenly spaced on a log scale")
    n_repeats: int = Field(default=20, ge=3, description="sub-samples per size")
    group_size: int = Field(default=5, ge=1, description="of the attribution accuracy that is followed")
    interval_width: Fraction = Field(default=0.1, description="width of the 95% interval that is asked for")
    seed: int = 13


class PairConfig(Section):
    """Which of the other annotators' responses are rejected."""

    strategy: PairStrategy = Field(
        default="all", description="nearest, farthest: the one response most or least like the chosen, by embedding"
    )
    min_validity: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of second-round judgements 'makes sense' that a rejected explanation must have, where the "
        "data carry judgements (VariErr)",
    )
    weighting: PairWeighting = Field(
        default="uniform",
        description="what a pair counts among those of the same chosen response: style_distance, by how far the two "
        "explanations lie apart in style; validity, by the share of judgements that the rejected one makes sense; "
        "relation, by whether the labels agree (same_label_weight)",
    )
    same_label_weight: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="weighting relation: the weight of same-label pairs; others have 1 minus it",
    )

    @property
    def needs_judgements(self) -> bool:
        """Whether explanations must have been judged."""
        return self.min_validity is not None or self.weighting == "validity"

    @model_validator(mode="after")
    def _same_label_weight_belongs_to_relation(self) -> Self:
        if self.weighting != "relation" and self.same_label_weight != 0.5:
            raise ValueError(
                f"same_label_weight is {self.same_label_weight:g}, but weighting {self.weighting} does not read it; "
                "set weighting: relation"
            )
        return self


class ModelConfig(Section):
    """A causal language model with a chat template."""

    id: str = Field(min_length=1, description="'bundled:smollm2-135m-instruct', a Hugging Face id or a local folder")
    revision: str | None = Field(default=None, description="commit of a Hugging Face id")
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    quantization: Literal["none", "nf4"] = Field(
        default="none", description="nf4: frozen weights in 4 bits while training (QLoRA, arXiv 2305.14314); CUDA only"
    )


class EmbeddingConfig(Section):
    """A sentence-embedding model."""

    id: str = Field(default="bundled:all-minilm-l6-v2", min_length=1)
    revision: str | None = None


class AdapterConfig(Section):
    """What is trained beside frozen weights. `per_annotator`: one adapter each; `shared`: one, conditioned on a tag."""

    layout: Literal["per_annotator", "shared"] = "per_annotator"
    tag: TagPosition = Field(
        default="last",
        description="where a shared adapter's prompt names the annotator: after the item, so that all annotators share "
        "the item's computation, or before it",
    )
    type: Literal["lora", "dora", "oft"] = Field(
        default="lora",
        description="lora: arXiv 2106.09685; dora: weight-decomposed, arXiv 2402.09353; oft: orthogonal, arXiv "
        "2306.07280, its blocks of size r",
    )
    r: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class TokenLimits(Section):
    """How text becomes tokens in training, and how many go through the model at once."""

    max_prompt_tokens: int = Field(default=512, ge=32, description="longer item texts are cut on the left, counted")
    max_response_tokens: int = Field(default=128, ge=8, description="longer responses are cut on the right, counted")
    max_tokens_per_pass: int = Field(
        default=2048, ge=64, description="token budget of one forward pass; a batch beyond it goes through in parts"
    )

    @property
    def limits(self) -> TokenLimits:
        """These limits alone, without what a subclass adds."""
        return TokenLimits(**{name: getattr(self, name) for name in TokenLimits.model_fields})


class OptimisationConfig(TokenLimits):
    """AdamW with warm-up, shared by SFT and CAPO."""

    trainer: Literal["grouped", "trl"] = Field(
        default="grouped",
        description="grouped: prompt once, all responses beside it; trl: TRL's trainers, the reference",
    )
    n_epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0, lt=1)
    batch_size: int = Field(default=8, ge=1, description="groups (prompt with its responses) per optimiser step")
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    gradient_checkpointing: bool = Field(default=False, description="less memory, about a third more computation")
    n_checkpoints: int = Field(default=2, ge=0, description="checkpoints per training run, for resuming")


class SFTConfig(OptimisationConfig):
    """Supervised fine-tuning on the target annotator's responses."""

    n_epochs: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0, lt=1)


class CAPOConfig(OptimisationConfig):
    """Preference optimisation from the SFT adapter: a preference loss plus an SFT anchor."""

    n_epochs: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0, lt=1)
    loss: PreferenceLoss = Field(
        default="sigmoid",
        description="by TRL's names: sigmoid (DPO, the paper's), sigmoid_norm (per token), ipo, hinge, robust, "
        "apo_zero; plackett_luce is ours: the chosen against all rejected at once",
    )
    beta: float = Field(
        default=0.1,
        gt=0,
        description="strength of the pull towards the reference; sigmoid_norm and ipo compare ratios per token",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="robust: the share of pairs taken to be the wrong way round"
    )
    sft_weight: float = Field(default=0.2, ge=0, description="weight of the SFT anchor on the chosen response")
    rewind: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="how far the trained weights go back towards the SFT adapter's (0: not at all)",
    )

    @model_validator(mode="after")
    def _smoothing_belongs_to_robust(self) -> Self:
        if self.label_smoothing > 0 and self.loss != "robust":
            raise ValueError(
                f"label_smoothing is {self.label_smoothing:g}, but loss {self.loss} does not read it; set loss: "
                "robust, or label_smoothing: 0"
            )
        if self.loss == "robust" and self.label_smoothing == 0:
            raise ValueError(
                "loss robust with label_smoothing 0 is loss sigmoid; give the share of pairs taken to be the wrong way "
                "round, or set loss: sigmoid"
            )
        if self.trainer == "trl" and self.loss == "plackett_luce":
            raise ValueError("TRL has no loss plackett_luce; set trainer: grouped")
        return self


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
    temperature: float = Field(default=0.7, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=96, ge=8)
    batch_size: int = Field(default=128, ge=1, description="responses decoded at a time, at most")

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
    seed: int = 13


class LocalJudge(Section):
    """A model in this process, asked by constrained choice over the candidates' letters."""

    type: Literal["local"] = "local"
    model: ModelConfig | None = Field(default=None, description="default: the experiment's own base model")
    batch_size: int = Field(default=8, ge=1)


class OpenAIJudge(Section):
    """Any OpenAI-compatible chat endpoint."""

    type: Literal["openai"] = "openai"
    base_url: str = Field(pattern=r"^https?://", description="e.g. http://127.0.0.1:8000/v1")
    model: str = Field(min_length=1)
    api_key_env: str | None = Field(default=None, description="name of the environment variable holding the key")
    timeout_seconds: float = Field(default=60.0, gt=0)
    max_attempts: int = Field(default=6, ge=1, le=6)
    n_concurrent: int = Field(default=4, ge=1)


class JudgeConfig(Section):
    """LLM attribution: references of every annotator, a group of explanations, which annotator wrote it."""

    backend: Annotated[LocalJudge | OpenAIJudge, Field(discriminator="type")] = LocalJudge()
    methods: tuple[Source, ...] = ("human", "zero_shot", "history", "profile", "sft", "capo")
    group_size: int = Field(default=3, ge=1)
    n_references: int = Field(default=3, ge=1, description="training explanations shown per annotator")
    n_groups: int = Field(
        default=4, ge=1, description="groups per annotator, method and seed; each asked in every rotation"
    )
    seed: int = 13

    def narrow(self, method: str) -> JudgeConfig:
        """Return the part that matters to one method, so that a change elsewhere does not make it stale."""
        return self.model_copy(update={"methods": (method,)})


class HumanValidationConfig(Section):
    """The blinded rating set."""

    methods: tuple[Source, ...] = ("human", "sft", "capo")
    n_tasks: int = Field(default=48, ge=1)
    group_size: int = Field(default=3, ge=1)
    n_references: int = Field(default=3, ge=1)
    seed: int = 13


class ExperimentConfig(Section):
    """Everything one run of the line needs. This model is the parameter of every flow."""

    name: Slug = Field(description="names the MLflow experiment")
    task: TaskSpec
    corpus: CorpusConfig
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
    seeds: tuple[int, ...] = Field(
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
