"""What a run will take: from rates that were timed on a sample to seconds, tokens, GPU-hours and room.

Arithmetic alone, without Ray or torch; the timing is in ``zpd_ray.pipeline.plan``.
"""
