"""Value profiles: the model describes an annotator from training annotations; the description then is the prompt.

The third prompting baseline of arXiv 2605.28802: label or score bias, reasoning style, phrasing and imitation rules,
written by the model from 50 of the annotator's annotations. The paper's prompt is not public; ours is the file
`value_profile_v1.txt`. Label shares, scores and lengths are counted here and given to the model as text, because a
small model asked to count makes figures up.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any, Literal

import polars as pl

from capo_core.chat import encode_prompt, encode_response
from capo_core.errors import ModelError
from capo_core.generation.requests import GenerationRequest, draw_annotations
from capo_core.generation.responses import generate_responses
from capo_core.judging.fencing import fence, make_nonce
from capo_core.prompts import EXPLANATION_PREFIX, LABEL_PREFIX, Message, response_opening
from capo_core.text import words
from schemas.config import GenerationConfig, ProfileConfig, TaskSpec
from schemas.frames import VALUE_PROFILES, check_columns

PROMPT_VERSION = "value_profile_v1"
"""Name of the prompt file beside this module. A changed text gets a new name."""

MIN_WORDS = 10
"""A profile of fewer words says nothing about four headings."""

MAX_REPEATED = 0.5
"""Share of three-word sequences that may repeat an earlier one before a profile counts as repetitive."""

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProfileRequest:
    """What the model is asked to describe one annotator from.

    Attributes:
        annotator_id: who is described; the model is not told the name.
        question: of the task.
        annotations: one text each, oldest first.
        facts: what was counted, as lines of text.
        nonce: the code of the fence around the annotations.
    """

    annotator_id: str
    question: str
    annotations: tuple[str, ...]
    facts: str
    nonce: str

    def messages(self, n_dropped: int = 0) -> list[Message]:
        """Return the conversation up to the profile, without the `n_dropped` oldest annotations."""
        system, user = _read_template()
        values = {
            "question": self.question,
            "annotations": fence(self.annotations[n_dropped:], "ANNOTATIONS", self.nonce),
            "facts": self.facts,
        }
        return [
            {"role": "system", "content": system.substitute(values)},
            {"role": "user", "content": user.substitute(values)},
        ]


def build_profile_request(
    corpus: pl.DataFrame, annotator_id: str, task: TaskSpec, config: ProfileConfig, seed: int
) -> ProfileRequest:
    """Return the request for an annotator's profile, made of training annotations only.

    The annotations are those that the in-context history would show with the same seed and number, so that the two
    baselines see the same of a person.

    Args:
        corpus: CORPUS frame.
        annotator_id: whom to describe.
        task: the task the annotator did.
        config: how many annotations.
        seed: draws them.

    Raises:
        CorpusError: if the annotator has no training annotation.
    """
    drawn = draw_annotations(corpus, annotator_id, config.n_examples, seed)
    texts = tuple(
        f"{task.text_a_name}: {a.strip()} {task.text_b_name}: {b.strip()} "
        f"{LABEL_PREFIX} {label} {EXPLANATION_PREFIX} {explanation.strip()}"
        for a, b, label, explanation in drawn.select("text_a", "text_b", "label", "explanation").iter_rows()
    )
    return ProfileRequest(
        annotator_id=annotator_id,
        question=task.question.strip(),
        annotations=texts,
        facts=describe_counts(drawn, _others_on_the_same_items(corpus, drawn, annotator_id), task),
        nonce=make_nonce(seed, "value profile", *texts),
    )


def write_profile(
    model: Any, tokenizer: Any, request: ProfileRequest, task: TaskSpec, config: ProfileConfig, *, seed: int
) -> pl.DataFrame:
    """Return the profile that the model writes, always taking its most probable token, as one VALUE_PROFILES row.

    Where the model's context does not hold all annotations the oldest are left out; `n_examples` counts those shown.
    A profile that `find_flaw` objects to is kept as it is, because it is what this model makes of the task; both are
    logged as warnings.

    Args:
        model: of `models.load_policy`.
        tokenizer: of `models.load_tokenizer`.
        request: of `build_profile_request`.
        task: the same.
        config: how long the profile may be.
        seed: that the annotations were drawn with; stands in the row.

    Raises:
        ModelError: if the context does not hold the request with a single annotation.
    """
    n_dropped = _count_too_many(model, tokenizer, request, task, config)
    if n_dropped:
        _LOGGER.warning(
            "value profile of %s: the model's context does not hold all of %d annotations; the %d oldest are left out",
            request.annotator_id, len(request.annotations), n_dropped,
        )  # fmt: skip
    asked = GenerationRequest("value profile", request.annotator_id, request.messages(n_dropped))
    decoding = GenerationConfig(decisions=("greedy",), max_new_tokens=config.max_new_tokens)
    answer = generate_responses(model, tokenizer, [asked], task, decoding, seed=seed, method="value_profile")
    row = answer.row(0, named=True)
    profile = row["text"].strip()
    if flaw := find_flaw(profile):
        _LOGGER.warning("value profile of %s is %s; it is used as it is", request.annotator_id, flaw)
    frame = pl.DataFrame(
        [
            {
                "annotator_id": request.annotator_id,
                "seed": seed,
                "profile": profile,
                "n_examples": len(request.annotations) - n_dropped,
                "n_prompt_tokens": row["n_prompt_tokens"],
                "n_tokens": row["n_tokens"],
                "truncated": row["truncated"],
            }
        ],
        schema=VALUE_PROFILES,
    )
    return check_columns(frame, VALUE_PROFILES, "value profile")


def find_flaw(profile: str) -> Literal["empty", "short", "repetitive"] | None:
    """Return what makes a profile useless as a description, or None.

    Empty: no word. Short: fewer than `MIN_WORDS`. Repetitive: more than `MAX_REPEATED` of its three-word sequences
    stand earlier in it, as in the loops that small models fall into.
    """
    found = words(profile)
    if len(found) < MIN_WORDS:
        return "short" if found else "empty"
    sequences = list(zip(found, found[1:], found[2:], strict=False))
    repeated = 1 - len(set(sequences)) / len(sequences)
    return "repetitive" if repeated > MAX_REPEATED else None


def describe_counts(own: pl.DataFrame, others: pl.DataFrame, task: TaskSpec) -> str:
    """Return the counted facts as lines: labels or scores and lengths, beside the other annotators'.

    Args:
        own: the annotations described; columns label and explanation.
        others: the other annotators' annotations of the same items; may be empty.
        task: nominal labels give shares, ordinal ones also mean and standard deviation.
    """
    lines = [f"- {_describe_labels(own, task)} in {own.height} annotations"]
    length = f"- explanations: {_mean_words(own):.1f} words on average"
    if others.is_empty():
        return "\n".join([*lines, length])
    lines.append(f"- other annotators of the same items: {_describe_labels(others, task)}")
    return "\n".join([*lines, f"{length}; the other annotators' {_mean_words(others):.1f}"])


def _describe_labels(annotations: pl.DataFrame, task: TaskSpec) -> str:
    """Return the share of every label given, most frequent first; scores also with mean and standard deviation."""
    labels = annotations["label"].to_list()
    order = {name: place for place, name in enumerate(task.labels.names)}
    counts = sorted(Counter(labels).items(), key=lambda pair: (-pair[1], order[pair[0]]))
    shares = ", ".join(f"{name} {n / len(labels):.0%}" for name, n in counts)
    if task.labels.level == "nominal":
        return f"labels given: {shares}"
    scores = pl.Series(labels).cast(pl.Int64)
    return f"scores given: mean {scores.mean():.1f}, standard deviation {scores.std(ddof=0):.1f} ({shares})"


def _mean_words(annotations: pl.DataFrame) -> float:
    return sum(len(words(text)) for text in annotations["explanation"]) / annotations.height


def _others_on_the_same_items(corpus: pl.DataFrame, drawn: pl.DataFrame, annotator_id: str) -> pl.DataFrame:
    others = (pl.col("annotator_id") != annotator_id) & (pl.col("split") == "train")
    return corpus.filter(others & pl.col("item_id").is_in(drawn["item_id"].unique().to_list()))


def _count_too_many(model: Any, tokenizer: Any, request: ProfileRequest, task: TaskSpec, config: ProfileConfig) -> int:
    """Return how many of the oldest annotations must go for the request to fit the model's context."""
    # What `generate_responses` leaves for a prompt.
    openings = [encode_response(response_opening(label), tokenizer) for label in task.labels.names]
    limit = model.config.max_position_embeddings - config.max_new_tokens - max(map(len, openings))

    def fits(n_dropped: int) -> bool:
        return len(encode_prompt(request.messages(n_dropped), tokenizer)) <= limit

    n_dropped = bisect_left(range(len(request.annotations)), True, key=fits)
    if n_dropped == len(request.annotations):
        raise ModelError(
            f"value profile of {request.annotator_id}: the request with a single annotation exceeds the {limit} tokens "
            "the model's context leaves; use a model with a longer context or leave out generation.methods profile"
        )
    return n_dropped


def _read_template() -> tuple[Template, Template]:
    """Return the system and user parts of the prompt file."""
    text = files("capo_core").joinpath(f"{PROMPT_VERSION}.txt").read_text(encoding="utf-8")
    system, user = text.removeprefix("[system]\n").split("\n[user]\n")
    return Template(system.strip()), Template(user.strip())
