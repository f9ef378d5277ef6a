"""Why a row cannot be used: the exception that readers raise, and that they yield for a pair they leave out."""

from __future__ import annotations


class Unusable(ValueError):
    """A row, or a pair of answers in it, cannot be used: a reason to count by, and the detail.

    `fault` is False for what a rule leaves out on purpose (see `BadRow`).
    """

    def __init__(self, reason: str, detail: str, *, fault: bool = True) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.fault = fault
