"""The budgets: each workspace reports its usage; the sums are published."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from exporter.config.money import Budget
from exporter.counting.usage import Spent, lines
from exporter.publish.exposition import Exposition, Section
from exporter.publish.usage import budget_lines

_BOARD = ""
"""The exposition's name for budgets, which belong to no workspace: no workspace has an empty name."""


class BudgetBoard:
    """Adds up budgets that may span workspaces. Each workspace reports its usage after its own poll."""

    def __init__(self, exposition: Exposition, budgets: Sequence[Budget]) -> None:
        self._exposition = exposition
        self._lock = threading.Lock()
        self._budgets = tuple(budgets)
        self._spent: dict[str, Mapping[str, Spent]] = {}

    def configure(self, budgets: Sequence[Budget]) -> None:
        """Applies the budgets of a new configuration."""
        with self._lock:
            self._budgets = tuple(budgets)
            self._publish()

    def tell(self, workspace: str, spent: Mapping[str, Spent] | None) -> None:
        """Reports a workspace's use of each budget; `None` if the workspace was removed from the configuration."""
        with self._lock:
            self._spent = {name: told for name, told in self._spent.items() if name != workspace}
            if spent is not None:
                self._spent[workspace] = spent
            self._publish()

    def _publish(self) -> None:
        if not self._budgets:
            self._exposition.publish(_BOARD, None)
            return
        texts = budget_lines(lines(self._budgets, self._spent))
        self._exposition.publish(_BOARD, {name: [Section(text)] for name, text in texts.items()})
