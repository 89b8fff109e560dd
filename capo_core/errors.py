"""The exceptions capo raises. Each also inherits the standard exception a caller would expect."""

from __future__ import annotations


class CapoError(Exception):
    """Base of all errors whose message is meant for the user: what, where, and what to do."""


class ConfigError(CapoError, ValueError):
    """A configuration file or override is wrong; the message names file, key and what is allowed."""


class InputFileError(CapoError, ValueError):
    """An input file is missing or unreadable as a whole; the message names it and, where known, the line."""


class CorpusError(CapoError, ValueError):
    """The accepted annotations do not allow the requested step (one annotator only, too few items, …)."""


class ModelError(CapoError, RuntimeError):
    """A model cannot be found, loaded or used as configured."""


class TrainingError(CapoError, RuntimeError):
    """Training broke one of its own invariants (step-0 loss, finite loss, resumable checkpoint)."""


class JudgeError(CapoError, RuntimeError):
    """A judge could not be asked."""


class RatingsError(CapoError, ValueError):
    """A file of human ratings does not fit its validation set; the message lists each refused row."""


class DamagedArtifactError(CapoError, ValueError):
    """A stored artifact is missing or its bytes do not match its hash."""


class StoreError(CapoError, RuntimeError):
    """Where artifacts are shared cannot be reached, read or written."""


class StackError(CapoError, RuntimeError):
    """A server, worker or deployment cannot be started, reached or stopped."""


class ServeError(CapoError, RuntimeError):
    """Registered models cannot be served as asked."""


class RegistryError(CapoError, ValueError):
    """A registered model or version is missing or not what it says it is."""


class ReleaseError(CapoError, ValueError):
    """A data set or adapter cannot be exported as it is; the message says what is missing."""
