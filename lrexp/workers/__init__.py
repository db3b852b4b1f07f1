"""Training in worker processes: `pool` here, `worker` there, `messages` between them.

Nothing is imported here: a worker reads its first message before it imports torch.
"""
