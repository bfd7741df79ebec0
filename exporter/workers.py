"""A few threads beside an event loop, for calls that would hold it up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class BusyError(Exception):
    """Too many calls are waiting already; try again later."""


class Workers:
    """Runs blocking calls, `threads` at a time, in order of arrival; used from one event loop only.

    Threads live as long as their call and are daemons: nothing is left behind when idle, and a call that hangs cannot keep the
    process from ending, as it would in `concurrent.futures`, which joins its threads at exit.
    """

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        """At most `waiting` calls wait for a thread; the next one is refused."""
        self._name = name
        self._slots = asyncio.Semaphore(threads)
        self._pending = 0
        self._limit = threads + waiting

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises.  Raises `BusyError` when too many are waiting."""
        if self._pending >= self._limit:
            raise BusyError
        self._pending += 1
        # A thread cannot be stopped: when nobody waits for its call any more, it still counts until it has ended.
        return await asyncio.shield(asyncio.ensure_future(self._run(call)))

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            async with self._slots:
                return await self._in_thread(call)
        finally:
            self._pending -= 1

    async def _in_thread(self, call: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if outcome.done():  # nobody waits any more: the server is stopping
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)  # type: ignore[arg-type]  # None only where T is

        def work() -> None:
            result, failure = None, None
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it is raised again, where the call is awaited
                failure = error
            with suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(settle, result, failure)

        Thread(target=work, name=self._name, daemon=True).start()
        return await outcome
