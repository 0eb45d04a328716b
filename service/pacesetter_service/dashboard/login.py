"""The login: a visitor shows a token once, and the browser keeps a signed statement of that."""

from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.complaints import bad_requests
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.door import COOKIE, NAME, NAMED
from pacesetter_service.dashboard.forms import read_form
from pacesetter_service.runtime import visits
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.tokens import store_uses

YEAR = 31_536_000


class Login:
    """The pages of the login."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def show(self, request: Request) -> Response:
        """Ask for a token."""
        if self._service.keys is None:
            return site.redirect(request, "")
        to = _inside(request.query_params.get("to", ""))
        return site.show(request, "login.html", to=to, mistake="", stranger=True)

    async def enter(self, request: Request) -> Response:
        """Begin a login with the token that was sent."""
        keys = self._service.keys
        if keys is None:
            return site.redirect(request, "")
        form = await read_form(request)
        to, secret = _inside(form.get("to", "")), form.get("token", "").strip()
        token = keys.holder(secret.encode())
        if token is None:
            bad_requests.tell("login_refused", status=int(HTTPStatus.UNAUTHORIZED))
            mistake = "This token is not known, was revoked, or has expired."
            return site.show(
                request,
                "login.html",
                status=HTTPStatus.UNAUTHORIZED,
                to=to,
                mistake=mistake,
                stranger=True,
            )
        await store_uses(self._service, keys)
        path, _, query = to.partition("?")
        answer = site.redirect(request, path)
        if query:
            answer.headers["location"] += f"?{query}"
        _keep(request, answer, visits.begin(keys, token), visits.HOURS * 3600)
        return answer

    async def call(self, request: Request) -> Response:
        """Remember the name that a visitor of an open service wants to have in the record.

        If there are tokens, the name is the token's.
        """
        name = (await read_form(request)).get("called", "").strip()
        answer = site.redirect(request, "")
        if self._service.keys is not None:
            return answer
        if name and not NAMED.fullmatch(name):
            said = "A name has letters, digits, blanks and . _ @ - in it, 64 characters at most."
            return site.refusal(request, HTTPStatus.UNPROCESSABLE_ENTITY, said)
        _keep(request, answer, name, YEAR if name else 0, cookie=NAME)
        return answer

    async def leave(self, request: Request) -> Response:
        """Forget the login."""
        answer = site.redirect(request, "login")
        _keep(request, answer, "", 0)
        return answer


def _keep(
    request: Request, answer: Response, text: str, seconds: int, *, cookie: str = COOKIE
) -> None:
    # A proxy may terminate TLS; the browser says which scheme it uses itself.
    encrypted = urlsplit(request.headers.get("origin", "")).scheme == "https"
    answer.set_cookie(
        cookie,
        text,
        max_age=seconds,
        path="/",
        secure=encrypted or request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def _inside(to: str) -> str:
    """Return where to go after the login: the given page if it is ours, else the first page."""
    place = urlsplit(to)
    outside = place.scheme or place.netloc or to.startswith(("/", "\\")) or "\\" in to
    return "" if outside or ".." in place.path or not to.isprintable() else to
