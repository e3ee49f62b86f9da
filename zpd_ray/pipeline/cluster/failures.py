"""The sentence for the user inside the wrappers that Ray puts around an exception."""

from __future__ import annotations

import re
import traceback

from ray.exceptions import RayTaskError

from zpd_ray.errors import ZpdError

# What Ray Data appends to the message of an exception in a task.
RAY_DATA_ADDS = "\nFailed to apply UDF"
# An actor that fails while it starts, and a train worker, hand their exception over as text only.
_TOLD = re.compile(r"^(?:zpd_ray\.errors\.)?ZpdError: (.+)$", re.MULTILINE)


def user_error(error: BaseException) -> ZpdError | None:
    """The ZpdError that a task, an actor or a worker raised; None when it was something else."""
    inner: BaseException | None = error
    while inner is not None:
        if type(inner) is ZpdError:
            return ZpdError(str(inner).partition(RAY_DATA_ADDS)[0])
        inner = getattr(inner, "cause", None) or inner.__cause__
    told = _TOLD.findall(str(error))
    return ZpdError(told[-1]) if told else None


def as_raised(error: BaseException) -> str:
    """Kind and message of an exception; of one in a task without what Ray puts around it: no traceback."""
    inner = getattr(error, "cause", None) if isinstance(error, RayTaskError) else None
    return traceback.format_exception_only(inner or error)[-1].partition(RAY_DATA_ADDS)[0].strip()
