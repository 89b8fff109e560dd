"""A judge in this process: constrained choice over the candidates' letters, one forward pass per question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from capo_core.chat import encode_prompt, encode_response
from capo_core.errors import JudgeError
from capo_core.judging.backends import JudgeAnswer
from capo_core.judging.questions import JudgeQuestion

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ANSWER_OPENING = "Answer:"
MIN_SHARED_TOKENS = 32
"""Shorter common openings are not worth a pass of their own."""


@dataclass(frozen=True)
class _Prompt:
    """A question as tokens, up to where the letters part, and the token of each letter there."""

    question: JudgeQuestion
    token_ids: tuple[int, ...]
    letter_ids: tuple[int, ...]


class LocalJudgeBackend:
    """Chooses the letter to which the model gives the highest probability as the next token after `Answer:`."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 8,
        *,
        name: str | None = None,
    ) -> None:
        """Take a decoder-only model in any precision and its tokenizer.

        Args:
            model: causal language model; put into evaluation mode while asked.
            tokenizer: with a chat template.
            batch_size: questions per forward pass.
            name: what verdicts call the model; default: the last part of the name it was loaded by.
        """
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self.name = f"local:{name or PurePath(model.config._name_or_path or model.config.model_type).name}"

    def answer(self, questions: Sequence[JudgeQuestion]) -> Iterator[JudgeAnswer]:
        """Yield an answer per question, those with a common opening together.

        The probability of a letter is taken over the candidates' letters alone. Two letters with exactly the same
        score are no choice: unparseable. A prompt longer than the model's context is failed, never cut.

        Raises:
            JudgeError: if the tokenizer gives two letters the same next token, so that no choice can be read off.
            ModelError: if the chat template takes no system turn.
        """
        fitting = []
        for prompt in (self._encode(question) for question in questions):
            if len(prompt.token_ids) > self._max_tokens():
                yield self._too_long(prompt)
            else:
                fitting.append(prompt)
        for batch in _form_batches(fitting, self._batch_size):
            yield from self._choose(batch)

    def _encode(self, question: JudgeQuestion) -> _Prompt:
        """Return the prompt as the tokens common to all its continuations by a letter, and each letter's next token.

        Comparing whole encodings settles by itself whether the letter's token carries the space before it.
        """
        opening = encode_prompt(question.messages, self._tokenizer)
        answers = [f"{ANSWER_OPENING} {letter}" for letter in question.letters]
        encoded = [opening + encode_response(answer, self._tokenizer) for answer in answers]
        n_common = _count_common(encoded)
        letter_ids = [ids[n_common] for ids in encoded if len(ids) > n_common]
        if len(set(letter_ids)) < len(question.letters):
            raise JudgeError(
                f"{self.name}: the tokenizer does not give the letters {question.letters} a next token each; "
                "use another judge model or an OpenAI-compatible endpoint"
            )
        return _Prompt(question, tuple(encoded[0][:n_common]), tuple(letter_ids))

    def _max_tokens(self) -> int:
        return getattr(self._model.config, "max_position_embeddings", None) or 2**31

    def _too_long(self, prompt: _Prompt) -> JudgeAnswer:
        reason = (
            f"the prompt has {len(prompt.token_ids)} tokens, the model's context {self._max_tokens()}: "
            "lower judge.n_references or judge.group_size"
        )
        return JudgeAnswer(prompt.question.question_id, None, "failed", reason, n_prompt_tokens=len(prompt.token_ids))

    def _choose(self, batch: Sequence[_Prompt]) -> Iterator[JudgeAnswer]:
        """Yield the answers of one batch."""
        import torch

        self._model.eval()
        with torch.inference_mode():
            hidden = self._last_hidden_states([prompt.token_ids for prompt in batch])
            for prompt, state in zip(batch, hidden, strict=True):
                logits = self._letter_logits(state, prompt.letter_ids)
                yield _to_answer(prompt, logits.tolist(), torch.softmax(logits, dim=0).tolist())

    def _letter_logits(self, state: torch.Tensor, letter_ids: Sequence[int]) -> torch.Tensor:
        """Return the logits (n_letters,) of the letters alone, in float32 whatever the model's precision.

        In bfloat16 a logit of 16 is rounded to the next eighth and letters tie by the dozen.
        """
        head: Any = self._model.get_output_embeddings()
        logits = head.weight[list(letter_ids)].float() @ state.float()
        return logits if getattr(head, "bias", None) is None else logits + head.bias[list(letter_ids)].float()

    def _last_hidden_states(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the hidden state (n_rows, n_hidden) at the last token of every row.

        The rows' common opening is computed once. Rows are padded on the right, where causal attention keeps the
        padding from every real token, so that positions and sliding windows are those of the row alone.
        """
        import torch

        decoder: Any = self._model.get_decoder()
        device = self._model.device
        n_shared = min(_count_common(rows), min(len(row) for row in rows) - 1)
        cache = None
        if len(rows) == 1 or n_shared < MIN_SHARED_TOKENS:
            n_shared = 0
        else:
            opening = torch.tensor([list(rows[0][:n_shared])], device=device)
            cache = decoder(input_ids=opening, use_cache=True).past_key_values
            cache.batch_repeat_interleave(len(rows))
        ends = [len(row) - n_shared for row in rows]
        tokens = torch.zeros(len(rows), max(ends), dtype=torch.long, device=device)
        for index, row in enumerate(rows):
            tokens[index, : ends[index]] = torch.tensor(row[n_shared:], device=device)
        positions = torch.arange(n_shared, n_shared + max(ends), device=device).expand(len(rows), -1)
        states = decoder(
            input_ids=tokens, position_ids=positions, past_key_values=cache, use_cache=cache is not None
        ).last_hidden_state
        return states[torch.arange(len(rows), device=device), torch.tensor(ends, device=device) - 1]


def _to_answer(prompt: _Prompt, logits: Sequence[float], scores: Sequence[float]) -> JudgeAnswer:
    best = [position for position, logit in enumerate(logits) if logit == max(logits)]
    letters = prompt.question.letters
    decided = len(best) == 1
    return JudgeAnswer(
        question_id=prompt.question.question_id,
        position=best[0] if decided else None,
        status="ok" if decided else "unparseable",
        response=f"{ANSWER_OPENING} " + " or ".join(letters[position] for position in best),
        candidate_scores=tuple(scores),
        n_prompt_tokens=len(prompt.token_ids),
    )


def _form_batches(prompts: Sequence[_Prompt], batch_size: int) -> Iterator[list[_Prompt]]:
    """Yield batches of prompts in token order; a new one begins where less than half of the opening is shared."""
    batch: list[_Prompt] = []
    for prompt in sorted(prompts, key=lambda p: p.token_ids):
        if batch:
            n_common = _count_common([batch[0].token_ids, prompt.token_ids])
            if len(batch) == batch_size or 2 * n_common < len(batch[0].token_ids):
                yield batch
                batch = []
        batch.append(prompt)
    if batch:
        yield batch


def _count_common(rows: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all rows share."""
    # Between the least and the greatest row in lexicographic order lie all others.
    from capo_core.layout.prefix_tree import count_shared

    return count_shared(min(map(list, rows)), max(map(list, rows)))
