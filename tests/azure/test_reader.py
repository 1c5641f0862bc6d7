"""A reader never hands out bytes that are not the ones asked for, however the other side misbehaves."""

from __future__ import annotations

import datetime as dt
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import IO
from urllib.parse import urlsplit

import pytest

from azsim.tls import TlsFiles, ensure_certificates
from tests.azure.loopback import (
    SIGNATURE,
    Answer,
    Loopback,
    Unhurried,
    asked_range,
    cut,
    refusing,
    send,
    serving,
)
from vsa.azure.budget import Budget, Purpose
from vsa.azure.grants import MOST_RENEWALS, GrantedAccess
from vsa.azure.reader import RangeReader
from vsa.azure.tls_stream import TlsStream
from vsa.azure.wire import SERVICE_VERSION
from vsa.errors import (
    AccessDenied,
    AccessExpired,
    AzureNotFound,
    AzureRefused,
    RunStopped,
    TryAgainLater,
    VsaError,
)
from vsa.ranges import KIB, MIB, ByteRange
from vsa.rate import Rate
from vsa.secret import Secret
from vsa.stop import DEFAULT_DELAYS, Stop

DISK = bytes(number * 7 % 251 + 1 for number in range(64 * KIB))
FIRST, SECOND = ByteRange(4 * KIB, 12 * KIB), ByteRange(20 * KIB, 21 * KIB)
UNTOUCHED = b"\xee"
TLS = ssl.create_default_context()


def partly(handler: BaseHTTPRequestHandler, *, body: bytes, **headers: str) -> None:
    offset, end = asked_range(handler)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    send(handler, 206, {"Content-Range": f"bytes {offset}-{end - 1}/{len(DISK)}", **named}, body)


def wanted(handler: BaseHTTPRequestHandler) -> bytes:
    offset, end = asked_range(handler)
    return DISK[offset:end]


def right(handler: BaseHTTPRequestHandler) -> None:
    partly(handler, body=wanted(handler))


def short(handler: BaseHTTPRequestHandler) -> None:
    """A whole answer with too few bytes."""
    partly(handler, body=wanted(handler)[:-1])


def empty(handler: BaseHTTPRequestHandler) -> None:
    partly(handler, body=b"")


