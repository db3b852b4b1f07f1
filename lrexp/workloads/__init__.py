"""What trials train: data in batches, models, losses, optimizers.

The order of batches is a pure function of (seed, epoch); models are completed from the facts of
the data."""
