"""From conversations to tokens: one way for training and for generation, so that the two can never differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from capo_core.errors import ModelError
from capo_core.prompts import TAG_PREFIX, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TAGGED = re.compile(rf"(?P<first>\A{TAG_PREFIX} [^\n]*\n)?(?P<item>.*?)(?P<last>\n{TAG_PREFIX} [^\n]*)?\Z", re.DOTALL)
"""A user turn with the annotator tag that opens or closes it, as `prompts.item_text` writes it."""

_PROBE = "capo-probe"


def encode_prompt(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a conversation up to where the response begins.

    Special tokens spelled out in the data are broken up by a space (`<|im_end|>` becomes `< |im_end|>`), so that no
    text can end a turn. Models that think before they answer are told not to.

    Raises:
        ModelError: if the chat template refuses the conversation.
    """
    from jinja2.exceptions import TemplateError

    template: Any = tokenizer
    disarmed = [message | {"content": disarm(message["content"], tokenizer)} for message in messages]
    try:
        encoded = template.apply_chat_template(
            disarmed, add_generation_prompt=True, return_dict=True, enable_thinking=False
        )
    except TemplateError as error:
        raise ModelError(
            f"the model's chat template refuses roles {[m['role'] for m in messages][:3]}…: {error}; "
            "use a model whose template takes a system turn"
        ) from error
    return list(encoded["input_ids"])


def encode_response(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a response, without the one that ends the turn."""
    return list(tokenizer(disarm(text, tokenizer), add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType]


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token with which the chat template ends a response; the end of text where it writes none.

    Raises:
        ModelError: if there is neither.
    """
    template: Any = tokenizer
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
    rendered = template.apply_chat_template(turns, tokenize=False)
    after = template(rendered.rpartition(_PROBE)[2], add_special_tokens=False)["input_ids"]
    special = {index for index, token in template.added_tokens_decoder.items() if token.special}
    found = next((index for index in after if index in special), tokenizer.eos_token_id)
    if not isinstance(found, int):
        raise ModelError(
            "the tokenizer has no token that ends a turn, so no response would ever stop; use another model"
        )
    return found


def disarm(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return `text` with every special token of the tokenizer broken up, so that it is read as mere text."""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and len(token.content) > 1 and token.content in text:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text


def encode_fitting_prompt(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[int], bool]:
    """Return the prompt's tokens, at most `max_tokens`, and whether the item text had to be cut.

    The text of the last turn is cut on its left, where the texts of an item begin; the annotator tag that opens or
    closes it and the instruction stay whole.

    Raises:
        ModelError: if instruction and tag alone exceed `max_tokens`.
    """
    ids = encode_prompt(messages, tokenizer)
    if len(ids) <= max_tokens:
        return ids, False
    *earlier, last = messages
    found = _TAGGED.search(last["content"])
    assert found is not None  # it matches every text
    opening, item, closing = (found[name] or "" for name in ("first", "item", "last"))
    tokenise: Any = tokenizer
    offsets = tokenise(item, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    n_cut = len(ids) - max_tokens
    while n_cut < len(offsets):
        ids = encode_prompt([*earlier, last | {"content": opening + item[offsets[n_cut][0] :] + closing}], tokenizer)
        if len(ids) <= max_tokens:
            return ids, True
        n_cut += len(ids) - max_tokens
    raise ModelError(
        f"the instruction alone takes more than max_prompt_tokens = {max_tokens} tokens; "
        "raise it or shorten task.question"
    )
