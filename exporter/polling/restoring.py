"""Opens and publishes the state in its own thread, because with hundreds of thousands of rooms this takes a while."""

from __future__ import annotations

import threading
from collections.abc import Callable

from exporter.config.config import Config
from exporter.logs import failure
from exporter.polling.fleet import Fleet
from exporter.publish.exposition import Exposition
from exporter.publish.selfmetrics import SelfMetrics
from exporter.state.store import Store, StoreError


class Restoring:
    """Opens the state and makes the workspaces from it, which publish the stored state."""

    def __init__(
        self, config: Config, open_state: Callable[[], Store], exposition: Exposition, metrics: SelfMetrics, done: Callable[[], None]
    ) -> None:
        self.config = config
        self._open = open_state
        self._exposition = exposition
        self._metrics = metrics
        self._done = done
        self._store: Store | None = None
        self._fleet: Fleet | None = None
        self._error: StoreError | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="restore", daemon=True)

    def start(self) -> None:
        """Starts the thread, which calls `done` at its end."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Waits at most this long for the end; returns whether it has come."""
        return self._ended.wait(seconds)

    @property
    def ended(self) -> bool:
        """Whether `result` is available."""
        return self._ended.is_set()

    def result(self) -> Fleet:
        """The workspaces, restored from the state.  Raises `StoreError` if the state cannot be used."""
        if self._error is not None:
            raise self._error
        assert self._fleet is not None
        return self._fleet

    def stop(self, release: Callable[[], None] | None = None) -> None:
        """Ends the workspaces and then closes the state, with `release` if it is given.

        A state that is still being read is left open: the process ends without waiting for it.
        """
        if self._fleet is not None:
            self._fleet.stop()
        if release is not None:
            release()
        if self._store is not None and self._ended.is_set():
            self._store.close()

    def withdraw(self) -> None:
        """Ends the workspaces after the state is lost, and removes their series."""
        if self._thread.ident is not None:
            self._thread.join()  # a lost state answers every request with an error at once
        self.stop()
        self._exposition.clear()
        for workspace in {workspace.name for workspace in self.config.workspaces} | set(self._fleet.names if self._fleet else ()):
            self._metrics.forget(workspace)

    def _run(self) -> None:
        try:
            self._store = self._open()
            self._fleet = Fleet(self.config, self._store, self._exposition, self._metrics)
        except StoreError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 (any error is passed to the main thread)
            failure("the state could not be read")
            self._error = StoreError(f"the state could not be read: a fault of the exporter ({type(error).__name__}); see the log")
        self._ended.set()
        self._done()
