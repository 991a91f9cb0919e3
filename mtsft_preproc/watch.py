"""Stops a run that is rejecting its data."""

from __future__ import annotations

import logging
from collections import Counter

from mtsft_preproc.dialogue import Rejection
from mtsft_preproc.errors import DamagedFileError, RejectedDataError
from mtsft_preproc.parts import PartSummary
from mtsft_preproc.plan import Plan
from mtsft_preproc.readers import Shard, readers

__all__ = ["RejectionWatch"]

logger = logging.getLogger(__name__)

#: Records after which a run that rejects too large a share is stopped before its end.
_EARLY = 10_000


class RejectionWatch:
    """Stops a run that rejects its data.

    Looks at the parts in their order, whatever the order in which they come, so that the same run
    stops at the same place.

    Args:
        plan: The run.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._seen: dict[int, PartSummary] = {}
        #: Parts looked at, in their order.
        self.taken = 0
        #: Records in them.
        self.read = 0
        self._rejected: Counter[str] = Counter()
        self._lost = 0
        self._examples: list[str] = []
        self._file_rows: Counter[int] = Counter()
        #: Rejections that stand for damage to a file, by the file's number; and its path.
        self._damages: Counter[int] = Counter()
        self._damaged: dict[int, str] = {}

    def add(self, shard: Shard, summary: PartSummary) -> None:
        """Take note of a part.

        Raises:
            RejectedDataError: That was one rejection too many.
        """
        self._seen[shard.index] = summary
        while (part := self._seen.pop(self.taken, None)) is not None:
            self._take(self._plan.shards[self.taken], part)
            self.taken += 1

    def _take(self, shard: Shard, summary: PartSummary) -> None:
        for rejection in summary.first_rejections[: 3 - len(self._examples)]:
            self._examples.append(self._describe(shard, rejection))
        self._file_rows[shard.file] += summary.records
        self.read += summary.records
        self._rejected.update(summary.rejected)
        config = self._plan.config
        damages = sum(summary.rejected[reason] for reason in readers.get(shard.source.kind).damages)
        if damages:
            if config.on_error is None:  # the part is one that an earlier run has left
                raise DamagedFileError(f"{shard.source.path}: damaged")
            self._damages[shard.file] += damages
            self._damaged[shard.file] = shard.source.path
        self._lost += summary.lost.total()
        if (self._rejected or self._lost) and config.on_error == "fail":
            raise RejectedDataError(f"--on-error fail: {self._examples[0]}")
        if config.overlong == "fail" and summary.rejected["overlong"] + summary.lost["overlong"]:
            first = next((text for text in self._examples if ": overlong: " in text), shard.source.path)
            raise RejectedDataError(f"--overlong fail: {first}")
        if self.read >= _EARLY or isinstance(config.max_rejected, int):
            self._check_share()

    def _describe(self, shard: Shard, rejection: Rejection) -> str:
        row = self._file_rows[shard.file] + rejection.row
        field = f", field {rejection.field!r}" if rejection.field else ""
        return (
            f"{shard.source.path}, row {row}{field}: {rejection.reason}: "
            f"expected {rejection.expected}, got {rejection.got}"
        )

    def finish(self) -> None:
        """Look at all parts, and warn of each damaged file if the run goes on.

        Raises:
            RejectedDataError: Too many of their records were rejected.
        """
        self._check_share()
        for file, count in sorted(self._damages.items()):
            logger.warning(
                "%s: damaged, and read past that: %s of its %s rows stand for what is lost; "
                "PREFIX.rejected.jsonl lists them",
                self._damaged[file], count, self._file_rows[file],
            )  # fmt: skip

    def _check_share(self) -> None:
        limit = self._plan.config.max_rejected
        # To drop what is too long is what was asked for; the summary tells how much that was.
        asked = self._rejected["overlong"] if self._plan.config.overlong == "drop" else 0
        rejected = self._rejected.total() - asked
        allowed = limit if isinstance(limit, int) else limit * self.read
        if rejected > allowed:
            reasons = ", ".join(
                f"{reason} {count}"
                for reason, count in self._rejected.most_common()
                if not (asked and reason == "overlong")
            )
            raise RejectedDataError(
                f"{rejected} of {self.read} records were rejected ({reasons}), more than "
                f"--max-rejected {limit} allows; nothing was published. First: " + "; ".join(self._examples)
            )
