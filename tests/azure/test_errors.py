"""What of Azure's refusals becomes which error of ours, chosen by what the caller can do."""

from __future__ import annotations

import importlib
import inspect
import socket
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core import PipelineClient
from azure.core import exceptions as core
from azure.core.rest import HttpRequest, HttpResponse
from azure.identity import AuthenticationRequiredError, ClientSecretCredential, CredentialUnavailableError
from azure.mgmt.core.exceptions import ARMErrorFormat
from azure.storage.blob import PartialBatchErrorException
from azure.storage.blob._shared.authentication import AzureSigningError

from tests.azure.answered import ANSWERED
from tests.azure.loopback import SIGNATURE, Loopback, anonymous, cut, refusing, send, serving
from vsa.azure.errors import azure_errors, from_answer, parse_retry_after, translate
from vsa.errors import (
    AccessDenied,
    AzureNotFound,
    AzureRefused,
    DiffRefused,
    TryAgainLater,
    VsaError,
)

SDK_MODULES = ["azure.core.exceptions", "azure.identity", "azure.storage.blob", "azure.mgmt.core.exceptions"]

WITHOUT_AN_ANSWER = {
    core.AzureError: AzureRefused,
    core.ServiceRequestError: TryAgainLater,
    core.ServiceResponseError: TryAgainLater,
    core.ServiceRequestTimeoutError: TryAgainLater,
    core.ServiceResponseTimeoutError: TryAgainLater,
    core.HttpResponseError: AzureRefused,
    core.DecodeError: TryAgainLater,
    core.IncompleteReadError: TryAgainLater,
    core.DeserializationError: TryAgainLater,
    core.ResourceExistsError: AzureRefused,
    core.ResourceNotFoundError: AzureNotFound,
    core.ClientAuthenticationError: AccessDenied,
    core.ResourceModifiedError: AzureRefused,
    core.ResourceNotModifiedError: AzureRefused,
    core.TooManyRedirectsError: AzureRefused,
    core.ODataV4Error: AzureRefused,
    core.StreamConsumedError: AzureRefused,
    core.StreamClosedError: AzureRefused,
    core.ResponseNotReadError: AzureRefused,
    AuthenticationRequiredError: AccessDenied,
    CredentialUnavailableError: AccessDenied,
    PartialBatchErrorException: AzureRefused,
    AzureSigningError: AccessDenied,
}
"""Every exception of the SDK, without an HTTP answer in it, and what the caller is told to do about it."""


@pytest.fixture
def azure() -> Iterator[Loopback]:
    with serving(refusing(404, "BlobNotFound")) as server:
        yield server


def sdk_exceptions() -> set[type[Exception]]:
    modules = [importlib.import_module(name) for name in SDK_MODULES]
    found = {item for module in modules for item in vars(module).values() if inspect.isclass(item)}
    return {item for item in found if issubclass(item, core.AzureError | core.DeserializationError)}


def an_error(kind: type[Exception]) -> Any:
    if kind is AuthenticationRequiredError:
        return kind(scopes=["https://management.azure.com/.default"])
    if kind in (
        core.ODataV4Error,
        core.StreamConsumedError,
        core.StreamClosedError,
        core.ResponseNotReadError,
    ):
        return kind(NoAnswer())
    if kind is PartialBatchErrorException:
        return kind("some parts failed", None, [])
    return kind("went wrong")


class NoAnswer:
    """What the exceptions want that cannot be made without something to read a body from."""

    reason = status_code = model = request = None

    def text(self) -> str:
        return ""


def an_answer(server: Loopback) -> HttpResponse:
    """The SDK's own response object for what the server says next."""
    with PipelineClient(base_url=server.origin, policies=[]) as client:
        answer = client.send_request(HttpRequest("GET", f"{server.origin}/"))
        answer.read()
        return answer


def test_every_exception_of_the_sdk_is_in_the_table() -> None:
    unlisted = sdk_exceptions() - set(WITHOUT_AN_ANSWER)
    assert not unlisted, "decide what callers shall do about these"


@pytest.mark.parametrize(("kind", "ours"), WITHOUT_AN_ANSWER.items(), ids=lambda item: item.__name__)
def test_exceptions_without_an_answer(kind: type[Exception], ours: type[VsaError]) -> None:
    with pytest.raises(VsaError) as caught, azure_errors("read disk web-01"):
        raise an_error(kind)
    assert type(caught.value) is ours
    assert str(caught.value).startswith("read disk web-01: ")
    assert type(caught.value.__cause__) is kind


