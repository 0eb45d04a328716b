"""What a caller over HTTP can do about an error or a finding, with the addresses to use.

The core says what is wrong and what would be right, in words that apply to every caller.
"""

from collections.abc import Mapping

from pacesetter_service.catalogue.findings import Finding
from pacesetter_service.core import errors
from pacesetter_service.core.spec import SessionSpec

ADVICE: Mapping[type[errors.PacesetterError], str] = {
    errors.SessionNotFoundError: (
        "Create it with POST /v1/sessions, or list the ones that exist with GET /v1/sessions."
    ),
    errors.SessionExistsError: (
        "Read it with GET /v1/sessions/{name}, or fork it with POST /v1/sessions/{name}/fork and a"
        " `description` (in Python, continues={name!r})."
    ),
    errors.SessionNotArchivedError: "DELETE /v1/sessions/{{name}} archives it.",
    errors.PlanStaleError: "POST …/plan plans; POST …/actions takes an order.",
    errors.OrderNotFoundError: "GET …/actions lists the orders that wait.",
    errors.TooManyReportsError: "The next steps are asked for with `want`.",
    errors.UnknownKindError: "GET /v1/{family}s lists all of them.",
    errors.TemplateNotFoundError: (
        "List the ones that exist with GET /v1/templates, or publish it with POST /v1/templates."
    ),
    errors.TooFarAheadError: (
        "GET …/lr?step={start}&count= shows any step without sealing it; a trainer says"
        ' {{"attempt": {attempt}, "progress": {{"step": {start}}}}}.'
    ),
    errors.NoTableError: (
        "Ask for a part with `start` and `end`, or take the whole record (without `as=table`) to"
        " POST /v1/import, which knows no such limit."
    ),
    errors.ImportRefusedError: "GET /v1/sessions/{{name}}/export answers a whole record.",
    errors.NameTakenError: "POST /v1/import?name=… takes another name.",
    errors.UnauthenticatedError: (
        "Send `Authorization: Bearer <token>`; an admin makes tokens with POST /v1/tokens."
    ),
    errors.NotAllowedError: "An admin makes tokens, with their `bounds`, by POST /v1/tokens.",
    errors.RevisionChangedError: (
        "POST …/actions with `dry_run` shows it, and names the revision to give as `if_revision`."
    ),
    errors.ActorRefusedError: "Leave the header Pacesetter-Actor out.",
    errors.TokenNotFoundError: "GET /v1/tokens lists those that there are.",
    errors.OverloadedError: "Retry-After says how long to wait.",
    errors.BusyError: "Retry-After says how long to wait.",
}
"""Advice by the type of the error; its attributes are in braces."""


def advice_of(error: errors.PacesetterError) -> str:
    """Return what to do about an error over HTTP; empty if the error says everything."""
    return ADVICE.get(type(error), "").format(**vars(error))


ON_FINDINGS: Mapping[str, str] = {
    "template_deprecated": "GET /v1/templates/{template}",
}
"""Advice by the code of the finding; the template's reference is in braces."""


def advice_on(finding: Finding, spec: SessionSpec) -> str:
    """Return the advice on a finding about a spec, with the call that helps."""
    call = ON_FINDINGS.get(finding.code)
    if call is None or spec.origin is None:
        return finding.advice
    template, _, _ = spec.origin.template.partition("@")
    return f"{finding.advice}: {call.format(template=template)}"
