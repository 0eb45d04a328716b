"""What a spec would lead to, before there is a session: its curves, and its known pitfalls."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from pacesetter_service.catalogue.findings import Finding, Subject
from pacesetter_service.catalogue.lint import lint
from pacesetter_service.core.cost import Check, evaluated, refuse_costly, refuse_costly_reading
from pacesetter_service.core.decide import count_usable
from pacesetter_service.core.errors import ScheduleNotFiniteError, concerning
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.queries.curves import Curve, thinned
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.windows import refuse_too_many

T = TypeVar("T")


async def preview(
    service: Service,
    spec: SessionSpec,
    start: int,
    count: int,
    points: int,
    show: Callable[[Curve, Check], T],
) -> T:
    """Return what `show` makes of the curves of a spec, as they would be without any metric.

    Args:
        service: The service.
        spec: The spec that a session would be created with.
        start: The first step.
        count: How many steps.
        points: About how many points are kept of the curves.
        show: Makes the answer from the curves, on the thread that evaluates them.

    Raises:
        TooCostlyError: Evaluating that is beyond the budget.
        StepOutOfRangeError: These are too many values for one answer.
        ScheduleNotFiniteError: The law leaves the range of learning rates.
        BusyError: Too many costly answers are being prepared already.
    """

    def answer(check: Check) -> T:
        refuse_costly(spec)
        lines = create(spec).timelines
        with concerning("count"):
            refuse_too_many(len(lines), count)
            refuse_costly_reading(lines.cost, count)
        values = evaluated(lines, start, count, check)
        try:
            count_usable(start, values)
        except ScheduleNotFiniteError as error:
            raise error.about(*spec.place_of_law(error.series)) from None
        block = np.stack(list(values.values()))
        check()
        curve = thinned(list(lines), block, start, points)
        check()
        return show(curve, check)

    return await service.reads.run(answer)


async def find_pitfalls(service: Service, subject: Subject) -> list[Finding]:
    """Return the known pitfalls of a spec, most severe first.

    Raises:
        TooCostlyError: A session of that spec would be refused.
        BusyError: Too many costly answers are being prepared already.
    """
    return await service.reads.run(lambda check: pitfalls_of(subject, check))


def pitfalls_of(subject: Subject, check: Check) -> list[Finding]:
    """Return the known pitfalls of a spec, on the caller's thread.

    Raises:
        TooCostlyError: A session of that spec would be refused.
    """
    refuse_costly(subject.spec)
    return list(lint(subject, check))
