"""Noticing that something changed in some directories (inotify), once for each burst of changes.

The standard library has no inotify. What we need of it is three functions of the C library and no look at the events,
which is less than any library that wraps it; so ctypes it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import trio

# Whoever changes a certificate writes several files; a burst is over when nothing has happened for so long …
QUIET_SECONDS = 0.3
# … or when it has lasted so long, for somebody may never stop writing.
LONGEST_SECONDS = 3.0

# linux/inotify.h: attributes, closed after writing, moved from, moved to, made, deleted; the directory gone, or moved
_CHANGES = 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
_ONLY_DIRECTORIES = 0x01000000

_log = logging.getLogger("attls.daemon")
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """The directories that are watched; a context manager. Raises OSError when the kernel gives no inotify instance."""

    def __init__(self) -> None:
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._watched: dict[int, Path] = {}

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def follow(self, directories: Iterable[Path]) -> bool:
        """Watch exactly `directories` from now on; tell whether one of them was not watched before.

        What happened there before this call was not seen, so whoever gets True looks once more.
        """
        before, self._watched = self._watched, {}
        for directory in directories:
            number = _libc.inotify_add_watch(
                self._descriptor, os.fsencode(directory), ctypes.c_uint32(_CHANGES | _ONLY_DIRECTORIES)
            )
            if number >= 0:
                self._watched[number] = directory
            elif ctypes.get_errno() != errno.ENOENT:
                _log.warning(
                    "changes in %s will not be noticed (%s); use `attls refresh` after them",
                    directory,
                    os.strerror(ctypes.get_errno()),
                )
        for number in before.keys() - self._watched.keys():
            _libc.inotify_rm_watch(self._descriptor, number)  # fails where the directory is gone, which does as well
        return bool(self._watched.keys() - before.keys())

    async def changed(self) -> None:
        """Return when something has changed and then been quiet for a moment."""
        await trio.lowlevel.wait_readable(self._descriptor)
        with trio.move_on_after(LONGEST_SECONDS):
            quiet = False
            while not quiet:
                self._drop_events()
                with trio.move_on_after(QUIET_SECONDS) as scope:
                    await trio.lowlevel.wait_readable(self._descriptor)
                quiet = scope.cancelled_caught
        self._drop_events()

    def _drop_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, 65536):
                pass
