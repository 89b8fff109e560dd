"""What goes on without anybody asking: files dropped into an inbox are taken in, watched corpora evaluated anew.

An inbox is a folder `<home>/inbox/<corpus>` with the experiment that its files belong to; `capo inbox` makes one. What
was taken in lies in `taken` afterwards, what could not be in `refused`, with the reason beside it.
"""

from __future__ import annotations

from collections.abc import Callable

from prefect import flow, get_run_logger

from capo_core.errors import CapoError
from flows import stages
from tasks.inbox import Inbox, find_inboxes


@flow(name="collect", persist_result=False)
def collect() -> list[str]:
    """Take in every file that lies in an inbox, in the order of their names; return what became of each.

    Raises:
        CapoError: if an inbox's experiment cannot be read; after all other inboxes were looked into.
    """
    return _visit(_empty)


def _empty(inbox: Inbox) -> list[str]:
    outcomes: list[str] = []
    config = inbox.read_experiment()
    for path in inbox.wait_for_files():
        try:
            stages.ingest(config, str(path))
        except CapoError as error:
            # What is wrong with the file is the sender's to mend; anything else leaves it where it is for the next run.
            get_run_logger().warning("%s: refused: %s", path, error)
            outcomes.append(f"refused: {inbox.refuse(path, str(error))}")
        else:
            outcomes.append(f"taken in: {inbox.put_away(path)}")
    return outcomes


@flow(name="review", persist_result=False)
def review() -> list[str]:
    """Evaluate every corpus that has an inbox, in full, and write its report; return the reports' references.

    Raises:
        CapoError: if an experiment cannot be read; the others were reviewed.
    """
    return _visit(lambda inbox: [stages.report(inbox.read_experiment())["report"]])


def _visit(work: Callable[[Inbox], list[str]]) -> list[str]:
    """Do work on every inbox and return what comes of it; the first error is raised once all were visited."""
    outcomes: list[str] = []
    problems: list[CapoError] = []
    for inbox in find_inboxes():
        try:
            outcomes += work(inbox)
        except CapoError as error:
            get_run_logger().error("%s: %s", inbox.folder, error)
            problems.append(error)
    if problems:
        raise problems[0]
    return outcomes
