"""Where a run's steps are computed, which the environment variable CAPO_FANOUT says; the outcome is the same anywhere.

    threads[:N]        in the run's own process, N at once (default 1: every training uses all cores, or the GPU)
    processes:N        in N processes of this machine
    ray, ray:N         in processes of a Ray cluster that is started on this machine for the run, with N cores of it
    ray://HOST:PORT    on a running Ray cluster
    jobs:N             each step that runs a model as a flow run of its own, N at once, which the work pool turns into
                       a process, a container or a Kubernetes job (see `tasks.jobs`)

Only where steps are submitted differs. Steps on several machines find each other's artifacts at CAPO_ARTIFACTS, or
under one CAPO_HOME that all of them see.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from capo_core.errors import ConfigError

SETTING = "CAPO_FANOUT"

_FORM = re.compile(r"(?P<place>threads|processes|ray|jobs)(:(?P<n>[1-9]\d*))?")
_CLUSTER = re.compile(r"ray://[\w.\[\]:-]+:\d+")
_MANY = 32
"""Arms of an experiment that are open at once where Ray decides how many steps are."""


@dataclass(frozen=True)
class FanOut:
    """Where steps are computed.

    Attributes:
        place: see the module.
        n_at_once: steps at once; for Ray None where the cluster decides.
        address: of a running Ray cluster.
    """

    place: Literal["threads", "processes", "ray", "jobs"]
    n_at_once: int | None
    address: str | None = None

    @property
    def n_lines(self) -> int:
        """Arms of an experiment whose steps are submitted beside each other."""
        return self.n_at_once or _MANY


def read_fan_out() -> FanOut:
    """Return what CAPO_FANOUT says.

    Raises:
        ConfigError: if it has none of the forms.
    """
    text = os.environ.get(SETTING) or "threads"
    if _CLUSTER.fullmatch(text):
        return FanOut("ray", None, text)
    match = _FORM.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{SETTING}={text}: write threads, threads:N, processes:N, ray, ray:N, ray://HOST:PORT or jobs:N"
        )
    n = None if match["n"] is None else int(match["n"])
    place = match["place"]
    if place in ("processes", "jobs") and n is None:
        raise ConfigError(f"{SETTING}={text}: say how many at once, as in {place}:2")
    return FanOut(place, 1 if place == "threads" and n is None else n)  # type: ignore[arg-type]
