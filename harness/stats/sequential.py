"""A decision between two states from as few trials as it takes: Wald's sequential test on signs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.errors import MeasurementError
from harness.stats.rates import check_level

AGREEMENT = 0.8  # of trials with the truth, at least; what a trial's noise must leave


@dataclass(frozen=True, slots=True, kw_only=True)
class SignTest:
    """Which of two hypotheses single trials speak for; each wrong at most at the rate `error`.

    A trial speaks for the one or the other, with the truth at the rate `agreement` or more. No shape of the noise is
    assumed, and a wild value counts no more than another.
    Source: A. Wald, Ann. Math. Statist. 16 (1945) 117: the sequential probability ratio test of p = 1 - agreement
    against p = agreement; both of its boundaries are log((1 - error) / error).
    """

    error: float
    agreement: float = AGREEMENT
    n_for: int = 0
    n_against: int = 0

    def __post_init__(self) -> None:
        check_level(self.error, "the rate of errors")
        if not 0.5 < self.agreement < 1:
            raise MeasurementError(f"trials that agree at the rate {self.agreement} decide nothing; expected 0.5 to 1")

    @property
    def lead(self) -> int:
        """Return by how many trials the one must lead the other [trials]."""
        odds = math.log(self.agreement / (1 - self.agreement))
        return math.ceil(math.log((1 - self.error) / self.error) / odds - 1e-9)

    @property
    def n_trials(self) -> int:
        """Return the number of trials so far."""
        return self.n_for + self.n_against

    @property
    def decision(self) -> bool | None:
        """Return True or False when it is decided, else None."""
        if abs(self.n_for - self.n_against) < self.lead:
            return None
        return self.n_for > self.n_against

    def after(self, speaks_for: bool) -> SignTest:
        """Return the test after one more trial."""
        return SignTest(
            error=self.error,
            agreement=self.agreement,
            n_for=self.n_for + speaks_for,
            n_against=self.n_against + (not speaks_for),
        )
