"""The server of the page: for this machine and whoever has its token, and for nobody else.

It answers names of the loopback interface alone (no other site can reach it through a name of its own that resolves
to 127.0.0.1), wants the token of this start as a cookie and, where something is asked of it, a header that no foreign
page can send. A request names cases by number, never files.
"""

from __future__ import annotations

import hmac
import importlib.resources
import json
import logging
import secrets
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from nnunet_ext.app.workspace import Workspace
from nnunet_ext.common.errors import InputError
from nnunet_ext.inference.prompt_file import MOST
from nnunet_ext.version import __version__

logger = logging.getLogger(__name__)
FILES = {  # all that there is to fetch
    "/": ("index.html", "text/html; charset=utf-8"),
    "/click.js": ("click.js", "text/javascript; charset=utf-8"),
    "/click.css": ("click.css", "text/css; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ASKING = "X-Nnunet-Ext"  # a header that browsers let no other site send
LARGEST = 1 << 20  # bytes of a request
PATIENCE = 30  # seconds without a byte from a browser


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    case: Annotated[int, Field(ge=0)]


class _Slice(_Asked):
    z: Annotated[int, Field(ge=0)]


class _Mask(_Slice):
    prompts: Annotated[list[dict[str, Any]], Field(max_length=MOST)]
    prompted: bool = True


class _Layer(_Slice):
    layer: str


class _Save(_Asked):
    prompts: Annotated[list[dict[str, Any]], Field(max_length=MOST)]


class PageServer(ThreadingHTTPServer):
    """Serves a workspace on 127.0.0.1.

    Args:
        workspace: what the page works on.
        port: 0 for any that is free.

    Raises:
        InputError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, workspace: Workspace, port: int = 0) -> None:
        self.workspace = workspace
        self.token = secrets.token_urlsafe(32)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as e:
            raise InputError(f"Port {port} cannot be used ({e}).", hint="Choose another with --port.") from e

    @property
    def url(self) -> str:
        """Where the page is, with the token that opens it."""
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """The cookie's name: ports of a machine share their cookies."""
        return f"nnunet_ext_{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about a browser that leaves in the middle."""
        logger.debug("connection of %s ended", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = PATIENCE
    protocol_version = "HTTP/1.1"
    server_version = f"nnunet_ext/{__version__}"
    sys_version = ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if not self._is_from_here():
            return
        given = parse_qs(url.query).get("token", [""])[0]
        if url.path == "/" and given and self._is_token(given):
            cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            self._send(HTTPStatus.SEE_OTHER, b"", "text/plain", {"Location": "/", "Set-Cookie": cookie})
        elif not self._has_cookie():
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that nnunet_ext click printed, with its token.")
        elif url.path in FILES:
            name, kind = FILES[url.path]
            content = (importlib.resources.files("nnunet_ext.app") / "page" / name).read_bytes()
            self._send(HTTPStatus.OK, content, kind)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def do_POST(self) -> None:
        if not self._is_from_here():
            return
        if not self._has_cookie():
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that nnunet_ext click printed, with its token.")
            return
        origin = self.headers.get("Origin")
        if ASKING not in self.headers or (origin is not None and origin != f"http://{self.headers['Host']}"):
            self._refuse(HTTPStatus.FORBIDDEN, "Only the page itself may ask.")
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "The request does not say how long it is.")
            return
        if len(length) > 9 or int(length) > LARGEST:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request has at most {LARGEST} bytes.")
            return
        self._answer(self.rfile.read(int(length)))

    def _answer(self, body: bytes) -> None:
        try:
            found = self._ask(urlsplit(self.path).path, body)
        except InputError as e:
            self._refuse(HTTPStatus.BAD_REQUEST, " ".join(filter(None, [*e.problems, e.hint])))
        except (ValidationError, ValueError, RecursionError) as e:
            what = e.errors()[0]["msg"] if isinstance(e, ValidationError) else str(e)
            self._refuse(HTTPStatus.BAD_REQUEST, f"The request makes no sense: {what:.200}")
        except Exception as e:  # whatever it is, the server and the session go on
            logger.exception("a request of the page failed")
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(e).__name__}: {e!s:.200}; see the terminal.")
        else:
            if found is None:
                self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")
            elif isinstance(found, bytes):
                self._send(HTTPStatus.OK, found, "application/octet-stream")
            else:
                self._send(HTTPStatus.OK, json.dumps(found).encode(), "application/json")

    def _ask(self, path: str, body: bytes) -> dict[str, Any] | bytes | None:
        """Let the workspace answer; None where there is no such question."""
        workspace = self.server.workspace
        if path == "/api/state":
            return workspace.state()
        if path == "/api/progress":
            return workspace.progress()
        if path == "/api/open":
            return workspace.open(_read(_Asked, body).case)
        if path == "/api/pixels":
            asked = _read(_Slice, body)
            return workspace.pixels(asked.case, asked.z)
        if path == "/api/mask":
            mask = _read(_Mask, body)
            return workspace.mask(mask.case, mask.z, mask.prompts, prompted=mask.prompted)
        if path == "/api/layer":
            layer = _read(_Layer, body)
            return workspace.layer(layer.case, layer.z, layer.layer)
        if path == "/api/save":
            save = _read(_Save, body)
            return workspace.save(save.case, save.prompts)
        return None

    def _is_from_here(self) -> bool:
        """Tell whether the browser was sent to this machine by a name of its own; else refuse."""
        hosts = self.headers.get_all("Host") or []
        try:
            here = len(hosts) == 1 and urlsplit(f"//{hosts[0]}").hostname in LOOPBACK
        except ValueError:
            here = False
        if not here:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This page is for 127.0.0.1 and localhost alone.")
        return here

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.server.token.encode())

    def _has_cookie(self) -> bool:
        try:
            cookies = SimpleCookie("; ".join(self.headers.get_all("Cookie") or []))
        except CookieError:
            return False
        own = cookies.get(self.server.cookie)
        return own is not None and self._is_token(own.value)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True  # whatever else was sent is not read
        self._send(status, json.dumps({"error": why}).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        described = {"Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in {**HEADERS, **described, **(more or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's name)
        """Say nothing on the terminal: an address may carry the token."""


def _read(kind: type[Any], body: bytes) -> Any:
    return TypeAdapter(kind).validate_json(body)
