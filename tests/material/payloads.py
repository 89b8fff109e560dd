"""What an attacker would plant: pickles and documents that make a folder if anything ever executes them."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any


class Payload:
    """Makes the marker when unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self._marker),))


def pickled(marker: Path) -> bytes:
    """Return a pickle that makes the marker."""
    return pickle.dumps(Payload(marker))


def torch_file(marker: Path) -> bytes:
    """Return a file as `torch.save` writes it, whose pickle makes the marker."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(marker))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return sink.getvalue()


def module_source(marker: Path) -> str:
    """Return Python code that makes the marker when imported."""
    return f"import os\nos.mkdir({str(marker)!r})\nclass Model: pass\n"


def jinja_payload(marker: Path) -> str:
    """Return a template that makes the marker where attributes of Python objects can be reached."""
    return "{{ cycler.__init__.__globals__.os.mkdir('" + str(marker) + "') }}"
