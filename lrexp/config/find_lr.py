"""The section `find_lr` of a config: the range test, and what may be spent after it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from lrexp.config.budget import Budget, parse_budget
from lrexp.config.fields import RULES, RuleName, Spending, refusal
from lrexp.schedules.signatures import Positive


class FindLrConfig(BaseModel):
    """The LR range test of `lrexp find-lr`, and the trainings of several LRs after it."""

    model_config = RULES

    min_lr: Positive = Field(default=1e-7, description="LR of the first step.")
    max_lr: Positive = Field(default=10.0, description="LR of the last step.")
    steps: int = Field(
        default=100, ge=2, le=10_000_000, description="Optimizer steps from min to max."
    )
    seeds: int = Field(default=3, ge=1, le=10_000, description="Range tests that are combined.")
    mode: Literal["exp", "linear"] = Field(default="exp", description="How the LR rises.")
    stop_factor: float = Field(
        default=4.0, gt=1, description="Stop when the smoothed loss is this many times its best."
    )
    rule: RuleName = Field(default="auto", description="Which rule gives the suggestion.")
    part: int | None = Field(
        default=None,
        ge=0,
        description="The number of the part of optimizer.parts whose LR rises while the others "
        "stay at theirs; by default all rise together, and the LR is that of the first.",
        examples=[0],
    )
    race: bool = Field(default=False, description="A budget of 1x, unless another is given.")
    budget: Spending | None = Field(
        default=None,
        description="What may be spent on trainings of several LRs after the range test: time "
        "(60s, 5min), whole trainings in steps (1x, or a number), a share of the time of one "
        "(10%), 0 for none. Default: 20 s, or 10 % of one training where that is longer.",
        examples=["60s"],
    )

    @property
    def spends(self) -> Budget | None:
        """The budget; None is the default."""
        given = None if self.budget is None else parse_budget(self.budget)
        return Budget(1.0, "x") if self.race and not (given and given.amount) else given

    @property
    def is_range_test(self) -> bool:
        """Whether no trainings follow the range test."""
        return self.spends is not None and self.spends.amount == 0

    @model_validator(mode="after")
    def _rising(self) -> FindLrConfig:
        if self.min_lr >= self.max_lr:
            what = f"must be greater than find_lr.min_lr, {self.min_lr:g}"
            raise refusal(what, "Raise it, or lower min_lr.", "max_lr")
        return self
