"""What asking an endpoint costs, and when to stop."""

from __future__ import annotations

from schemas.judge import OpenAIJudge


def compute_cost(config: OpenAIJudge, n_prompt_tokens: int, n_answer_tokens: int) -> float | None:
    """Return the cost of so many tokens, in the currency of the prices; None where the prices are not configured."""
    prompt_price, answer_price = config.price_per_million_prompt_tokens, config.price_per_million_answer_tokens
    if prompt_price is None or answer_price is None:
        return None
    return (n_prompt_tokens * prompt_price + n_answer_tokens * answer_price) / 1e6


class Budget:
    """The tokens spent so far, against the limits of the configuration.

    Counted is what the endpoint reports. What it spends on a call that brings no report, a lost connection say, is
    known to nobody here.
    """

    def __init__(self, config: OpenAIJudge) -> None:
        self._config = config
        self._n_prompt_tokens = 0
        self._n_answer_tokens = 0
        self._has_uncounted = False

    def count(self, n_prompt_tokens: int | None, n_answer_tokens: int | None, *, answered: bool = True) -> None:
        """Add the tokens of a call; an answer without a report of them leaves the sum unknown."""
        self._n_prompt_tokens += n_prompt_tokens or 0
        self._n_answer_tokens += n_answer_tokens or 0
        self._has_uncounted |= answered and None in (n_prompt_tokens, n_answer_tokens)

    def find_stop(self) -> str | None:
        """Return why nothing more may be asked, or None as long as there is no reason.

        A limit that cannot be watched is not passed by: the first answer without a report of its tokens ends asking.
        """
        limits = (self._config.max_tokens_spent, self._config.max_cost)
        if limits == (None, None):
            return None
        if self._has_uncounted:
            return "the endpoint does not report the tokens it spends, so that the budget cannot be watched"
        n_tokens = self._n_prompt_tokens + self._n_answer_tokens
        if limits[0] is not None and n_tokens >= limits[0]:
            return f"the budget is spent: {n_tokens} tokens of max_tokens_spent {limits[0]}"
        cost = compute_cost(self._config, self._n_prompt_tokens, self._n_answer_tokens)
        if limits[1] is not None and cost is not None and cost >= limits[1]:
            return f"the budget is spent: {cost:.4g} of max_cost {limits[1]:g}"
        return None
