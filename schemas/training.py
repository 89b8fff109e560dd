"""The configuration of training: preference pairs, the model, its adapter, how both methods optimise."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from schemas.section import PairStrategy, PairWeighting, PreferenceLoss, Section, TagPosition


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
    n_processes: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="processes of this machine that train one adapter together, each on a GPU of its own and with its "
        "share of every batch; auto: one per visible GPU, one on CPU",
    )
    fsdp: bool = Field(
        default=False,
        description="whether these processes share out the model's frozen layers, for a model that one GPU cannot hold "
        "beside a batch (fully sharded data parallelism, arXiv 2304.11277); slower",
    )

    def cache_identity(self) -> JsonValue:
        """Return what decides the outcome: all but the processes and what they share, which change rounding only."""
        return self.model_dump(mode="json", exclude={"n_processes", "fsdp"})

    @model_validator(mode="after")
    def _trl_trains_in_one_process(self) -> Self:
        if self.trainer == "trl" and self.n_processes not in ("auto", 1):
            raise ValueError(
                f"n_processes is {self.n_processes}, but trainer trl trains in one process; set trainer: grouped, or "
                "n_processes: 1"
            )
        if self.trainer == "trl" and self.fsdp:
            raise ValueError("fsdp is true, but trainer trl trains alone; set trainer: grouped, or fsdp: false")
        return self


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
