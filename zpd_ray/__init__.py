"""zpd-ray: pick the training samples that teach this model most, stage by stage, on a Ray cluster."""

__version__ = "0.1.0"
