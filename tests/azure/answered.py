"""Refusals of the blob service, and what the caller is told to do about them."""

from __future__ import annotations

from vsa.errors import (
    AccessDenied,
    AccessExpired,
    AzureNotFound,
    AzureRefused,
    DiffRefused,
    TryAgainLater,
    VsaError,
)

ANSWERED: list[tuple[int, str, type[VsaError]]] = [
    (400, "InvalidInput", AzureRefused),
    (400, "PreviousSnapshotCannotBeNewer", DiffRefused),
    (401, "AuthenticationFailed", AccessExpired),
    (401, "InvalidAuthenticationTokenTenant", AccessDenied),
    (401, "InvalidAuthenticationInfo", AccessExpired),
    (403, "AuthenticationFailed", AccessExpired),
    (403, "AUTHENTICATION_FAILED", AccessExpired),
    (403, "AuthorizationFailed", AccessDenied),
    (403, "AuthorizationPermissionMismatch", AccessDenied),
    (403, "", AccessDenied),
    (404, "BlobNotFound", AzureNotFound),
    (404, "ResourceNotFound", AzureNotFound),
    (404, "", AzureNotFound),
    (404, "PreviousSnapshotNotFound", DiffRefused),
    (408, "", TryAgainLater),
    (409, "PreviousSnapshotNotFound", DiffRefused),
    (409, "PreviousSnapshotOperationNotSupported", DiffRefused),
    (409, "BlobOverwritten", DiffRefused),
    (409, "BlobGenerationMismatch", DiffRefused),
    (409, "SnapshotOperationRateExceeded", AzureRefused),
    (400, "UnsupportedHeaderForNonManagedDisksAccount", DiffRefused),
    (412, "ConditionNotMet", AzureRefused),
    (416, "InvalidRange", AzureRefused),
    (429, "TooManyRequests", TryAgainLater),
    (500, "InternalError", TryAgainLater),
    (501, "", AzureRefused),
    (502, "", TryAgainLater),
    (503, "ServerBusy", TryAgainLater),
    (503, "AuthenticationFailed", TryAgainLater),
    (503, "BlobOverwritten", TryAgainLater),
    (504, "", TryAgainLater),
]
"""Status and code of an answer, and our error for it."""
