"""A process that judges through a journal, in children that are killed: `python killed_judging.py ADDRESS JOURNAL N`.

For every line it reads it forks a child that asks the N questions, prints the child's id and, when the child has
ended, its exit status. Children are forked because the client library takes a second to load.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from endpoint_server import make_plain_questions
from openai import AsyncOpenAI

from capo_core.judging.endpoint_backend import OpenAIJudgeBackend
from capo_core.judging.journal import VerdictJournal
from schemas.judge import OpenAIJudge


def judge(address: str, path: Path, n: int) -> None:
    config = OpenAIJudge(base_url=address, model="m", n_concurrent=4)
    answers = list(VerdictJournal(path, OpenAIJudgeBackend(config)).answer(make_plain_questions(n)))
    assert {answer.status for answer in answers} == {"ok"}


def main() -> None:
    address, path, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    _ = AsyncOpenAI(api_key="none", base_url=address).chat.completions  # loads the modules
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            judge(address, path, n)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
