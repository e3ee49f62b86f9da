"""What is left of an exception for who reads a sentence."""

from __future__ import annotations

import pytest
import ray

from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.cluster.failures import as_raised, user_error
from zpd_ray.pipeline.cluster.session import set_up_data


def failing(error: Exception) -> Exception:
    """What comes out of a task of Ray Data that raises it."""

    def fail(_: object) -> object:
        raise error

    set_up_data()
    with pytest.raises(type(error)) as raised:
        ray.data.range(1).map(fail).materialize()
    return raised.value


def test_an_error_in_a_task_is_told_in_a_line(local_ray: None) -> None:
    error = failing(OSError("the disk is gone"))
    assert len(str(error).splitlines()) > 1  # the stack of the task, and how Ray Data could be told to go on
    assert user_error(error) is None
    assert as_raised(error) == "OSError: the disk is gone"
    assert as_raised(KeyError("b")) == "KeyError: 'b'"


def test_a_sentence_in_a_task_is_told_as_it_is(local_ray: None) -> None:
    told = user_error(failing(ZpdError("the part is gone")))
    assert told is not None
    assert str(told).strip() == "the part is gone"
