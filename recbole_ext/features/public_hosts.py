"""Connections that lead to the Internet and not into one's own network.

Addresses of pictures, and the redirects that they lead to, are written by others: one may name a
router, or a service of this machine. It is the address that was connected to that counts, so no
name can stand for another one later. Behind a proxy it is the proxy who decides.
"""

from __future__ import annotations

from http.client import HTTPConnection, HTTPSConnection
from ipaddress import ip_address
from typing import Any
from urllib.request import HTTPHandler, HTTPSHandler, Request


class NotPublic(Exception):
    """The server is of one's own network; nothing was sent to it."""


class _Checked(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        address = self.sock.getpeername()[0]
        if not ip_address(address).is_global:
            self.close()
            raise NotPublic(f"a server of one's own network ({address})")


class _CheckedHTTPS(HTTPSConnection, _Checked):
    """By TLS, which begins after the look: its ``connect`` calls that of :class:`_Checked`."""


def _is_direct(request: Request) -> bool:
    return not (request.has_proxy() or getattr(request, "_tunnel_host", None))


class PublicHTTPHandler(HTTPHandler):
    """Opens http, where it leads to the Internet."""

    def do_open(self, http_class: Any, req: Request, **given: Any) -> Any:
        """Connect, and look where to; urllib hands over the class and its arguments."""
        return super().do_open(_Checked if _is_direct(req) else http_class, req, **given)


class PublicHTTPSHandler(HTTPSHandler):
    """Opens https, where it leads to the Internet."""

    def do_open(self, http_class: Any, req: Request, **given: Any) -> Any:
        """Connect, and look where to; urllib hands over the class and its arguments."""
        return super().do_open(_CheckedHTTPS if _is_direct(req) else http_class, req, **given)