@pytest.mark.parametrize(("status", "code", "ours"), ANSWERED)
def test_answers_of_the_data_plane(azure: Loopback, status: int, code: str, ours: type[VsaError]) -> None:
    azure.answers = [refusing(status, code)]
    blob = anonymous().blob(azure.url().reveal())
    with pytest.raises(VsaError) as caught, azure_errors("read blob disk"):
        list(blob.list_page_ranges())
    assert type(caught.value) is ours
    assert str(caught.value).startswith(f"read blob disk: {status} {code}".rstrip())
    if isinstance(caught.value, AzureRefused):
        assert caught.value.code == code
    assert SIGNATURE not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("status", "code", "ours"), ANSWERED)
def test_answers_of_the_control_plane(azure: Loopback, status: int, code: str, ours: type[VsaError]) -> None:
    body = f'{{"error": {{"code": "{code}", "message": "No."}}}}'.encode()
    azure.answers = [lambda request: send(request, status, {"Content-Type": "application/json"}, body)]
    error = core.HttpResponseError(response=an_answer(azure), error_format=ARMErrorFormat)
    ours_now = translate(error, "snapshot disk web-01")
    assert type(ours_now) is ours
    said = f"{status} {code}: ({code}) No." if code else f"{status}: No."
    assert str(ours_now).startswith(f"snapshot disk web-01: {said}")


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        ("InternalExecutionError", TryAgainLater),
        ("OperationPreempted", TryAgainLater),
        ("RetryableError", TryAgainLater),
        ("TooManyRequests", TryAgainLater),
        ("ResourceNotFound", AzureNotFound),
        ("NotFound", AzureNotFound),
        ("OperationNotAllowed", AzureRefused),
        ("QuotaExceeded", AzureRefused),
        ("", AzureRefused),
    ],
)
def test_operations_that_were_accepted_and_then_failed(
    azure: Loopback, code: str, ours: type[VsaError]
) -> None:
    """Their polls answer 200, and the code alone says what became of them."""
    body = f'{{"error": {{"code": "{code}", "message": "No."}}}}'.encode()
    azure.answers = [lambda request: send(request, 200, {"Content-Type": "application/json"}, body)]
    error = core.HttpResponseError(response=an_answer(azure), error_format=ARMErrorFormat)
    assert type(translate(error, "snapshot disk web-01")) is ours


@pytest.mark.parametrize("in_body", [False, True])
def test_a_refusal_names_its_code_wherever_azure_put_it(azure: Loopback, in_body: bool) -> None:
    azure.answers = [refusing(409, "BlobOverwritten", in_body=in_body)]
    with pytest.raises(DiffRefused) as caught, azure_errors("compare"):
        list(anonymous().blob(azure.url().reveal()).list_page_ranges())
    assert caught.value.code == "BlobOverwritten"


