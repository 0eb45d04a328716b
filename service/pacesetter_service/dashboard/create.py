"""Creating a session: a gallery of schedules, a form for each, and advice."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, get_args

from pydantic import JsonValue, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.catalogue import kinds
from pacesetter_service.catalogue.findings import Architecture, Finding, Subject
from pacesetter_service.catalogue.recommend import (
    Optimizer,
    Recommendation,
    Regime,
    Situation,
    recommend,
)
from pacesetter_service.catalogue.templates import TemplateUse
from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.core.spec import SessionSpec, refuse_not_yours
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.drawing import Line, chart, small_picture
from pacesetter_service.dashboard.forms import filled, read_form, status_of
from pacesetter_service.dashboard.mistakes import mistakes_in
from pacesetter_service.dashboard.orders import FieldError
from pacesetter_service.dashboard.snippets import snippets_of
from pacesetter_service.dashboard.twins import table_of
from pacesetter_service.dashboard.visitors import refuse_below, refuse_name, visitor_of
from pacesetter_service.dashboard.wording import rate
from pacesetter_service.runtime import operator
from pacesetter_service.runtime.queries import templates
from pacesetter_service.runtime.queries.curves import Curve
from pacesetter_service.runtime.queries.previews import find_pitfalls, preview
from pacesetter_service.runtime.service import Service

STEPS = 1_000
"""How many steps of a session without a length are drawn."""

MOST_STEPS = 1_000_000

POINTS = 400
"""About how many points a drawn curve has."""

SMALL = 80
"""About how many points a picture in the gallery has."""

WIDTH = 640

DAY = 86_400

Fields = dict[str, JsonValue]

_FIELDS: TypeAdapter[Fields] = TypeAdapter(dict[str, JsonValue])


@dataclass(frozen=True, slots=True)
class Look:
    """The preview of a spec, or what is wrong with it."""

    spec: SessionSpec | None = None
    picture: str = ""
    findings: list[Finding] = field(default_factory=list)
    refused: tuple[str, ...] = ()
    snippets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a schedule, as its JSON Schema describes it."""

    name: str
    value: str
    needed: bool
    hint: str
    choices: tuple[str, ...] = ()

    @property
    def long(self) -> bool:
        """Whether its field has several lines."""
        return self.value.startswith(("{", "["))


