"""What of OpenAI's chat completions is understood: requests, answers and errors as JSON.

A field is honoured or refused; none is passed over in silence. Fields that tell the server nothing about the answer
(`user`, `metadata`, …) are taken, and those that ask for what is not done are taken with the value that says so.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from capo_core.generation.answering import Answer, Choice, Person, Question
from capo_core.prompts import TAG_PREFIX, item_text, system_text
from capo_core.seeding import derive_seed
from deployments.serve.served_models import ServedModel
from schemas.section import Decision
from tasks.people import resolve_annotator
from tasks.registry import model_name

MAX_CHOICES, MAX_STOPS = 16, 4

_Text = Annotated[str, StringConstraints(min_length=1)]
_NotBlank = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class ApiError(Exception):
    """An error as OpenAI's clients read it; `param` is the field that is wrong."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_seconds = retry_after_seconds

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def _read_content(content: Any) -> Any:
    """Return a message's text, which may come as its only part."""
    match content:
        case [{"type": "text", "text": str(text), **other}] if not other:
            return text
        case str():
            return content
    raise ValueError("a text, or one part of type text, is understood")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Message(BaseModel):
    """A turn; `name` is taken and says nothing."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user"]
    content: Annotated[str, BeforeValidator(_read_content)]
    name: str | None = None


class Item(BaseModel):
    """An item as JSON in the user's message."""

    model_config = ConfigDict(extra="forbid")
    text_a: _NotBlank
    text_b: _NotBlank
    item_id: _NotBlank | None = None


class ChatRequest(BaseModel):
    """A chat completion as it is asked for; `decision` is capo's own (extra_body in OpenAI's client)."""

    model_config = ConfigDict(extra="forbid")
    model: str
    messages: list[Message] = Field(min_length=1, max_length=2)
    decision: Decision = "constrained"
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    stop: Annotated[list[_Text], Field(max_length=MAX_STOPS), BeforeValidator(_as_list)] | None = None

    stream: Literal[False] | None = Field(default=None, description="answers come whole")
    logprobs: Literal[False] | None = Field(default=None, description="those of the labels come in `capo`")
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    modalities: tuple[Literal["text"]] | None = None
    store: Literal[False] | None = None

    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="after")
    def _limits_agree(self) -> Self:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens are two names of one limit; give one of them")
        return self


def explain_refusal(errors: Sequence[Any]) -> ApiError:
    """Return the error for a request that pydantic refused: its first fault, with the field and what is allowed.

    Args:
        errors: as `ValidationError.errors()` gives them.
    """
    first = errors[0]
    place = [part for part in first["loc"] if part != "body"]
    param = ".".join(str(part) for part in place) or None
    if first["type"] == "json_invalid":
        return ApiError(
            400, f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}", code="invalid_json"
        )
    if first["type"] == "extra_forbidden" and len(place) == 1:
        known = ", ".join(ChatRequest.model_fields)
        return ApiError(400, f"{param} is not supported; fields are {known}", code="unsupported_parameter", param=param)
    said = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{param}: {said}" if param else said, code="invalid_value", param=param)


def find_model(models: dict[str, ServedModel], name: str, *, knows_people: bool) -> ServedModel:
    """Return the model of a name.

    Args:
        models: by name.
        name: a model's, or with the annotator's id in the raw files after the corpus.
        knows_people: whether such an id is understood. Whoever asks could find out who is behind a pseudonym by trying
            names, so only who is at this machine, where the key is, may.

    Raises:
        ApiError: if there is none.
    """
    if name not in models and knows_people:
        for corpus in {model.recipe.corpus for model in models.values()}:
            if name.startswith(f"{corpus}."):
                own = {model.annotator_id for model in models.values() if model.recipe.corpus == corpus}
                raw = unquote(name.removeprefix(f"{corpus}."))
                name = model_name(corpus, resolve_annotator(corpus, raw, own))
                break
    if name not in models:
        raise ApiError(
            404, f"{name}: no such model; there are {', '.join(models)}", code="model_not_found", param="model"
        )
    return models[name]


