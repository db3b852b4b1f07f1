"""Training: tasks in, records out. Start reading at `sequential.py`.

An engine takes tasks and yields records; it knows no files and no YAML. `engines.py` names them."""