def test_the_wish_of_a_busy_service_is_kept(azure: Loopback) -> None:
    azure.answers = [refusing(503, "ServerBusy", Retry_After="17")]
    with pytest.raises(TryAgainLater) as caught, azure_errors("read"):
        list(anonymous().blob(azure.url().reveal()).list_page_ranges())
    assert caught.value.retry_after == 17.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("3", 3.0),
        ("2.5", 2.5),
        ("-4", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("soon", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header) == seconds


def garbled(request: Any) -> None:
    send(request, 200, {"Content-Type": "application/json"}, b'{"value": [')


def test_an_answer_that_cannot_be_read_is_asked_for_again(azure: Loopback) -> None:
    azure.answers = [garbled]
    assert isinstance(translate(core.DecodeError(response=an_answer(azure)), "list VMs"), TryAgainLater)


def test_a_refusal_that_cannot_be_read_stays_a_refusal(azure: Loopback) -> None:
    azure.answers = [refusing(403)]
    assert isinstance(translate(core.DecodeError(response=an_answer(azure)), "list VMs"), AccessDenied)


@pytest.mark.parametrize(
    "body", [b"<PageList><PageRange>", b"no xml", b"<PageList><PageRange><Start>x</Start>"]
)
def test_a_list_that_cannot_be_read_is_asked_for_again(azure: Loopback, body: bytes) -> None:
    azure.answers = [lambda request: send(request, 200, {"Content-Type": "application/xml"}, body)]
    with pytest.raises(TryAgainLater), azure_errors("list page ranges"):
        list(anonymous().blob(azure.url().reveal()).list_page_ranges())


def test_a_connection_that_is_cut_is_tried_again(azure: Loopback) -> None:
    azure.answers = [cut]
    with pytest.raises(TryAgainLater) as caught, azure_errors("list page ranges"):
        list(anonymous().blob(azure.url().reveal()).list_page_ranges())
    assert SIGNATURE not in "".join(traceback.format_exception(caught.value))


def test_an_identity_service_out_of_reach_is_tried_again() -> None:
    """azure-identity calls a lost connection, too, a failed authentication."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        credential = a_credential(unheard.getsockname()[1])
        with pytest.raises(TryAgainLater, match="list VMs: no whole answer"), azure_errors("list VMs"):
            credential.get_token("https://management.azure.com/.default")


def a_credential(port: int) -> ClientSecretCredential:
    return ClientSecretCredential(
        "11111111-2222-3333-4444-555555555555",
        "client",
        "secret",
        authority=f"https://127.0.0.1:{port}",
        disable_instance_discovery=True,
        retry_total=0,
    )


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_identity_service_is_tried_again(status: int) -> None:
    error = core.ClientAuthenticationError(f"Authentication failed: HTTP Error: {status}")
    assert isinstance(translate(error, "list VMs"), TryAgainLater)


def test_a_refused_sign_in_says_what_to_check() -> None:
    error = core.ClientAuthenticationError("Authentication failed: AADSTS7000215: Invalid client secret.")
    ours = translate(error, "list VMs")
    assert isinstance(ours, AccessDenied)
    assert "AADSTS7000215" in str(ours) and "check tenant, client id and secret" in str(ours)


def test_our_own_errors_pass_the_border_as_they_are() -> None:
    ours = AzureNotFound("gone", code="X")
    with pytest.raises(AzureNotFound) as caught, azure_errors("read"):
        raise ours
    assert caught.value is ours


def test_programming_errors_are_not_taken_for_azures() -> None:
    with pytest.raises(KeyError), azure_errors("read"):
        raise KeyError("x")


def test_a_signature_in_azures_words_is_masked() -> None:
    error = core.HttpResponseError(f"GET https://host/disk?sv=1&sig={SIGNATURE} was refused\nand more")
    ours = translate(error, "read disk")
    assert SIGNATURE not in str(ours)
    assert str(ours) == "read disk: GET https://host/disk?sv=1&sig=REDACTED was refused"


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        ("Locked", "It is.", "read disk: 409 Locked: It is."),
        ("Locked", "", "read disk: 409 Locked"),
        ("", "It is.", "read disk: 409: It is."),
        ("", "", "read disk: 409"),
    ],
)
def test_an_answer_without_code_or_words_has_no_empty_place_for_them(
    code: str, words: str, said: str
) -> None:
    assert str(from_answer("read disk", 409, code, words)) == said


@pytest.mark.parametrize("code", ['"code": "", ', '"code": null, ', ""])
def test_a_code_that_azure_left_empty_is_not_said(azure: Loopback, code: str) -> None:
    body = f'{{"error": {{{code}"message": "No."}}}}'.encode()
    azure.answers = [lambda request: send(request, 503, {"Content-Type": "application/json"}, body)]
    error = core.HttpResponseError(response=an_answer(azure), error_format=ARMErrorFormat)
    assert str(translate(error, "snapshot disk web-01")) == "snapshot disk web-01: 503: No."


@pytest.mark.parametrize(
    ("status", "code", "retry_after", "is_busy"),
    [
        (429, "", None, True),
        (503, "ServerBusy", None, True),
        (503, "", 0.0, True),
        (503, "", None, False),
        (500, "InternalError", None, False),
        (200, "TooManyRequests", None, True),
        (200, "InternalExecutionError", None, False),
    ],
)
def test_who_throttles_is_known_from_who_is_down(
    status: int, code: str, retry_after: float | None, is_busy: bool
) -> None:
    error = from_answer("read it", status, code, "", retry_after)
    assert isinstance(error, TryAgainLater)
    assert error.is_busy is is_busy