def read_question(request: ChatRequest, model: ServedModel) -> Question:
    """Return what a request asks: what it leaves open is as in the model's evaluated run.

    The user's message is an item as JSON, or the item as it stands in a prompt. Before it may stand the instruction of
    the model's own prompts. An item without an id has one made of its text, so that its random numbers are its own.

    Raises:
        ApiError: if it asks for what cannot be.
    """
    recipe = model.recipe
    *before, last = request.messages
    if last.role != "user" or any(message.role == "user" for message in before):
        raise ApiError(
            400, "messages: one user message, after the model's own instruction or nothing", code="invalid_value",
            param="messages",
        )  # fmt: skip
    if before and before[0].content != system_text(recipe.task):
        raise ApiError(
            400, "messages.0: the instruction is the model's own, from its training; leave the message out or send "
            f"exactly: {system_text(recipe.task)}", code="invalid_value", param="messages",
        )  # fmt: skip
    if request.decision == "greedy" and request.temperature:
        raise ApiError(
            400, "temperature: decision greedy draws nothing; leave temperature out, or use sampled or constrained",
            code="invalid_value", param="temperature",
        )  # fmt: skip
    person = Person(model.annotator_id, recipe, model.adapter)
    text, item_id = _read_item(last.content, person)
    defaults = recipe.generation
    return Question(
        person=person,
        item_id=item_id or f"text-{derive_seed(0, text):016x}",
        text=text,
        decision=request.decision,
        temperature=defaults.temperature if request.temperature is None else request.temperature,
        top_p=defaults.top_p if request.top_p is None else request.top_p,
        max_new_tokens=request.max_tokens or request.max_completion_tokens or defaults.max_new_tokens,
        seed=recipe.seed if request.seed is None else request.seed,
        n_choices=request.n or 1,
        stop=tuple(request.stop or ()),
    )


def _read_item(content: str, person: Person) -> tuple[str, str | None]:
    """Return an item's text as a user turn, without the line that names the annotator, and its id if it has one.

    What begins with `{` is meant as JSON and has to be an item.
    """
    content = content.strip()
    task = person.recipe.task
    if content.startswith("{"):
        try:
            item = Item.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ApiError(
                400, f"messages: the item as JSON has text_a, text_b and, if you like, item_id, all texts: "
                f"{where + ': ' if where else ''}{first['msg']}", code="invalid_value", param="messages",
            ) from error  # fmt: skip
        return item_text(task, item.text_a, item.text_b), item.item_id
    text = _without_tag(content, person)
    if not text:
        raise ApiError(400, "messages: the item is empty", code="invalid_value", param="messages")
    return text, None


def _without_tag(text: str, person: Person) -> str:
    """Return the item of a whole user turn as capo writes it; the line that names the annotator comes back later."""
    if person.recipe.tag is None:
        return text
    lines = text.split("\n")
    place = 0 if person.recipe.tag == "first" else -1
    if not lines[place].startswith(f"{TAG_PREFIX} "):
        return text
    named = lines.pop(place).removeprefix(f"{TAG_PREFIX} ")
    if named != person.annotator_id:
        raise ApiError(
            400, f"messages: the prompt names annotator {named}, the model is {person.annotator_id}",
            code="invalid_value", param="messages",
        )  # fmt: skip
    return "\n".join(lines)


def write_completion(model: ServedModel, answer: Answer, choices: Iterable[Choice]) -> dict[str, Any]:
    """Return an answer as a chat completion; `capo` holds its parts, and what reproduces it with `capo predict`."""
    question = answer.encoded.question
    written = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "finish_reason": "length" if choice.truncated else "stop",
            "logprobs": None,
            "capo": {
                "label": choice.parsed.label,
                "explanation": choice.parsed.explanation,
                "parse_status": choice.parsed.status,
            },
        }
        for index, choice in enumerate(choices)
    ]
    n_prompt, n_new = len(answer.encoded.tokens), sum(len(one.tokens) for one in answer.continuations)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model.name,
        "system_fingerprint": f"{model.version.number}-{model.recipe.adapter.sha256[:12]}",
        "choices": written,
        "usage": {"prompt_tokens": n_prompt, "completion_tokens": n_new, "total_tokens": n_prompt + n_new},
        "capo": {
            "registered_model": model.version.name,
            "version": model.version.number,
            "annotator_id": model.annotator_id,
            "item_id": question.item_id,
            "decision": question.decision,
            "seed": question.seed,
            "label_logprobs": answer.label_logprobs,
        },
    }


def write_model(model: ServedModel, created: int) -> dict[str, Any]:
    """Return a model as the list of models shows it; `created` in seconds since 1970."""
    return {"id": model.name, "object": "model", "created": created, "owned_by": model.recipe.corpus}
