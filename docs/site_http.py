"""The page about the HTTP API: every operation and every model of the OpenAPI document."""

import json
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from pacesetter_service.api.app import create_app
from pacesetter_service.catalogue import kinds as catalogue
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.sqlite import SqliteStore

Schema = dict[str, Any]

HEAD = """\
# HTTP reference

Every call that the service takes, made from the document that it serves itself at `/openapi.json`.
`/docs` on a running service has the same, to be tried out. Each refusal is a problem (RFC 9457):
[troubleshooting](../troubleshooting.md) lists the codes.
"""

SCALARS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minLength", "maxLength")
SIGNS = dict(zip(SCALARS, ("≥", ">", "≤", "<", "length ≥", "length ≤"), strict=True))
"""How bounds of a value are written."""

LARGEST_EXACT = 2**53 - 1
"""The bound of all whole numbers in JSON, which says nothing of one of them."""

METHODS = ("get", "post", "put", "patch", "delete")


def document() -> Schema:
    """Return the OpenAPI document of a service that is put together for it, and serves nothing."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(f"sqlite:///{folder}/pacesetter.db")
        service = Service.over(store, Writer(store))
        try:
            return create_app(service).openapi()
        finally:
            service.close()
            store.close()


def page() -> str:
    """Return the page."""
    described = shortened(document())
    return "\n".join([HEAD, *_operations(described), *_models(described)])


def shortened(described: Schema) -> Schema:
    """Return a document without the models that have pages of their own, one for each kind.

    What stands for any schedule, or for any controller, is left, with a link to the page.
    """
    models = dict(described["components"]["schemas"])
    stands_in: dict[str, str] = {}
    for name, schema in list(models.items()):
        members = schema.get("discriminator", {}).get("mapping", {})
        for page, kinds in ELSEWHERE.items():
            if members and set(members) == set(kinds):
                stands_in |= dict.fromkeys(members.values(), f"#/components/schemas/{name}")
                about = f"{schema.get('description', '')}\n\nEach kind is told on [a page]({page})."
                models[name] = {"type": "object", "description": about}
    for reference in stands_in:
        models.pop(reference.rpartition("/")[2], None)
    left = {**described, "components": {**described["components"], "schemas": models}}
    found: Schema = _with_references(left, stands_in)
    return found


ELSEWHERE = {"../schedules.md": catalogue.schedules(), "../controllers.md": catalogue.controllers()}
"""Pages that tell of many kinds."""


def _with_references(value: Any, stands_in: dict[str, str]) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {
            key: stands_in.get(inside, inside)
            if key == "$ref"
            else _with_references(inside, stands_in)
            for key, inside in value.items()
        }
    if isinstance(value, list):
        return [_with_references(each, stands_in) for each in value]
    return value


def _operations(described: Schema) -> Iterator[str]:
    by_tag: dict[str, list[tuple[str, str, Schema]]] = {}
    for path, methods in described["paths"].items():
        for method in METHODS:
            if operation := methods.get(method):
                tag = (operation.get("tags") or ["other"])[0]
                by_tag.setdefault(tag, []).append((method.upper(), path, operation))
    for tag, about in _tags(described, by_tag).items():
        yield f"## {tag.capitalize()}\n"
        if about:
            yield f"{about}\n"
        for method, path, operation in by_tag[tag]:
            yield from _operation(method, path, operation)


def _tags(described: Schema, used: dict[str, Any]) -> dict[str, str]:
    """Return the tags in their order, each with what is said of it."""
    declared = {tag["name"]: tag.get("description", "") for tag in described.get("tags", [])}
    order = [*declared, *(tag for tag in used if tag not in declared)]
    return {tag: declared.get(tag, "") for tag in order if tag in used}


def _operation(method: str, path: str, operation: Schema) -> Iterator[str]:
    yield f"### `{method} {path}` {{ #{anchor_of(method, path)} }}\n"
    yield f"{_prose(operation.get('description') or operation.get('summary', ''))}\n"
    if role := _role(operation):
        yield f"Takes the role `{role}`.\n"
    parameters = operation.get("parameters", [])
    if parameters:
        yield "| parameter | in | type | what |"
        yield "|---|---|---|---|"
        for each in parameters:
            name = f"`{each['name']}`" + (" *" if each.get("required") else "")
            schema = each.get("schema", {})
            yield f"| {name} | {each['in']} | {_type(schema)} | {_about({**schema, **each})} |"
        yield ""
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body, `{media}`: {_type(content.get('schema', {}))}\n"
    yield "| answer | what | body |"
    yield "|---|---|---|"
    for status, answer in operation.get("responses", {}).items():
        bodies = answer.get("content", {}).items()
        body = "<br>".join(f"`{media}` {_type(each.get('schema', {}))}" for media, each in bodies)
        yield f"| {status} | {_cell(answer.get('description', ''))} | {body} |"
    yield ""


def anchor_of(method: str, path: str) -> str:
    """Return the anchor of a call's section."""
    return f"{method.lower()}-" + re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-")


