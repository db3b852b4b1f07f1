"""Training: tasks in, records out. Start reading at `sequential.py`.

An engine knows no files and no YAML. `ENGINES` names them; each takes tasks and yields records.
"""

from __future__ import annotations

from lrexp.engine.sequential import run_sequentially
from lrexp.engine.task import Engine
from lrexp.engine.vectorized.fallback import run_vectorized

ENGINES: dict[str, Engine] = {"sequential": run_sequentially, "vectorized": run_vectorized}
