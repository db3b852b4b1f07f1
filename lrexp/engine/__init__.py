"""Training: tasks in, records out. Start reading at `sequential.py`.

An engine knows no files and no YAML. `ENGINES` names them; each takes tasks and yields records.
"""

from lrexp.engine.choice import Choice, choose
from lrexp.engine.device import pick_device
from lrexp.engine.loss import fit_accuracy, fit_loss, is_token_logits, loss_floor, over_tokens
from lrexp.engine.optimizer import has_momentum, make_optimizer
from lrexp.engine.pace import Pace
from lrexp.engine.pause import Pause, Stop, is_of_loader, may_be_of_loader
from lrexp.engine.rng import preserved_rng, seed_everything
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.state import MisfitError
from lrexp.engine.task import (
    Checkpoint,
    Ended,
    Engine,
    Evaluation,
    Failed,
    Interrupted,
    NoCheckpoint,
    Record,
    Started,
    Steps,
    Task,
    TrialId,
    Unit,
)
from lrexp.engine.vectorized import run_vectorized

ENGINES: dict[str, Engine] = {"sequential": run_sequentially, "vectorized": run_vectorized}

__all__ = [
    "ENGINES",
    "Checkpoint",
    "Choice",
    "Ended",
    "Engine",
    "Evaluation",
    "Failed",
    "Interrupted",
    "MisfitError",
    "NoCheckpoint",
    "Pace",
    "Pause",
    "Record",
    "Started",
    "Steps",
    "Stop",
    "Task",
    "TrialId",
    "Unit",
    "choose",
    "fit_accuracy",
    "fit_loss",
    "has_momentum",
    "is_of_loader",
    "is_token_logits",
    "loss_floor",
    "make_optimizer",
    "may_be_of_loader",
    "over_tokens",
    "pick_device",
    "preserved_rng",
    "run_sequentially",
    "run_vectorized",
    "seed_everything",
]
