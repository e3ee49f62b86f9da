"""What a train worker computes: model, loss, schedule, state. Torch only; Ray Train is in ``pipeline``."""
