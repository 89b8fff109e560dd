"""The command line: what there is, how it ends, and what it says when something fails."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

import typer

from capo_core.errors import CapoError, ConfigError
from deployments.commands import artifacts, data, line, models, stack
from deployments.commands.common import ERR, EXIT_FAILED, EXIT_USAGE

app = typer.Typer(
    name="capo",
    help="Learns how individual people annotate, and proves or refutes that it did.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for part in (line, data, models, stack):
    app.add_typer(part.app)
app.add_typer(artifacts.app, name="artifacts", rich_help_panel="Data and people")


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 failed, 2 bad usage or configuration, 143 terminated."""
    # Without a handler the process would end at once and leave Prefect's temporary server running.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except ConfigError as error:
        ERR.print("[red]configuration error[/red] ", end="")
        ERR.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_USAGE)
    except CapoError as error:
        _fail(str(error))
    except Exception as error:
        from deployments.lost_servers import explain_lost_server

        said = explain_lost_server(error)
        if said is None:
            raise
        _fail(said)


def _fail(message: str) -> NoReturn:
    ERR.print("[red]failed[/red] ", end="")
    ERR.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