class Create:
    """The pages that create sessions."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def gallery(self, request: Request) -> Response:
        """Show every kind of schedule with its picture."""
        wanted = request.query_params.get("q", "").strip().lower()
        found = [kinds.describe_schedule(kind) for kind in kinds.schedules()]
        shown = [
            each
            for each in found
            if wanted in f"{each['kind']} {each['description']} {each['source']}".lower()
        ]
        named = [each for each in shown if "." not in each["kind"]]
        return site.show(
            request,
            "gallery.html",
            groups={
                "Schedules by name": [each for each in named if each["family"] == "named"],
                "Building blocks": [each for each in named if each["family"] != "named"],
                "Schedulers of libraries": [each for each in shown if "." in each["kind"]],
            },
            wanted=wanted,
        )

    async def picture(self, request: Request) -> Response:
        """Answer with the small picture of a kind: its example over the example's length."""
        example = kinds.describe_schedule(request.path_params["kind"])["example"]
        base = 1.0 if "momentum" in str(example) else 0.1
        spec = SessionSpec.model_validate({"name": "x", "base_lr": base, "schedule": example})
        curve = await self._curve(spec, SMALL)
        drawn = small_picture(curve.steps, curve.block[0].tolist(), [])
        headers = {"cache-control": f"private, max-age={DAY}"}
        return Response(drawn, headers=headers, media_type="image/svg+xml")

    async def form(self, request: Request) -> Response:
        """Show the form of a kind of schedule, filled with its example."""
        described = kinds.describe_schedule(request.path_params["kind"])
        example: Fields = described["example"]
        said = {f"p.{name}": _written(each) for name, each in example.items() if name != "kind"}
        total = example.get("total_steps")
        said |= {
            "name": "",
            "base_lr": "0.1",
            "total_steps": str(total) if isinstance(total, int) else "",
            "more": "",
        }
        look = await self.look(request, _spec_in(described["kind"], {**said, "name": "preview"}))
        return self._form(request, described, said, look)

    async def make(self, request: Request) -> Response:
        """Show a preview of the fields, or create the session."""
        described = kinds.describe_schedule(request.path_params["kind"])
        said = await read_form(request)
        creates = said.get("do") == "create"
        named = said.get("name", "").strip() or creates
        try:
            asked = _spec_in(described["kind"], said if named else {**said, "name": "preview"})
        except (FieldError, ValidationError) as error:
            return self._form(request, described, said, Look(refused=_reasons(error)), wrong=True)
        look, made = await self._done(request, asked, creates=creates)
        return made or self._form(request, described, said, look, wrong=bool(look.refused))

    def _form(
        self,
        request: Request,
        described: Mapping[str, Any],
        said: Mapping[str, str],
        look: Look,
        *,
        wrong: bool = False,
    ) -> Response:
        return site.show(
            request,
            "create.html",
            status=status_of(said, wrong=wrong),
            described=described,
            parameters=_parameters(described, said),
            said={"name": "", "base_lr": "", "total_steps": "", "more": "", **said},
            look=look,
        )

    async def text(self, request: Request) -> Response:
        """Show a form for a whole spec as JSON."""
        return self._text(request, {"spec": request.query_params.get("spec", "")}, Look())

    async def make_of_text(self, request: Request) -> Response:
        """Show a preview of a spec, or create the session."""
        said = await read_form(request)
        try:
            asked = _FIELDS.validate_python(json_in(said.get("spec", ""), "spec"))
        except (FieldError, ValidationError) as error:
            return self._text(request, said, Look(refused=_reasons(error)))
        look, made = await self._done(request, asked, creates=said.get("do") == "create")
        return made or self._text(request, said, look)

    def _text(self, request: Request, said: Mapping[str, str], look: Look) -> Response:
        status, spec = status_of(said, wrong=bool(look.refused)), said.get("spec", "")
        return site.show(request, "create_text.html", status=status, spec=spec, look=look)

    async def advise(self, request: Request) -> Response:
        """Ask about the training, and propose a session for it."""
        said = dict(request.query_params)
        shown = {"optimizer": "adamw", **said}
        found: Recommendation | None = None
        refused: tuple[str, ...] = ()
        look = Look()
        if said:
            try:
                found = recommend(Situation.model_validate(_situation(said)))
                look = await self.look(request, found.spec)
            except (ValidationError, FieldError) as error:
                refused = _reasons(error)
        return site.show(
            request,
            "advise.html",
            status=HTTPStatus.UNPROCESSABLE_ENTITY if refused else HTTPStatus.OK,
            said=shown,
            choices={
                "architecture": get_args(Architecture),
                "regime": get_args(Regime),
                "optimizer": get_args(Optimizer),
            },
            found=found,
            text="" if found is None else json.dumps(found.spec, indent=2),
            refused=refused,
            look=look,
        )

    async def _done(
        self, request: Request, asked: Fields, *, creates: bool
    ) -> tuple[Look, Response | None]:
        """Return the preview of a spec, and the answer if the session was created."""
        if not creates:
            return await self.look(request, asked), None
        refuse_below("trainer", visitor_of(request))
        try:
            spec = _read(request, asked)
            refuse_name(spec.name, visitor_of(request))
            await operator.create_session(self._service, spec, "")
        except (PacesetterError, ValidationError, FieldError) as error:
            return Look(refused=_reasons(error)), None
        return Look(), site.redirect(request, f"sessions/{spec.name}")

    async def look(self, request: Request, asked: Fields) -> Look:
        """Return the preview of a spec, or what is wrong with it."""
        try:
            spec = await self._spec(request, asked)
            curve = await self._curve(spec, POINTS)
            found = await find_pitfalls(self._service, Subject(spec))
        except (PacesetterError, ValidationError, FieldError) as error:
            return Look(refused=_reasons(error))
        lines = [
            Line(name, curve.steps, curve.block[row].tolist(), row)
            for row, name in enumerate(curve.names)
            if name.endswith("lr")
        ]
        label = f"The learning rate over {len(curve.steps)} points until step {curve.steps[-1]}"
        picture = chart(lines[:6], label=label, from_zero=True, width=WIDTH) + table_of(lines[:6])
        return Look(spec, picture, found, (), snippets_of(request, spec))

    async def _spec(self, request: Request, asked: Fields) -> SessionSpec:
        """Return the spec that was asked for, directly or by a template.

        Raises:
            ValidationError: It is not a spec.
            TemplateNotFoundError: There is no such template.
            OutOfScopeError: The template is outside of the visitor's scope.
        """
        use = _read(request, {**asked, "name": asked.get("name") or "preview"})
        if isinstance(use, SessionSpec):
            return use
        published = await templates.find_template(self._service, *use.reference)
        return use.spec(published.template)

    async def _curve(self, spec: SessionSpec, points: int) -> Curve:
        length = getattr(spec.schedule, "total_steps", None)
        count = spec.total_steps or (length if isinstance(length, int) else STEPS)
        start = spec.start_step
        count = min(max(count - start, 1), MOST_STEPS // len(spec.series()))
        return await preview(self._service, spec, start, count, points, lambda curve, _check: curve)


def _read(request: Request, asked: Fields) -> SessionSpec | TemplateUse:
    """Return what is asked for, as the API takes it.

    Raises:
        ValidationError: It is not a spec and names no template, or has fields of the service.
        OutOfScopeError: The template is outside of the visitor's scope.
    """
    refuse_not_yours(asked)
    if "template" not in asked:
        return SessionSpec.model_validate(asked)
    use = TemplateUse.model_validate(asked)
    refuse_name(use.reference.name, visitor_of(request))
    return use


def _spec_in(kind: str, said: Mapping[str, str]) -> Fields:
    """Return the spec that the fields of a form make.

    Raises:
        FieldError: A field cannot be read.
    """
    schedule: Fields = {"kind": kind}
    for name, text in said.items():
        if name.startswith("p.") and text.strip():
            schedule[name.removeprefix("p.")] = _value(text.strip())
    asked: Fields = {"name": said.get("name", "").strip(), "schedule": schedule}
    for name, text in filled(said, "base_lr", "total_steps").items():
        asked[name] = json_in(text, name)
    if text := said.get("more", "").strip():
        more = json_in(text, "more")
        if not isinstance(more, dict):
            raise FieldError("more", 'More of the spec: write an object, such as {"ranks": 8}.')
        asked |= more
    return asked


def _value(text: str) -> JsonValue:
    """Return the value in a field: JSON, or a word without quotes."""
    try:
        return _loaded(text)
    except ValueError:
        if text[0] in '{["':
            raise FieldError("schedule", f"This is no JSON: {text}") from None
        return text


def json_in(text: str, name: str) -> JsonValue:
    """Return the JSON value in a field.

    Raises:
        FieldError: It is not JSON.
    """
    try:
        return _loaded(text)
    except ValueError as error:
        raise FieldError(name, f"{name}: this is no JSON: {error}.") from error


def _loaded(text: str) -> JsonValue:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number of JSON")

    found: JsonValue = json.loads(text, parse_constant=refuse)
    return found


def _written(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, indent=2 if isinstance(value, dict | list) else None)


def _parameters(described: Mapping[str, Any], said: Mapping[str, str]) -> list[Parameter]:
    schema = described["parameters"]
    needed = set(schema.get("required", ()))
    return [
        Parameter(
            name=name,
            value=said.get(f"p.{name}", ""),
            needed=name in needed,
            hint=_hint(about),
            choices=tuple(about["enum"]) if _is_choice(about) else (),
        )
        for name, about in schema["properties"].items()
        if name != "kind"
    ]


def _is_choice(about: Mapping[str, Any]) -> bool:
    return all(isinstance(each, str) for each in about.get("enum", (0,)))


def _hint(about: Mapping[str, Any]) -> str:
    said = [about["description"]] if "description" in about else []
    if about.get("default") is not None and not isinstance(about["default"], dict | list):
        default = about["default"]
        said.append(f"{rate(default) if isinstance(default, float) else default} if empty")
    return "; ".join(said)


def _situation(said: Mapping[str, str]) -> Fields:
    numbers = ("total_steps", "samples", "batch_size", "range_test_max_lr")
    words = ("name", "architecture", "regime", "optimizer", "metric")
    asked: Fields = dict(filled(said, *words))
    asked |= {name: json_in(text, name) for name, text in filled(said, *numbers).items()}
    return asked


def _reasons(error: Exception) -> tuple[str, ...]:
    return mistakes_in(error) if isinstance(error, ValidationError) else (str(error),)
