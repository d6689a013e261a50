"""Access rules of the search page, around the application: hosts, token, other sites, headers."""

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names under which a server on the loopback address is reached."""
TOKEN_COOKIE = "rmgl_gallery"
"""Cookie that holds the proof that this browser has given the token."""
PUBLIC_PATHS = frozenset({"/style.css"})
"""Paths that are served without the token, because the page that asks for it uses them."""
HEADERS = {
    # No script at all, and nothing from elsewhere.
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Other sites get no referrer. With `no-referrer` browsers would send the origin `null` with the
    # page's own form, which could not be told from that of another site.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Kept by the browser that showed it, asked for again each time.
    "Cache-Control": "private, no-cache",
}
"""Headers of every response that does not set its own."""

Refuse = Callable[[Request, int, str], Response]
"""Makes the response for a request, a status and a sentence."""


class Access:
    """ASGI application that refuses what must not reach the application inside it.

    - Requests under another host name, which a page elsewhere could point at this machine (DNS
      rebinding).
    - POST requests of other sites.
    - With a token: requests without it. It is accepted as a cookie, as `Authorization: Bearer`, and
      once as `?token=`, which sets the cookie.
    """

    def __init__(
        self, app: ASGIApp, refuse: Refuse, token: str | None, names: Collection[str]
    ) -> None:
        self.app = app
        self.refuse = refuse
        self.token = token
        # Browsers send names in lower case.
        self.names = frozenset(map(str.lower, names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, with `HEADERS` on whatever answers it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        response = self._refusal(request)
        await (response or self.app)(scope, receive, _with_headers(send))

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if not self._is_own_host(host):
            return self.refuse(
                request, 421, "This server does not answer under the host name of this address."
            )
        if request.method not in ("GET", "HEAD") and _is_from_elsewhere(request, host):
            return self.refuse(request, 403, "Another site sent this form; it is not accepted.")
        if self.token is None or request.url.path in PUBLIC_PATHS:
            return None
        return self._check_token(request, self.token)

    def _is_own_host(self, host: str) -> bool:
        name = _host_name(host)
        if name is None:
            return False
        # Only names can be pointed at another machine. Addresses are open with a token, because
        # a server on all interfaces does not know its own.
        return name in self.names or (self.token is not None and _is_address(name))

    def _check_token(self, request: Request, token: str) -> Response | None:
        proof = hmac.new(token.encode(), TOKEN_COOKIE.encode(), hashlib.sha256).hexdigest()
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _equal(bearer.strip(), token):
            return None
        if _equal(request.cookies.get(TOKEN_COOKIE, ""), proof):
            return None
        given = request.query_params.get("token")
        if given is None:
            return self.refuse(request, 401, "This gallery is open only to those with its token.")
        if not _equal(given, token):
            return self.refuse(request, 401, "This is not the token of this gallery.")
        # The address that stays in the browser is without the token.
        response = RedirectResponse("/", 303)
        response.set_cookie(TOKEN_COOKIE, proof, httponly=True, samesite="lax", path="/")
        return response


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _host_name(host: str) -> str | None:
    """The name in `name:port` or `[address]:port`; None if it is neither."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_from_elsewhere(request: Request, host: str) -> bool:
    """Tells requests that a page of another site makes; programs send neither header."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
