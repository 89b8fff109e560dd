"""Secrets in Prefect blocks: read where they are needed, and written down nowhere else."""

from __future__ import annotations

import pytest
from prefect.blocks.system import Secret

from capo_core.errors import ConfigError
from tasks.secret_blocks import read_secret_block


def test_a_block_gives_its_text(prefect_server: None) -> None:
    Secret(value="the-key").save("judge-key", overwrite=True)
    assert read_secret_block("judge-key") == "the-key"


def test_a_block_that_is_not_there_is_named(prefect_server: None) -> None:
    with pytest.raises(ConfigError, match="Prefect has no block of type Secret named nowhere; make it in Prefect's UI"):
        read_secret_block("nowhere")


def test_a_block_of_something_else_is_refused_without_being_shown(prefect_server: None) -> None:
    Secret(value={"key": "canary"}).save("not-text", overwrite=True)
    with pytest.raises(ConfigError, match="Secret block not-text holds dict, not text") as caught:
        read_secret_block("not-text")
    assert "canary" not in str(caught.value)
