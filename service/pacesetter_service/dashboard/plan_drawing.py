"""Pictures of a plan: losses with their bands above learning rates, over the same steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pacesetter_service.dashboard.drawing import Band, Line, Mark, chart
from pacesetter_service.insight.planner import Curve, Outlook
from pacesetter_service.runtime.queries.history import History
from pacesetter_service.runtime.queries.plan import Answer

LOSS_HEIGHT, RATE_HEIGHT = 320, 170

DIGITS = 7
"""How many digits of a value a script gets."""

CLOSE = 2
"""A close-up shows the past for one part in this many of the steps that are still to come."""

WHISKER_WIDTH, WHISKER_HEIGHT = 160, 18


@dataclass(frozen=True, slots=True)
class Foresight:
    """A plan beside what was measured.

    Attributes:
        found: The plan.
        past: The sealed rates and the metric, over common steps.
        series: The learning rate that is planned.
        shown: The indexes of the candidates to draw.
        whole: Whether the whole past is drawn, instead of a close-up.
    """

    found: Answer
    past: History
    series: str
    shown: Sequence[int]
    whole: bool

    @property
    def told(self) -> bool:
        """Whether losses are predicted."""
        return self.found.plan.effect is None

    @property
    def axis(self) -> tuple[int, int]:
        """The first and the last step that are drawn."""
        first = self.found.session.spec.start_step if self.whole else self._close
        return first, self._last

    @property
    def _last(self) -> int:
        ends = [each.candidate.total for each in self.found.plan.outlooks]
        return max([self.found.total, *ends])

    @property
    def _close(self) -> int:
        """The first step of a close-up."""
        horizon = self.found.plan.horizon
        close = horizon - (self._last - horizon) // CLOSE
        return max(self.found.session.spec.start_step, close)

    def curve(self, index: int) -> Curve | None:
        """Return the expected curve of a candidate; None if the candidate is refused."""
        return self.found.plan.outlooks[index].curve

    def losses(self) -> Markup:
        """Draw the metric so far and, with predictions, each candidate's curve, band and line."""
        metric, marks = self.found.question.metric, self._horizon()
        lines, bands = [self._measured(self.past.metrics.get(metric, []))], list[Band]()
        if self.told:
            for index in self.shown:
                curve = self.curve(index)
                if curve is None:
                    continue
                steps = curve.steps.tolist()
                look = self._look(index)
                lines.append(Line(self.label(index), steps, curve.losses.tolist(), index, look))
                bands.append(Band(steps, curve.low.tolist(), curve.high.tolist(), index, look))
            lines += self._blind()
        return chart(
            lines,
            label=f"{metric} by step: measured, then as it is expected of each candidate",
            bands=bands,
            marks=marks,
            axis=self.axis,
            height=LOSS_HEIGHT,
        )

    def rates(self) -> Markup:
        """Draw the sealed learning rate, and that of each candidate."""
        lines = [self._measured(self.past.series[self.series])]
        for index in self.shown:
            curve = self.curve(index)
            if curve is not None:
                steps, look = curve.steps.tolist(), self._look(index)
                lines.append(Line(self.label(index), steps, curve.rates.tolist(), index, look))
        return chart(
            lines,
            label=f"{self.series} by step: sealed, then that of each candidate",
            marks=self._horizon(),
            from_zero=True,
            axis=self.axis,
            height=RATE_HEIGHT,
        )

    def label(self, index: int) -> str:
        """Return the name of a candidate."""
        return self.found.plan.outlooks[index].candidate.label

    def _look(self, index: int) -> str:
        """Return the look of a candidate: the one without orders continues the line of the past."""
        return "" if self.found.plan.outlooks[index].candidate.orders else "so-far dashed"

    def as_json(self) -> dict[str, object]:
        """Return the data from which a script draws the same; it fetches measurements itself."""
        return {
            "close": self._close,
            "last": self._last,
            "start": self.found.session.spec.start_step,
            "horizon": self.found.plan.horizon,
            "metric": self.found.question.metric,
            "series": self.series,
            "told": self.told,
            "candidates": [_drawn(each, told=self.told) for each in self.found.plan.outlooks],
        }

    def _measured(self, values: Sequence[float | str | None]) -> Line:
        first, _ = self.axis
        pairs = [
            (step, value if isinstance(value, float | int) else None)
            for step, value in zip(self.past.steps, values, strict=False)
            if step >= first
        ]
        return Line("so far", [at for at, _ in pairs], [each for _, each in pairs], look="so-far")

    def _blind(self) -> list[Line]:
        curves = [each for index in self.shown if (each := self.curve(index)) is not None]
        longest = max(curves, key=lambda each: int(each.steps[-1]), default=None)
        if longest is None or longest.blind is None:
            return []
        return [Line("blind", longest.steps.tolist(), longest.blind.tolist(), look="blind dashed")]

    def _horizon(self) -> list[Mark]:
        step = self.found.plan.horizon
        return [Mark(step, "attempt", f"From step {step} on it can still change.")]


def whisker(outlook: Outlook, low: float, high: float) -> Markup:
    """Draw an end within its band, and the end predicted without rates, between two losses."""
    curve = outlook.curve
    if curve is None or high <= low:
        return Markup("")

    def x(value: float) -> str:
        return f"{4 + (value - low) / (high - low) * (WHISKER_WIDTH - 8):.1f}"

    middle = WHISKER_HEIGHT / 2
    blind = ""
    if curve.blind is not None:
        blind = Markup('<line class="blind" x1="{0}" x2="{0}" y1="3" y2="{1}"/>').format(
            x(curve.blind[-1]), WHISKER_HEIGHT - 3
        )
    return Markup(
        '<svg class="whisker" viewBox="0 0 {} {}" aria-hidden="true">{}'
        '<line class="reach" x1="{}" x2="{}" y1="{}" y2="{}"/><circle cx="{}" cy="{}" r="3.5"/>'
        "</svg>"
    ).format(
        WHISKER_WIDTH,
        WHISKER_HEIGHT,
        blind,
        x(curve.low[-1]),
        x(curve.high[-1]),
        middle,
        middle,
        x(curve.losses[-1]),
        middle,
    )


def span_of_ends(outlooks: Sequence[Outlook]) -> tuple[float, float]:
    """Return the lowest and the highest loss of all candidates' ends, bands included."""
    curves = [each.curve for each in outlooks if each.curve is not None]
    ends = [
        float(values[-1])
        for each in curves
        for values in (each.low, each.high, each.losses, each.blind)
        if values is not None
    ]
    return min(ends, default=0.0), max(ends, default=0.0)


def _drawn(outlook: Outlook, *, told: bool) -> dict[str, object] | None:
    curve = outlook.curve
    if curve is None:
        return None
    found: dict[str, object] = {
        "planned": not outlook.candidate.orders,
        "steps": curve.steps.tolist(),
        "lr": _rounded(curve.rates.tolist()),
    }
    if told:
        found |= {
            "loss": _rounded(curve.losses.tolist()),
            "low": _rounded(curve.low.tolist()),
            "high": _rounded(curve.high.tolist()),
            "blind": None if curve.blind is None else _rounded(curve.blind.tolist()),
        }
    return found


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{each:.{DIGITS}g}") for each in values]