def broken_off(handler: BaseHTTPRequestHandler) -> None:
    """Fewer bytes than announced, then the end of the connection."""
    body = wanted(handler)
    partly(handler, body=body[: len(body) // 2], Content_Length=str(len(body)))
    handler.close_connection = True


def long(handler: BaseHTTPRequestHandler) -> None:
    partly(handler, body=wanted(handler) + b"more")


def elsewhere(handler: BaseHTTPRequestHandler) -> None:
    """As many bytes as asked for, from another place, honestly labelled."""
    offset, end = asked_range(handler)
    span = f"bytes {offset + 512}-{end + 511}/{len(DISK)}"
    partly(handler, body=DISK[offset + 512 : end + 512], Content_Range=span)


def unlabelled(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 206, {}, wanted(handler))


def shifted_end(handler: BaseHTTPRequestHandler) -> None:
    """Labelled by the half-open range, as somebody might who does not count the last byte in."""
    offset, end = asked_range(handler)
    partly(handler, body=wanted(handler), Content_Range=f"bytes {offset}-{end}/{len(DISK)}")


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x16\x03\x01 this is no status line\r\n\r\n")
    handler.close_connection = True


def everything(handler: BaseHTTPRequestHandler) -> None:
    """What a server answers that knows nothing of ranges."""
    send(handler, 200, {}, DISK)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return ensure_certificates(tmp_path_factory.mktemp("tls"), dt.datetime.now(dt.UTC))


@pytest.fixture(scope="session")
def trusting(certificates: TlsFiles) -> ssl.SSLContext:
    """What a client trusts that was given the servers' CA file."""
    return ssl.create_default_context(cafile=str(certificates.ca))


@pytest.fixture(params=["plain", "TLS"])
def azure(request: pytest.FixtureRequest, certificates: TlsFiles) -> Iterator[Loopback]:
    with serving(right, tls=server_tls(certificates) if request.param == "TLS" else None) as server:
        yield server


@pytest.fixture
def azure_by_tls(certificates: TlsFiles) -> Iterator[Loopback]:
    with serving(right, tls=server_tls(certificates)) as server:
        yield server


def server_tls(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


@pytest.fixture
def stop() -> Unhurried:
    return Unhurried()


@pytest.fixture
def open_reader(
    azure: Loopback, stop: Unhurried, trusting: ssl.SSLContext
) -> Iterator[Callable[..., RangeReader]]:
    opened: list[RangeReader] = []

    def open_one(access: GrantedAccess | None = None, **options: float) -> RangeReader:
        access = access or GrantedAccess(azure.url, "snapshot disk")
        opened.append(
            RangeReader(access, tls=trusting, stop=stop, budget_of=lambda _: Budget("a host"), **options)
        )
        return opened[-1]

    yield open_one
    for reader in opened:
        reader.close()


def read(reader: RangeReader, at: ByteRange) -> bytes:
    """What the reader puts into a buffer that is larger than the range and full of something else."""
    buffer = bytearray(UNTOUCHED * (at.length + 100))
    reader.read_into(at, memoryview(buffer))
    assert buffer[at.length :] == UNTOUCHED * 100
    return bytes(buffer[: at.length])


def test_a_range_is_read_over_one_connection_into_its_part_of_the_buffer(
    azure: Loopback, open_reader: Callable[..., RangeReader]
) -> None:
    reader = open_reader()
    for at in (FIRST, SECOND, ByteRange(0, 512), ByteRange(len(DISK) - 512, len(DISK))):
        assert read(reader, at) == DISK[at.offset : at.end]
    assert azure.connections == 1
    assert [request.headers["x-ms-range"] for request in azure.requests[:2]] == [
        "bytes=4096-12287",
        "bytes=20480-21503",
    ]
    assert {request.headers["x-ms-version"] for request in azure.requests} == {SERVICE_VERSION}


@pytest.mark.parametrize(
    "misbehaviour",
    [
        short,
        empty,
        broken_off,
        long,
        elsewhere,
        unlabelled,
        shifted_end,
        no_http,
        cut,
        refusing(500, "InternalError"),
        refusing(503, "ServerBusy"),
    ],
)
def test_what_is_not_the_range_is_asked_for_again_on_another_connection(
    azure: Loopback, open_reader: Callable[..., RangeReader], stop: Unhurried, misbehaviour: Answer
) -> None:
    azure.answers = [right, misbehaviour, misbehaviour]
    reader = open_reader()
    assert read(reader, SECOND) == DISK[SECOND.offset : SECOND.end]
    assert read(reader, FIRST) == DISK[FIRST.offset : FIRST.end]
    assert len(stop.waits) == 2
    assert len(azure.requests) == 4
    # What may still lie in a spoiled connection must never be taken for the next answer.
    assert azure.requests[3].port != azure.requests[2].port != azure.requests[1].port


@pytest.mark.parametrize("misbehaviour", [short, long, elsewhere, cut, refusing(503, "ServerBusy")])
def test_who_never_answers_right_is_given_up_on(
    azure: Loopback, open_reader: Callable[..., RangeReader], stop: Unhurried, misbehaviour: Answer
) -> None:
    azure.otherwise = misbehaviour
    with pytest.raises(
        TryAgainLater, match=r"read bytes 4096-12288 of https?://.*/container/disk: "
    ) as caught:
        read(open_reader(), FIRST)
    assert len(azure.requests) == len(DEFAULT_DELAYS) + 1
    assert [round(wait / delay, 2) for wait, delay in zip(stop.waits, DEFAULT_DELAYS, strict=True)] == [
        pytest.approx(1.125, abs=0.126)
    ] * len(DEFAULT_DELAYS)
    require_no_signature(caught.value)


def require_no_signature(error: BaseException) -> None:
    assert SIGNATURE not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("answer", "ours"),
    [
        (everything, AzureRefused),
        (refusing(404, "BlobNotFound"), AzureNotFound),
        (refusing(403, "AuthorizationPermissionMismatch"), AccessDenied),
        (refusing(403, "AuthorizationPermissionMismatch", in_body=True), AccessDenied),
        (refusing(416, "InvalidRange"), AzureRefused),
        (refusing(302, Location="http://127.0.0.1:9/elsewhere"), AzureRefused),
    ],
)
def test_a_refusal_is_final(
    azure: Loopback,
    open_reader: Callable[..., RangeReader],
    stop: Unhurried,
    answer: Answer,
    ours: type[VsaError],
) -> None:
    azure.answers = [answer]
    reader = open_reader()
    with pytest.raises(VsaError) as caught:
        read(reader, FIRST)
    assert type(caught.value) is ours
    assert len(azure.requests) == 1 and stop.waits == []
    require_no_signature(caught.value)
    assert read(reader, SECOND) == DISK[SECOND.offset : SECOND.end]


@pytest.mark.parametrize("answer", [everything, refusing(302, Location="http://127.0.0.1:9/elsewhere")])
def test_an_answer_that_is_neither_the_range_nor_an_error_is_named(
    azure: Loopback, open_reader: Callable[..., RangeReader], answer: Answer
) -> None:
    azure.answers = [answer]
    with pytest.raises(AzureRefused, match=r"answered [23]0[02] .*, expected 206") as caught:
        read(open_reader(), FIRST)
    assert caught.value.code == "UnexpectedAnswer"


def test_a_service_that_is_asked_too_often_gets_the_pause_it_wants(
    azure: Loopback, open_reader: Callable[..., RangeReader], stop: Unhurried
) -> None:
    azure.answers = [refusing(429, "TooManyRequests", Retry_After="7")]
    assert read(open_reader(), FIRST) == DISK[FIRST.offset : FIRST.end]
    assert 7 <= stop.waits[0] <= 7 * 1.25


@pytest.mark.parametrize("in_body", [False, True])
def test_an_ended_grant_is_asked_for_again_without_waiting(
    azure: Loopback, open_reader: Callable[..., RangeReader], stop: Unhurried, in_body: bool
) -> None:
    numbers = iter(range(100))
    access = GrantedAccess(lambda: azure.url(f"grant-{next(numbers)}"), "snapshot disk")
    azure.answers = [right, refusing(403, "AuthenticationFailed", in_body=in_body)]
    reader = open_reader(access)
    assert read(reader, FIRST) == DISK[FIRST.offset : FIRST.end]
    assert read(reader, SECOND) == DISK[SECOND.offset : SECOND.end]
    used = [request.target.rsplit("/", 1)[1].partition("?")[0] for request in azure.requests]
    assert used == ["grant-0", "grant-0", "grant-1"]
    assert stop.waits == []


def test_grants_that_are_refused_at_once_are_not_asked_for_without_end(
    azure: Loopback, open_reader: Callable[..., RangeReader]
) -> None:
    azure.otherwise = refusing(403, "AuthenticationFailed")
    with pytest.raises(AccessDenied, match="granted access and refused it 4 times") as caught:
        read(open_reader(), FIRST)
    assert len(azure.requests) == 4
    require_no_signature(caught.value)


def test_grants_that_end_again_and_again_are_not_renewed_without_end(
    azure: Loopback, open_reader: Callable[..., RangeReader]
) -> None:
    reader = open_reader()
    for _ in range(MOST_RENEWALS):
        azure.answers = [refusing(403, "AuthenticationFailed"), right]
        read(reader, FIRST)
    azure.answers = [refusing(403, "AuthenticationFailed"), right]
    with pytest.raises(AccessExpired, match="access ended 17 times during one job"):
        read(reader, FIRST)


def test_a_renewed_grant_may_lead_to_another_server(
    azure: Loopback, open_reader: Callable[..., RangeReader]
) -> None:
    with serving(right) as other:  # by another scheme, even
        urls = iter([azure.url(), other.url()])
        reader = open_reader(GrantedAccess(lambda: next(urls), "snapshot disk"))
        azure.answers = [right]
        azure.otherwise = refusing(403, "AuthenticationFailed")
        assert read(reader, FIRST) == DISK[FIRST.offset : FIRST.end]
        assert read(reader, SECOND) == DISK[SECOND.offset : SECOND.end]
        assert len(other.requests) == 1


def test_a_slow_service_is_waited_for(azure: Loopback, open_reader: Callable[..., RangeReader]) -> None:
    def dribble(handler: BaseHTTPRequestHandler) -> None:
        body = wanted(handler)
        partly(handler, body=b"", Content_Length=str(len(body)))
        for start in range(0, len(body), KIB):
            handler.wfile.write(body[start : start + KIB])
            time.sleep(0.01)

    azure.answers = [dribble]
    assert read(open_reader(timeout=0.5), FIRST) == DISK[FIRST.offset : FIRST.end]
    assert len(azure.requests) == 1


def test_a_silent_service_is_not_waited_for_without_end(
    azure: Loopback, open_reader: Callable[..., RangeReader], stop: Unhurried
) -> None:
    over = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        over.wait(20)

    azure.answers = [silent]
    try:
        assert read(open_reader(timeout=0.5), FIRST) == DISK[FIRST.offset : FIRST.end]
    finally:
        over.set()
    assert len(azure.requests) == 2 and len(stop.waits) == 1


def test_nothing_listens(stop: Unhurried) -> None:
    url = Secret(f"http://127.0.0.1:9/account/container/disk?sig={SIGNATURE}")
    reader = RangeReader(
        GrantedAccess(lambda: url, "snapshot disk"), tls=TLS, stop=stop, budget_of=lambda _: Budget("a host")
    )
    with pytest.raises(TryAgainLater, match="ConnectionRefusedError") as caught:
        read(reader, FIRST)
    require_no_signature(caught.value)


def test_the_message_about_a_url_that_is_none_does_not_show_it(stop: Unhurried) -> None:
    url = Secret(f"http://127.0.0.1:9/account/a disk?sig={SIGNATURE}")
    reader = RangeReader(
        GrantedAccess(lambda: url, "snapshot disk"), tls=TLS, stop=stop, budget_of=lambda _: Budget("a host")
    )
    with pytest.raises(TryAgainLater, match="InvalidURL") as caught:
        read(reader, FIRST)
    assert SIGNATURE not in str(caught.value)


def test_a_stop_ends_reading_before_the_next_request(azure: Loopback, trusting: ssl.SSLContext) -> None:
    stop = Stop()
    reader = RangeReader(
        GrantedAccess(azure.url, "snapshot disk"),
        tls=trusting,
        stop=stop,
        budget_of=lambda _: Budget("a host"),
    )
    stop.set()
    with pytest.raises(RunStopped):
        read(reader, FIRST)
    assert azure.requests == []


def test_a_stop_ends_the_wait_between_two_requests(azure: Loopback, trusting: ssl.SSLContext) -> None:
    stop = Stop()
    azure.otherwise = refusing(503, "ServerBusy", Retry_After="600")
    reader = RangeReader(
        GrantedAccess(azure.url, "snapshot disk"),
        tls=trusting,
        stop=stop,
        budget_of=lambda _: Budget("a host"),
    )
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    with pytest.raises(RunStopped):
        read(reader, FIRST)
    assert time.monotonic() - began < 10
    reader.close()


class Leaving(Unhurried):
    """Is told to stop when it would wait for the first time."""

    def wait(self, seconds: float) -> None:
        self.set()
        super().wait(seconds)
        self.check()


@pytest.mark.parametrize(("status", "code"), [(503, "ServerBusy"), (429, "TooManyRequests")])
def test_a_refusal_is_heard_by_all_who_read_from_the_host(
    azure: Loopback, trusting: ssl.SSLContext, status: int, code: str
) -> None:
    budget, seconds = Budget("a host", clock=lambda: 0.0), []

    def wait(wish: float) -> None:
        seconds.append(wish)
        raise RunStopped("enough")

    azure.otherwise = refusing(status, code, Retry_After="7")
    access = GrantedAccess(azure.url, "snapshot disk")
    reader = RangeReader(access, tls=trusting, stop=Leaving(), budget_of=lambda _: budget)
    with pytest.raises(RunStopped):
        read(reader, FIRST)
    reader.close()
    with pytest.raises(RunStopped, match="enough"):
        budget.take(Purpose.WORK, wait=wait)
    budget.take(Purpose.CLEANUP, wait=wait)
    assert (len(azure.requests), len(seconds)) == (1, 1)


def test_readers_that_share_a_rate_take_turns_at_it(azure: Loopback, trusting: ssl.SSLContext) -> None:
    """Each answer counts, also one that has to be asked for again."""
    stop = Unhurried()
    rate = Rate(KIB, clock=lambda: 0.0)
    access = GrantedAccess(azure.url, "snapshot disk")
    readers = [
        RangeReader(access, tls=trusting, stop=stop, budget_of=lambda _: Budget("a host"), rate=rate)
        for _ in range(2)
    ]
    for reader in readers:
        read(reader, FIRST)
    azure.answers = [short]
    read(readers[0], SECOND)
    for reader in readers:
        reader.close()
    # Of 8 KiB, 8 KiB and twice 1 KiB at 1 KiB/s the first waits for nobody; between them is a second's pause.
    assert [wait for wait in stop.waits if wait == int(wait)] == [8.0, 16.0, 17.0]


# What is TLS's own


@contextmanager
def a_reader(url: Secret, tls: ssl.SSLContext, stop: Stop) -> Iterator[RangeReader]:
    access = GrantedAccess(lambda: url, "snapshot disk")
    with closing(RangeReader(access, tls=tls, stop=stop, budget_of=lambda _: Budget("a host"))) as reader:
        yield reader


def test_an_answer_after_which_the_connection_ends_is_read_to_its_end(
    azure: Loopback, open_reader: Callable[..., RangeReader], stop: Unhurried
) -> None:
    data = random.Random(1).randbytes(3 * MIB)
    whole = ByteRange(0, len(data))

    def last(handler: BaseHTTPRequestHandler) -> None:
        span = f"bytes 0-{len(data) - 1}/{len(data)}"
        send(handler, 206, {"Content-Range": span, "Connection": "close"}, data)
        handler.close_connection = True

    azure.answers = [last, right, last]
    reader = open_reader()
    assert read(reader, whole) == data
    assert read(reader, FIRST) == DISK[FIRST.offset : FIRST.end]
    assert read(reader, whole) == data
    assert azure.connections == 2 and stop.waits == []


def test_many_records_are_read_in_order_however_they_arrive(
    azure_by_tls: Loopback, trusting: ssl.SSLContext, stop: Unhurried
) -> None:
    """Records of all lengths, and pieces of the connection that end within one."""
    data = random.Random(1).randbytes(3 * MIB + 12345)
    lengths = [1, 5, 16 * KIB, 16 * KIB + 1, 100, 300 * KIB, 7]

    def in_pieces(handler: BaseHTTPRequestHandler) -> None:
        span = f"bytes 0-{len(data) - 1}/{len(data)}"
        send(handler, 206, {"Content-Range": span, "Content-Length": str(len(data))}, b"")
        start = turn = 0
        while start < len(data):
            length = lengths[turn % len(lengths)]
            handler.wfile.write(data[start : start + length])
            start, turn = start + length, turn + 1

    azure_by_tls.otherwise = in_pieces
    with a_reader(azure_by_tls.url(), trusting, stop) as reader:
        for _ in range(2):
            assert read(reader, ByteRange(0, len(data))) == data
    assert azure_by_tls.connections == 1


def test_a_server_whose_certificate_nobody_trusts_is_asked_nothing(
    azure_by_tls: Loopback, stop: Unhurried
) -> None:
    with (
        a_reader(azure_by_tls.url(), TLS, stop) as reader,
        pytest.raises(TryAgainLater, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        read(reader, FIRST)
    assert azure_by_tls.requests == []


def test_a_server_whose_certificate_is_of_another_host_is_asked_nothing(
    azure_by_tls: Loopback, trusting: ssl.SSLContext, stop: Unhurried, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = urlsplit(azure_by_tls.origin)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address.hostname, address.port))
    ])  # fmt: skip
    url = Secret(f"https://elsewhere.example:{address.port}/account/container/disk?sig={SIGNATURE}")
    with (
        a_reader(url, trusting, stop) as reader,
        pytest.raises(TryAgainLater, match="Hostname mismatch"),
    ):
        read(reader, FIRST)
    assert azure_by_tls.requests == []


def test_an_end_that_tls_does_not_confirm_is_no_end_of_a_body(
    azure_by_tls: Loopback, trusting: ssl.SSLContext, stop: Unhurried
) -> None:
    """A body of no stated length ends with its connection: who cuts that must not make it shorter."""

    def unbounded(handler: BaseHTTPRequestHandler) -> None:
        offset, end = asked_range(handler)
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {offset}-{end - 1}/{len(DISK)}")
        handler.end_headers()
        handler.wfile.write(wanted(handler))
        handler.close_connection = True

    azure_by_tls.answers = [unbounded]
    with a_reader(azure_by_tls.url(), trusting, stop) as reader:
        assert read(reader, FIRST) == DISK[FIRST.offset : FIRST.end]
    assert len(azure_by_tls.requests) == 2


def test_a_reader_that_waits_for_its_answer_keeps_no_other_from_reading(
    azure_by_tls: Loopback, trusting: ssl.SSLContext, stop: Unhurried
) -> None:
    """One at a time decrypts, but what has arrived: nobody waits in its turn."""
    begun, others_have_read = threading.Event(), threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        body = wanted(handler)
        partly(handler, body=body[: len(body) // 2], Content_Length=str(len(body)))
        begun.set()
        assert others_have_read.wait(60)
        handler.wfile.write(body[len(body) // 2 :])

    azure_by_tls.answers = [slow]
    with (
        a_reader(azure_by_tls.url(), trusting, stop) as first,
        a_reader(azure_by_tls.url(), trusting, stop) as second,
        ThreadPoolExecutor(2) as threads,
    ):
        waiting = threads.submit(read, first, FIRST)
        try:
            assert begun.wait(60)
            # It has taken what there is, and waits for the rest.
            time.sleep(0.2)
            assert threads.submit(read, second, FIRST).result(30) == DISK[FIRST.offset : FIRST.end]
            assert not waiting.done()
        finally:
            others_have_read.set()
        assert waiting.result(60) == DISK[FIRST.offset : FIRST.end]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="only openssl's own server begins anew")
def test_a_request_is_sent_although_the_server_wants_to_shake_hands_anew(
    certificates: TlsFiles, trusting: ssl.SSLContext
) -> None:
    """TLS 1.2 lets it, and its wish may lie behind the end of an answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["openssl", "s_server", "-tls1_2", "-accept", f"127.0.0.1:{port}"]
    command += ["-cert", str(certificates.certificate), "-key", str(certificates.key)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin and server.stdout
        try:
            with closing(connected(port)) as plain:
                stream = TlsStream(plain, trusting, host="127.0.0.1")
                stream.sendall(b"first\n")
                assert b"first\n" in iter(server.stdout.readline, b"")
                say(server.stdin, b"answer\n", plain)
                say(server.stdin, b"R\n", plain)
                buffer = memoryview(bytearray(100))
                assert buffer[: stream.recv_into(buffer)] == b"answer\n"
                stream.sendall(b"second\n")
                assert b"second\n" in iter(server.stdout.readline, b"")
        finally:
            server.kill()


def connected(port: int) -> socket.socket:
    """A connection to a server that is about to listen."""
    for _ in range(600):
        with suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        time.sleep(0.1)
    raise TimeoutError("the server does not listen")


def say(to: IO[bytes], line: bytes, plain: socket.socket) -> None:
    """Type a line to a server, and wait until what it sends upon that has arrived."""
    plain.setblocking(False)
    before = arrived(plain)
    to.write(line)
    to.flush()
    for _ in range(600):
        if arrived(plain) > before:
            plain.settimeout(60)
            return
        time.sleep(0.1)
    raise TimeoutError("the server says nothing")


def arrived(plain: socket.socket) -> int:
    try:
        return len(plain.recv(64 * KIB, socket.MSG_PEEK))
    except BlockingIOError:
        return 0
