"""The most memory that something took."""

from __future__ import annotations

import threading

import psutil


class PeakMemory:
    """The most memory while it is open above that at its opening, in bytes, looked at every 10 ms.

    Memory is what this process and its children hold together; what they share counts once where the system can tell.
    """

    def __enter__(self) -> PeakMemory:
        self._closed = threading.Event()
        self._before, self.peak = _held(), 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, _held() - self._before)
            if self._closed.wait(0.01):
                return


def _held() -> int:
    own = psutil.Process()
    children = own.children(recursive=True)
    if not children:
        return own.memory_info().rss
    total = 0
    for process in [own, *children]:
        try:
            found = process.memory_full_info()
        except psutil.Error:  # ended meanwhile
            continue
        total += getattr(found, "pss", found.rss)
    return total
