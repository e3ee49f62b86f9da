"""A curriculum inside one's own loop of reinforcement learning: prompts by expected p(1-p), without stages.

numpy alone; docs/howto/rl.md has TRL, verl and prime-rl.
"""

from zpd_ray.curriculum.sampler import Curriculum

__all__ = ["Curriculum"]
