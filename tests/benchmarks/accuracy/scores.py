"""From answers to figures: regrets per cell, and what stands in the table for each contender."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accuracy.answer import Answer
from accuracy.contenders import Contender, Setting
from accuracy.grid import Cell, cells, measured
from accuracy.regret import Landscape, landscape
from accuracy.training import CROSSED
from accuracy.workloads import Workload

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Score:
    """One contender on one cell: a value for each of its answers.

    Args:
        regrets: on the validation loss; train_regrets: on the training loss; 1 for a refusal.
    """

    cell: Cell
    answers: Sequence[Answer]
    regrets: Sequence[float]
    train_regrets: Sequence[float]
    claims: Sequence[float] = ()  # of each interval, the share of its LRs as good as it states

    @property
    def regret(self) -> float:
        return statistics.fmean(self.regrets)

    @property
    def refusals(self) -> int:
        return sum(answer.lr is None for answer in self.answers)

    @property
    def spread(self) -> float:
        """Standard deviation of log10 of the suggested LRs; NaN of fewer than two."""
        logs = [math.log10(answer.lr) for answer in self.answers if answer.lr is not None]
        return statistics.stdev(logs) if len(logs) > 1 else math.nan


@dataclass(frozen=True)
class Row:
    """A line of the table: one contender over all cells."""

    name: str
    scores: Sequence[Score]

    @property
    def mean(self) -> float:
        return statistics.fmean(score.regret for score in self.scores)

    @property
    def train_mean(self) -> float:
        return statistics.fmean(statistics.fmean(score.train_regrets) for score in self.scores)

    @property
    def worst(self) -> Score:
        return max(self.scores, key=lambda score: score.regret)

    @property
    def spread(self) -> float:
        """Mean over cells of the spread over seeds, in decades; NaN where there is none."""
        known = [score.spread for score in self.scores if not math.isnan(score.spread)]
        return statistics.fmean(known) if known else math.nan

    @property
    def refusals(self) -> int:
        return sum(score.refusals for score in self.scores)

    @property
    def questions(self) -> int:
        return sum(len(score.answers) for score in self.scores)

    @property
    def steps(self) -> float:
        """Mean cost of one answer in updates."""
        return statistics.fmean(a.steps for score in self.scores for a in score.answers)

    @property
    def seconds(self) -> float:
        """Mean seconds of one answer."""
        return statistics.fmean(a.seconds for score in self.scores for a in score.answers)

    @property
    def kept_claims(self) -> float:
        """Of the LRs in stated intervals, the share that is as good as stated; NaN of none."""
        shares = [share for score in self.scores for share in score.claims]
        return statistics.fmean(shares) if shares else math.nan

    def of_workload(self, work: Workload) -> float:
        """Mean regret over the optimizers and schedules of a workload."""
        return statistics.fmean(s.regret for s in self.scores if s.cell.work is work)


def score(
    works: list[Workload],
    takers: dict[str, Contender],
    setting: Setting,
    progress: Progress,
) -> tuple[list[Row], dict[str, Landscape]]:
    """Ask everybody about every cell; return a row for each, best first, and the landscapes."""
    lands: dict[str, Landscape] = {}
    scores: dict[str, list[Score]] = {name: [] for name in takers}
    for cell in cells(works):
        progress(cell.name)
        grid = measured(cell, setting.protocol, setting.cache)
        lands[cell.name] = land = landscape(grid)
        train = landscape(grid, of_training=True)
        for name, ask in takers.items():
            answers = ask(cell, setting)
            of_val, of_train = ([x.regret(a.lr) for a in answers] for x in (land, train))
            claims = [land.share_within(*a.interval, a.within) for a in answers
                      if a.interval is not None and a.within is not None]  # fmt: skip
            scores[name].append(Score(cell, answers, of_val, of_train, claims))
    rows = [Row(name, found) for name, found in scores.items()]
    return sorted(rows, key=lambda row: row.mean), lands


def refusals(
    controls: list[Workload], takers: dict[str, Contender], setting: Setting, progress: Progress
) -> dict[str, dict[str, tuple[int, int]]]:
    """Return for every contender and control how often it refused, and how often it was asked."""
    found: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in takers}
    for work in controls:
        progress(work.name)
        for name, ask in takers.items():
            asked = [work.only] if work.only else [(o, "constant") for o in CROSSED]
            answers = [a for each in asked for a in ask(Cell(work, *each), setting)]
            found[name][work.name] = (sum(a.lr is None for a in answers), len(answers))
    return found


def as_tree(rows: Sequence[Row], lands: dict[str, Landscape]) -> dict[str, Any]:
    """Return all figures for JSON, where there is no NaN."""
    return {
        "contenders": {
            row.name: {
                "mean_regret": row.mean,
                "worst_regret": row.worst.regret,
                "worst_cell": row.worst.cell.name,
                "mean_train_regret": row.train_mean,
                "spread_decades": None if math.isnan(row.spread) else row.spread,
                "refusals": row.refusals,
                "answers": row.questions,
                "steps": row.steps,
                "seconds": row.seconds,
                "claims_kept": None if math.isnan(row.kept_claims) else row.kept_claims,
                "cells": {
                    score.cell.name: {
                        "regrets": list(score.regrets),
                        "train_regrets": list(score.train_regrets),
                        "lrs": [answer.lr for answer in score.answers],
                    }
                    for score in row.scores
                },
            }
            for row in rows
        },
        "cells": {
            name: {
                "lrs": [float(lr) for lr in 10**land.log_lr],
                "loss": [float(loss) for loss in land.loss],
                "untrained": land.start,
                "best_lr": land.best_lr,
                "within_5_percent": list(land.good()),
                "best_is_interior": land.is_interior,
            }
            for name, land in lands.items()
        },
    }
