"""One stage's fit: how difficulty follows from what the stage measured, and the ability of its model.

Two models on one scale. *Ability* follows the same items over all stages (zpd_ray.ability). *Calibration*
ranks the pool at one stage, and takes the NLL of that stage, which says far more of the stage's responses
than an older one does: log NLL is standardised to z by the pool's median and spread at stage 0,
b = gamma (z - origin) + residual, with gamma, the residual's distribution and theta from the stage's own
responses; it is normal where they do not tell its shape, else as they tell it (irt.pool.residual). A shift
then puts the stage's theta where ability is; p depends on theta - b alone, so that no ranking hangs on it.
"""

from zpd_ray.calibration.fit import AIM, Calibration, Fit, Statistics
from zpd_ray.calibration.stage import fit_stage

__all__ = ["AIM", "Calibration", "Fit", "Statistics", "fit_stage"]
