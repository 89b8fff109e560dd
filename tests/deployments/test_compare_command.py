"""`capo compare` names what is wrong with a run it cannot find."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from capo_core.errors import ConfigError
from deployments.cli import app


def test_unknown_run_is_refused_with_what_to_give(prefect_server: None) -> None:
    done = CliRunner().invoke(app, ["compare", "nowhere", "elsewhere"])
    assert isinstance(done.exception, ConfigError)
    assert "nowhere: neither an MLflow run id nor the reference" in str(done.exception)


@pytest.mark.parametrize("arguments", [["compare"], ["compare", "one"]])
def test_two_runs_are_needed(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "Missing argument" in done.output
