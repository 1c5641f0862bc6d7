"""The refusals of the blob service: code and HTTP status as Azure sends them, messages shortened.

Source: REST "Blob service error codes" and "Common REST API error codes". Where the documentation
does not say which code a case gets, the place that raises it says so.
"""

from __future__ import annotations

_MESSAGES: dict[int, dict[str, str]] = {
    400: {
        "InvalidBlockList": "The specified block list is invalid.",
        "InvalidHeaderValue": "The value for one of the HTTP headers is not in the correct format.",
        "InvalidQueryParameterValue": "Value for one of the query parameters is invalid.",
        "InvalidResourceName": "The specified resource name contains invalid characters.",
        "InvalidXmlDocument": "XML specified is not syntactically valid.",
        "Md5Mismatch": "The MD5 value specified did not match the MD5 value calculated by the server.",
        "MissingRequiredHeader": "An HTTP header that is mandatory for this request is not specified.",
        "MissingRequiredQueryParameter": "A query parameter that is mandatory is not specified.",
        "OutOfRangeQueryParameterValue": "A query parameter is outside the permissible range.",
        "PreviousSnapshotCannotBeNewer": "The prevsnapshot value cannot be newer than the snapshot value.",
        "UnsupportedHeader": "One of the HTTP headers specified in the request is not supported.",
        "UnsupportedHeaderForNonManagedDisksAccount": "A header is supported on managed disks accounts only.",
    },
    401: {
        "NoAuthenticationInformation": "The request carries no authentication information.",
    },
    403: {
        "AuthenticationFailed": "Server failed to authenticate the request.",
        "AuthorizationFailure": "This request is not authorized to perform this operation.",
        "AuthorizationPermissionMismatch": "This request is not authorized to use this permission.",
        "AuthorizationResourceTypeMismatch": "This request is not authorized to use this resource type.",
        "AuthorizationServiceMismatch": "This request is not authorized to use this service.",
        "UnauthorizedBlobOverwrite": "This request is not authorized to perform blob overwrites.",
    },
    404: {
        "BlobNotFound": "The specified blob does not exist.",
        "CannotVerifyCopySource": "The specified copy source does not exist or cannot be read.",
        "ContainerNotFound": "The specified container does not exist.",
        "ResourceNotFound": "The specified resource does not exist.",
    },
    405: {
        "UnsupportedHttpVerb": "The resource doesn't support specified Http Verb.",
    },
    409: {
        "BlobAlreadyExists": "The specified blob already exists.",
        "BlobGenerationMismatch": "The blob generation does not match.",
        "BlobOverwritten": "The blob has been recreated since the previous snapshot was taken.",
        "BlobTypeNotSupported": "The blob type is not supported for this account type.",
        "ContainerAlreadyExists": "The specified container already exists.",
        "CopyIdMismatch": "The specified copy ID is not that of the pending copy operation.",
        "InvalidBlobType": "The blob type is invalid for this operation.",
        "LeaseAlreadyPresent": "There is already a lease present.",
        "LeaseIdMismatchWithLeaseOperation": "The lease ID specified is not that of the blob.",
        "LeaseNotPresentWithLeaseOperation": "There is currently no lease on the blob.",
        "NoPendingCopyOperation": "There is currently no pending copy operation.",
        "PendingCopyOperation": "There is currently a pending copy operation.",
        "PreviousSnapshotNotFound": "The previous snapshot is not found.",
        "PreviousSnapshotOperationNotSupported": "Get Page Ranges cannot compare with this snapshot.",
        "SnapshotCountExceeded": "The snapshot count against this blob has been exceeded.",
        "SnapshotOperationRateExceeded": "The rate of snapshots of this blob has been exceeded.",
        "SnapshotsPresent": "This operation is not permitted because the blob has snapshots.",
    },
    412: {
        "ConditionNotMet": "The condition specified using HTTP conditional header(s) is not met.",
        "LeaseIdMismatchWithBlobOperation": "The lease ID specified is not that of the blob.",
        "LeaseIdMissing": "There is currently a lease on the blob and no lease ID was specified.",
        "LeaseNotPresentWithBlobOperation": "There is currently no lease on the blob.",
        "SequenceNumberConditionNotMet": "The sequence number condition specified was not met.",
    },
    413: {
        "RequestBodyTooLarge": "The request body exceeds the maximum permissible limit.",
    },
    416: {
        "InvalidPageRange": "The page range specified is invalid.",
        "InvalidRange": "The range specified is invalid for the current size of the resource.",
    },
}
_CATALOGUE = {code: (status, text) for status, of in _MESSAGES.items() for code, text in of.items()}


class BlobError(Exception):
    """One refusal. `details` become further elements of the XML body, such as HeaderName."""

    def __init__(self, code: str, status: int | None = None, **details: str) -> None:
        usual_status, self.message = _CATALOGUE[code]
        self.code = code
        self.status = status or usual_status
        self.details = details
        super().__init__(f"{self.status} {code}: {self.message} {details or ''}".rstrip())


def bad_header(name: str, value: str | None) -> BlobError:
    """400 for a header: missing when there is no value, else malformed."""
    if value is None:
        return BlobError("MissingRequiredHeader", HeaderName=name)
    return BlobError("InvalidHeaderValue", HeaderName=name, HeaderValue=value)


def bad_query(name: str, value: str | None) -> BlobError:
    """400 for a query parameter: missing when there is no value, else malformed."""
    if value is None:
        return BlobError("MissingRequiredQueryParameter", QueryParameterName=name)
    return BlobError("InvalidQueryParameterValue", QueryParameterName=name, QueryParameterValue=value)
