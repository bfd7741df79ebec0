"""A few threads beside an event loop, for calls that would block it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

from exporter.web.fairness import Shares

T = TypeVar("T")


class Workers:
    """Runs blocking calls, `threads` at a time, in order of arrival; used from one event loop only.

    Threads live as long as their call and are daemons: none is left when idle, and a call that hangs cannot keep the process
    from ending, as it would in `concurrent.futures`, which joins its threads at exit.
    """

    def __init__(self, name: str, *, threads: int, waiting: int, of_one: int | None = None) -> None:
        """At most `waiting` calls wait for a thread, and one client has at most `of_one` here; further calls are refused."""
        self._name = name
        self._slots = asyncio.Semaphore(threads)
        self._shares = Shares(threads + waiting, of_one)

    async def run(self, call: Callable[[], T], client: str = "") -> T:
        """What `call` returns or raises.  Raises `BusyError` when too many calls are waiting, in all or of this client."""
        self._shares.take(client)
        try:
            await self._slots.acquire()
        except BaseException:
            self._shares.leave(client)  # the client went away before its turn
            raise
        # A thread cannot be stopped: a call whose client has gone still counts until it ends.
        return await asyncio.shield(asyncio.ensure_future(self._in_slot(call, client)))

    async def _in_slot(self, call: Callable[[], T], client: str) -> T:
        try:
            return await self._in_thread(call)
        finally:
            self._slots.release()
            self._shares.leave(client)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if outcome.done():  # cancelled: the server is stopping
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)  # type: ignore[arg-type]  # None only where T is

        def work() -> None:
            result, failure = None, None
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it is raised again where the call is awaited
                failure = error
            with suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(settle, result, failure)

        Thread(target=work, name=self._name, daemon=True).start()
        return await outcome