def _role(operation: Schema) -> str:
    """Return the least role that a call takes where the service asks for tokens."""
    for need in operation.get("security", []):
        for roles in need.values():
            if roles:
                return str(roles[0])
    return ""


def _models(described: Schema) -> Iterator[str]:
    yield "## Models\n"
    yield "What bodies and answers are made of. A star marks what has to be there.\n"
    for name, schema in sorted(described["components"]["schemas"].items()):
        yield f"### {name} {{ #{_model_anchor(name)} }}\n"
        if about := schema.get("description"):
            yield f"{_prose(about)}\n"
        if schema.get("properties"):
            yield from _fields(schema)
        else:
            yield f"{_type(schema)}\n"


def _fields(schema: Schema) -> Iterator[str]:
    required = schema.get("required", [])
    yield "| field | type | default | what |"
    yield "|---|---|---|---|"
    for name, field in schema["properties"].items():
        default = (
            f"`{_cell(json.dumps(field['default'], ensure_ascii=False))}`"
            if "default" in field
            else ""
        )
        star = " *" if name in required else ""
        yield f"| `{name}`{star} | {_type(field)} | {default} | {_about(field)} |"
    yield ""


def _about(schema: Schema) -> str:
    """Return what is said of a value: a description, its unit's example."""
    about = _cell(schema.get("description", ""))
    examples = schema.get("examples") or ([schema["example"]] if "example" in schema else [])
    if not isinstance(examples, list) or not examples:
        return about
    example = f"for instance `{_cell(json.dumps(examples[0], ensure_ascii=False))}`"
    return f"{about.removesuffix('.')}; {example}" if about else example


def _type(schema: Schema) -> str:
    """Return how a schema is written in a cell."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{_model_anchor(name)})"
    for word, between in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
        if word in schema:
            return between.join(dict.fromkeys(_type(each) for each in schema[word]))
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return ", ".join(f"`{_cell(json.dumps(each))}`" for each in values)
    return _plain_type(schema)


def _plain_type(schema: Schema) -> str:
    """Return how a type of JSON is written, with what it is made of and its bounds."""
    kind = schema.get("type", "any JSON")
    inside = {"array": "items", "object": "additionalProperties"}.get(str(kind), "")
    if isinstance(schema.get(inside), dict):
        return f"{'list' if kind == 'array' else 'object'} of {_type(schema[inside])}"
    bounds = [
        f"{SIGNS[each]} {schema[each]}"
        for each in SCALARS
        if each in schema and schema[each] != LARGEST_EXACT
    ]
    form = schema.get("format") or schema.get("contentMediaType")
    return _cell(" ".join([str(kind), *([f"({form})"] if form else []), *bounds]))


def _model_anchor(name: str) -> str:
    return "model-" + re.sub(r"[^a-z0-9_-]+", "-", name.lower())


def _cell(text: str) -> str:
    """Return a text as it may stand in a table's cell."""
    return _prose(" ".join(text.split())).replace("|", "\\|")


CODE = re.compile(r"(`+.+?`+)", re.DOTALL)


def _prose(text: str) -> str:
    """Return a docstring as Markdown in which nothing is taken for HTML."""
    parts = CODE.split(text)
    return "".join(part if part[:1] == "`" else part.replace("<", "&lt;") for part in parts)
