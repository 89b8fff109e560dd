"""Secrets that Prefect keeps: blocks of type Secret, by name."""

from __future__ import annotations

from prefect.blocks.system import Secret

from capo_core.errors import ConfigError


def read_secret_block(name: str) -> str:
    """Return what a Secret block of the Prefect server in use holds.

    Raises:
        ConfigError: if there is no such block, or it holds no text.
    """
    try:
        block = Secret.load(name, _sync=True)  # pyright: ignore[reportCallIssue]
    except ValueError:
        raise ConfigError(
            f"Prefect has no block of type Secret named {name}; make it in Prefect's UI under Blocks, or name the "
            "environment variable that holds the key (api_key_env)"
        ) from None
    value = block.get()
    if not isinstance(value, str):
        raise ConfigError(f"Prefect's Secret block {name} holds {type(value).__name__}, not text; save the key as text")
    return value
