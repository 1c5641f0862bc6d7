"""The one border where the Azure SDK's exceptions become ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    DeserializationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from vsa.azure.wire import text
from vsa.errors import (
    AccessDenied,
    AccessExpired,
    AzureNotFound,
    AzureRefused,
    DiffRefused,
    TryAgainLater,
    VsaError,
)

# Answers that the service itself calls passing: request timeout, throttling, busy or restarting servers.
PASSING = frozenset({408, 429, 500, 502, 503, 504})

TOO_MANY = 429
# Throttling by either plane: ARM and its providers say it with 429, the blob service with 503.
BUSY_CODES = frozenset({"ServerBusy", "TooManyRequests"})

# https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes, those that mean "no diff
# between these two"; the last one is what an ordinary account answers to a managed disk's header.
DIFF_CODES = frozenset(
    {
        "PreviousSnapshotCannotBeNewer",
        "PreviousSnapshotNotFound",
        "PreviousSnapshotOperationNotSupported",
        "BlobGenerationMismatch",
        "BlobOverwritten",
        "UnsupportedHeaderForNonManagedDisksAccount",
    }
)

# How operations say that they failed for Azure's own reasons, and that their object is gone.
PASSING_CODES = frozenset(
    {
        "InternalExecutionError",
        "InternalServerError",
        "InternalOperationError",
        "OperationPreempted",
        "OperationPreemptedByAnotherOperation",
        "RetryableError",
        "ServerTimeout",
        "TooManyRequests",
    }
)
GONE_CODES = frozenset({"NotFound", "ResourceNotFound", "ResourceGroupNotFound"})

# What the blob service answers when a SAS has expired or was revoked.
SAS_CODES = frozenset({"AuthenticationFailed", "AUTHENTICATION_FAILED", "InvalidAuthenticationInfo"})

UNAUTHENTICATED = (
    "the access has ended or was revoked, or the account's keys were regenerated; if the next job meets the "
    "same, look at this machine's clock, which the blob service wants right to fifteen minutes"
)
"""Said of a SAS and of a signature by an account's key, which get the same answer for all of this (REST
"Authorize with Shared Key")."""

LACKS_A_RIGHT = "the identity lacks a right or its credential has expired"
_FORBIDDEN = {
    "AuthorizationFailure": (
        "the network rules of the storage account do not let this machine in, or the identity lacks a right"
    ),
    "KeyBasedAuthenticationNotPermitted": (
        "the storage account allows no keys, by which its VHDs are read; allow them, or leave its VMs out"
    ),
}
"""What to look at, by the blob service's codes that say more than 403 alone
(learn.microsoft.com/troubleshoot/azure/azure-storage/blobs/authentication/storage-troubleshoot-403-errors)."""


@contextmanager
def azure_errors(action: str) -> Iterator[None]:
    """Run Azure calls; only our errors come out, with the original as the cause.

    `action` says what was being done to which object ("delete snapshot web-01-a3f"), without secrets.
    """
    try:
        yield
    except VsaError:
        raise
    except (AzureError, DeserializationError) as error:
        raise translate(error, action) from error


def translate(error: AzureError | DeserializationError, action: str) -> VsaError:
    """Our error for an Azure SDK exception, chosen by what the caller can do about it."""
    if _is_garbled(error) or _is_sign_in_unreachable(error):
        return TryAgainLater(f"{action}: no whole answer from Azure: {_words(error)}")
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        return from_answer(action, error.status_code, code_of(error), _words(error), _retry_after(error))
    if isinstance(error, ResourceNotFoundError):
        return AzureNotFound(f"{action}: {_words(error)}", code="NotFound")
    if isinstance(error, ClientAuthenticationError):
        return AccessDenied(
            f"{action}: signing in to Azure failed: {_words(error)}; check tenant, client id and secret",
            code="AuthenticationFailed",
        )
    if isinstance(error, (ServiceRequestError, ServiceResponseError)):
        return TryAgainLater(f"{action}: no whole answer from Azure: {_words(error)}")
    return AzureRefused(f"{action}: {_words(error)}")


def _is_garbled(error: Exception) -> bool:
    """Whether an answer that was no refusal could not be read: it says success by its status, if anything."""
    if isinstance(error, DecodeError):
        return error.status_code is None or error.status_code < 400
    return isinstance(error, DeserializationError) or _is_cut(error)


def _is_cut(error: Exception) -> bool:
    """Whether a body came in chunks and broke off between two: azure.core makes a refusal without an answer
    of that (`RequestsTransport.send`), and only in mid-chunk an incomplete read."""
    return (
        isinstance(error, HttpResponseError)
        and error.response is None
        and isinstance(error.inner_exception, OSError)
    )


def _is_sign_in_unreachable(error: Exception) -> bool:
    """Whether the identity service gave no answer. azure-identity calls that, too, a failed authentication.

    A lost connection is the error's cause; of a busy service's answer only its status is left, in words.
    """
    return isinstance(error, ClientAuthenticationError) and (
        isinstance(error.__cause__, (ServiceRequestError, ServiceResponseError))
        or re.search(r"HTTP Error: (429|5\d\d)", str(error)) is not None
    )


def from_answer(
    action: str, status: int, code: str, words: str, retry_after: float | None = None
) -> VsaError:
    """Our error for an HTTP answer of either plane."""
    if status < 400:
        return _from_operation(action, code, words)
    answer = f"{status} {code}" if code else f"{status}"
    message = ": ".join(part for part in (action, answer, words) if part)
    if status in PASSING:
        is_busy = status == TOO_MANY or code in BUSY_CODES
        return TryAgainLater(message, retry_after=retry_after, is_busy=is_busy)
    if code in SAS_CODES and status in (401, 403):
        return AccessExpired(f"{message}; {UNAUTHENTICATED}")
    if status in (401, 403):
        message = f"{message}; {_FORBIDDEN.get(code, LACKS_A_RIGHT)}"
    return _refused_as(status, code)(message, code=code)


def from_blob_answer(
    action: str, status: int, reason: str, *, header: Callable[[str], str | None], body: bytes, expected: str
) -> VsaError:
    """Our error for an answer of the blob service that the SDK has not read and that is not `expected`.

    `body` is its beginning.
    """
    if status < 400:
        return AzureRefused(
            f"{action}: answered {status} {reason}, expected {expected}; "
            "look for a proxy server between here and Azure",
            code="UnexpectedAnswer",
        )
    said = body.decode("utf-8", "replace")
    in_body, message = re.search(r"<Code>(\w+)</Code>", said), re.search(r"<Message>([^<\n]+)", said)
    code = header("x-ms-error-code") or (in_body[1] if in_body else "")
    request = header("x-ms-request-id")
    words = (message[1].strip() if message else reason) + (f" (request {request})" if request else "")
    return from_answer(action, status, code, words, parse_retry_after(header("Retry-After")))


def _refused_as(status: int, code: str) -> type[AzureRefused]:
    if code in DIFF_CODES:
        return DiffRefused
    return {401: AccessDenied, 403: AccessDenied, 404: AzureNotFound}.get(status, AzureRefused)


def _from_operation(action: str, code: str, words: str) -> VsaError:
    """Our error for an operation that was accepted and then failed: its polls answer 200."""
    message = f"{action}: the operation ended as {code or 'failed'}: {words}"
    if code in PASSING_CODES:
        return TryAgainLater(message, is_busy=code in BUSY_CODES)
    if code in GONE_CODES:
        return AzureNotFound(message, code=code)
    return AzureRefused(message, code=code)


def code_of(error: HttpResponseError) -> str:
    """Azure's own error code: ARM puts it into the body, the blob service into a header."""
    blob_code = getattr(error, "error_code", None)
    if blob_code:
        return text(blob_code)
    arm_error = getattr(error, "error", None)
    return str(getattr(arm_error, "code", "") or "")


def _words(error: Exception) -> str:
    words = str(getattr(error, "message", "") or error)
    # azure.core.exceptions.ODataV4Format says "(code) message", whether there is a code or not.
    first = re.sub(r"^\((None)?\) ?", "", words.partition("\n")[0]).strip()
    return first or type(error).__name__


def _retry_after(error: HttpResponseError) -> float | None:
    headers = getattr(error.response, "headers", None) or {}
    return parse_retry_after(headers.get("Retry-After"))


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header; its date form is not used by Azure and is ignored."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        return None
