"""The same adapters behind vLLM, for machines that have it: the command that serves them there."""

from __future__ import annotations

import shlex

from capo_core.generation.vllm.command import describe_command
from deployments.serve.served_models import Served

DIFFERENCES = """\
# What differs from capo serve:
# - Requests carry capo's own prompt: as system message the task's instruction, as user message the item (and the
#   annotator, for a shared adapter), as `capo_core.prompts.build_prompt` writes them; nothing is put in between.
#   Models that can think are to be told not to: chat_template_kwargs = {"enable_thinking": false}.
# - Give temperature, top_p and max_tokens with every request; vLLM knows nothing of the evaluated ones.
# - Labels are whatever is generated; there is no constrained decision and no `capo` field.
# - Random numbers are vLLM's: the same seed gives other answers than capo predict."""


def write_vllm_command(served: Served, *, host: str, port: int) -> str:
    """Return the shell command under which vLLM serves the adapters, and how it differs, as comments.

    A shared adapter is one model, whoever is asked: its prompts name the annotator.

    Raises:
        ModelError: if vLLM cannot serve one of the adapters.
    """
    adapters = {model.version.name: served.adapters[model.adapter] for model in served.models.values()}
    first, *others = describe_command(served.base, served.recipe.model.dtype, served.base.id, adapters)
    lines = [["vllm", "serve", *first], *others, ["--host", host, "--port", str(port)]]
    return " \\\n  ".join(shlex.join(line) for line in lines) + "\n" + DIFFERENCES
