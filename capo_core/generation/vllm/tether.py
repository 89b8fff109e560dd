"""Run a command until it ends or standard input does, whichever comes first; nothing of it is left then.

Started as a script of its own (`python tether.py COMMAND…`) by a process that holds the other end of standard input
and nothing else does: when that process is gone, however it went, the command and all it started go too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

_GRACE_SECONDS = 15.0


def main() -> int:
    """Run the command of the arguments; return its exit status."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_input, args=(process,), daemon=True).start()
    status = process.wait()
    _signal_group(process, signal.SIGKILL)  # what the command started and left behind
    return status


def _end_with_input(process: subprocess.Popen) -> None:
    # Not through sys.stdin, whose lock would be held when the interpreter shuts down.
    while os.read(0, 1):
        pass
    _signal_group(process, signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


if __name__ == "__main__":
    sys.exit(main())
