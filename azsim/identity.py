"""Microsoft Entra as far as a client secret goes: discovery, the token endpoint, bearer tokens.

Tokens are signed statements, not rows: they outlive a restart of the simulation as real ones outlive
a restart of Azure. They live in real time, because the client that holds one judges its age by its
own clock (see `azsim.clock`).

Source of the shapes: "Microsoft identity platform and the OAuth 2.0 client credentials flow".
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
import secrets
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from azsim.arm_protocol import ArmError
from azsim.documents import Documents
from azsim.files import kept_secret


@dataclass(frozen=True, slots=True)
class Principal:
    """Who may ask for tokens, and the subscription that the tokens open."""

    tenant: str
    client_id: str
    subscription: str
    secret: str
    secret_file: Path


def ensure_principal(documents: Documents, folder: Path) -> Principal:
    """The state folder's one tenant, application and subscription; made on first use."""
    stored = documents.get("identity", "principal")
    if stored is None:
        stored = {name: str(uuid.uuid4()) for name in ("tenant", "client_id", "subscription")}
        documents.put("identity", "principal", stored)
    secret_file = folder / "client.secret"
    secret = kept_secret(secret_file, lambda: secrets.token_urlsafe(30))
    return Principal(**stored, secret=secret, secret_file=secret_file)


class Identity:
    """Issues and checks bearer tokens."""

    def __init__(
        self, principal: Principal, *, base_url: str, signing_key: bytes, token_seconds: int = 3600
    ) -> None:
        self._principal = principal
        self._base_url = base_url
        self._key = signing_key
        self._token_seconds = token_seconds

    def routes(self) -> list[Route]:
        tenant = self._principal.tenant
        return [
            Route(f"/{tenant}/v2.0/.well-known/openid-configuration", self._discover, methods=["GET"]),
            Route(f"/{tenant}/oauth2/v2.0/token", self._token, methods=["POST"]),
        ]

    @property
    def authority(self) -> str:
        """Where the tenant's tokens come from."""
        return f"{self._base_url}/{self._principal.tenant}"

    def accepts_for(self, token: str, audience: str) -> bool:
        """Whether a bearer token is ours, still good, and meant for this service."""
        claims = self._opened(token)
        return self.accepts(token) and claims is not None and claims["aud"] == audience

    def accepts(self, token: str) -> bool:
        """Whether a bearer token is ours and still good."""
        claims = self._opened(token)
        return claims is not None and claims["exp"] > dt.datetime.now(dt.UTC).timestamp()

    def check(self, authorization: str | None, now: dt.datetime) -> None:
        """Raise the 401 that ARM answers unless the header holds a live token of ours."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise self._refusal("AuthenticationFailed", "The 'Authorization' header is missing.")
        claims = self._opened(token)
        if claims is None:
            raise self._refusal("InvalidAuthenticationToken", "The access token is invalid.")
        if claims["exp"] <= now.timestamp():
            raise self._refusal(
                "ExpiredAuthenticationToken",
                f"The access token expiry UTC time '{claims['exp']}' is earlier than current UTC time"
                f" '{now.timestamp():.0f}'.",
            )

    def _refusal(self, code: str, message: str) -> ArmError:
        challenge = (
            f'Bearer authorization_uri="{self._base_url}/{self._principal.tenant}",'
            f' error="invalid_token", error_description="{message}"'
        )
        return ArmError(401, code, f"Authentication failed. {message}", {"WWW-Authenticate": challenge})

    async def _discover(self, _request: Request) -> Response:
        authority = f"{self._base_url}/{self._principal.tenant}"
        return JSONResponse(
            {
                "issuer": f"{authority}/v2.0",
                "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize",
                "token_endpoint": f"{authority}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
            }
        )

    async def _token(self, request: Request) -> Response:
        asked = dict(parse_qsl((await request.body()).decode()))
        problem = self._problem_with(asked)
        if problem is not None:
            return problem
        now = dt.datetime.now(dt.UTC)
        return JSONResponse(
            {
                "token_type": "Bearer",
                "expires_in": self._token_seconds,
                "ext_expires_in": self._token_seconds,
                "access_token": self._signed(now, asked["scope"].removesuffix("/.default")),
            },
            headers={"Cache-Control": "no-store, no-cache"},
        )

    def _problem_with(self, asked: dict[str, str]) -> Response | None:
        principal = self._principal
        if asked.get("grant_type") != "client_credentials":
            return _oauth_error(
                "unsupported_grant_type",
                70003,
                f"The app requested an unsupported grant type '{asked.get('grant_type')}'.",
            )
        if asked.get("client_id") != principal.client_id:
            return _oauth_error(
                "unauthorized_client",
                700016,
                f"Application with identifier '{asked.get('client_id')}' was not found in the directory"
                f" '{principal.tenant}'.",
                status=400,
            )
        if not hmac.compare_digest(asked.get("client_secret", ""), principal.secret):
            return _oauth_error(
                "invalid_client",
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is the client"
                " secret value, not the client secret ID, for a secret added to app"
                f" '{principal.client_id}'.",
            )
        if not asked.get("scope", "").endswith("/.default"):
            return _oauth_error(
                "invalid_scope", 1002012, "The provided value for scope is not valid.", status=400
            )
        return None

    def _signed(self, now: dt.datetime, audience: str) -> str:
        claims = {
            "aud": audience,
            "iss": f"{self._base_url}/{self._principal.tenant}/v2.0",
            "appid": self._principal.client_id,
            "tid": self._principal.tenant,
            "iat": int(now.timestamp()),
            "exp": int(now.timestamp()) + self._token_seconds,
            "jti": secrets.token_hex(8),
        }
        head = _encoded(json.dumps({"typ": "JWT", "alg": "HS256"}).encode())
        body = _encoded(json.dumps(claims).encode())
        return f"{head}.{body}.{self._signature(head, body)}"

    def _signature(self, head: str, body: str) -> str:
        return _encoded(hmac.new(self._key, f"{head}.{body}".encode(), hashlib.sha256).digest())

    def _opened(self, token: str) -> dict[str, Any] | None:
        """The claims of a token that we signed; None for any other string."""
        parts = token.split(".")
        if len(parts) != 3 or not hmac.compare_digest(parts[2], self._signature(parts[0], parts[1])):
            return None
        try:
            claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
        except (binascii.Error, ValueError):
            return None
        return claims


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _oauth_error(error: str, number: int, description: str, *, status: int = 401) -> Response:
    correlation = str(uuid.uuid4())
    return JSONResponse(
        {
            "error": error,
            "error_description": f"AADSTS{number}: {description} Correlation ID: {correlation}",
            "error_codes": [number],
            "correlation_id": correlation,
        },
        status_code=status,
    )
