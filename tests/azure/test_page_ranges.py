"""Azure's inclusive ranges, page by page, become half-open ones of the disk, or an error."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.azure.answered import ANSWERED
from tests.azure.loopback import SIGNATURE, Loopback, anonymous, refusing, send, serving, xml
from vsa.azure.disks import VHD_FOOTER
from vsa.azure.page_ranges import (
    ChangedRange,
    allocated_ranges,
    blob_changes,
    content_length,
    managed_changes,
)
from vsa.errors import AzureNotFound, AzureRefused, DiffRefused, RunStopped, TryAgainLater, VsaError
from vsa.ranges import KIB, ByteRange
from vsa.secret import Secret
from vsa.stop import Stop, waiting

SIZE = 64 * KIB
PAGE = 512


def pages(*ranges: tuple[str, int, int], marker: str = "") -> str:
    """One answer's document; ranges are ("page" or "clear", first byte, last byte)."""
    tags = {"page": "PageRange", "clear": "ClearRange"}
    rows = "".join(
        f"<{tags[kind]}><Start>{start}</Start><End>{end}</End></{tags[kind]}>" for kind, start, end in ranges
    )
    return f'<?xml version="1.0"?><PageList>{rows}<NextMarker>{marker}</NextMarker></PageList>'


@pytest.fixture
def azure() -> Iterator[Loopback]:
    with serving(refusing(500)) as server:
        yield server


def allocated(azure: Loopback, *documents: str, size: int = SIZE) -> list[ByteRange]:
    azure.answers = [xml(document) for document in documents]
    return list(allocated_ranges(anonymous(), azure.url(), size))


def changed(azure: Loopback, *documents: str, size: int = SIZE) -> list[ChangedRange]:
    azure.answers = [xml(document) for document in documents]
    return list(managed_changes(anonymous(), azure.url(), azure.url("base"), size))


def asked(azure: Loopback) -> list[dict[str, str]]:
    return [
        {name: value for name, (value,) in parse_qs(urlsplit(request.target).query).items()}
        for request in azure.requests
    ]


def test_the_last_byte_counts(azure: Loopback) -> None:
    assert allocated(azure, pages(("page", 0, 511), ("page", 4096, 8191))) == [
        ByteRange(0, 512),
        ByteRange(4096, 8192),
    ]


def test_the_whole_disk_is_one_range(azure: Loopback) -> None:
    assert allocated(azure, pages(("page", 0, SIZE - 1))) == [ByteRange(0, SIZE)]


def test_an_empty_disk_has_none(azure: Loopback) -> None:
    assert allocated(azure, pages()) == []


def test_every_page_of_the_answer_is_fetched(azure: Loopback) -> None:
    found = allocated(
        azure,
        pages(("page", 0, 511), marker="second"),
        # An answer may be empty and still not be the last.
        pages(marker="third"),
        pages(("page", 1024, 1535)),
    )
    assert found == [ByteRange(0, 512), ByteRange(1024, 1536)]
    assert [query.get("marker") for query in asked(azure)] == [None, "second", "third"]
    assert all(query["maxresults"] == "10000" for query in asked(azure))


def test_ranges_that_go_on_over_the_end_of_a_page_may_touch(azure: Loopback) -> None:
    found = changed(azure, pages(("page", 0, 511), marker="m"), pages(("clear", 512, 1023)))
    assert found == [
        ChangedRange(ByteRange(0, 512), cleared=False),
        ChangedRange(ByteRange(512, 1024), cleared=True),
    ]


def test_written_and_cleared_ranges_come_in_one_order(azure: Loopback) -> None:
    document = pages(
        ("page", 512, 1023),
        ("page", 8192, 8703),
        ("clear", 0, 511),
        ("clear", 4096, 8191),
        ("clear", 9216, 9727),
    )
    assert [(item.range.offset, item.cleared) for item in changed(azure, document)] == [
        (0, True),
        (512, False),
        (4096, True),
        (8192, False),
        (9216, True),
    ]


def test_what_is_cleared_is_not_allocated(azure: Loopback) -> None:
    assert allocated(azure, pages(("clear", 0, 511), ("page", 512, 1023))) == [ByteRange(512, 1024)]


@pytest.mark.parametrize(
    ("second", "what"),
    [
        (("page", 0, 511), "0-512 follows one that ended at 8192"),
        (("page", 4096, 8191), "4096-8192 follows one that ended at 8192"),
        (("page", 8191, 9215), "8191-9216 follows one that ended at 8192"),
        (("page", 9216, 9215), "9216-9216 follows"),
        (("page", 9216, 8703), "9216-8704 follows"),
    ],
)
def test_ranges_that_do_not_ascend_are_an_error(
    azure: Loopback, second: tuple[str, int, int], what: str
) -> None:
    first = ("page", 4096, 8191)
    for documents in ([pages(first, marker="m"), pages(second)], [pages(first, second)]):
        with pytest.raises(AzureRefused, match=what) as caught:
            changed(azure, *documents)
        assert caught.value.code == "RangesOutOfOrder"


@pytest.mark.parametrize("cleared", ["page", "clear"])
def test_the_footer_of_a_vhd_is_no_part_of_the_disk(azure: Loopback, cleared: str) -> None:
    across = changed(azure, pages((cleared, SIZE - PAGE, SIZE + VHD_FOOTER - 1)))
    assert [item.range for item in across] == [ByteRange(SIZE - PAGE, SIZE)]
    behind = changed(azure, pages(("page", 0, 511), (cleared, SIZE, SIZE + VHD_FOOTER - 1)))
    assert [item.range for item in behind] == [ByteRange(0, 512)]


def test_a_managed_snapshot_is_compared_with_its_base_by_url(azure: Loopback) -> None:
    changed(azure, pages(marker="m"), pages())
    for request, query in zip(azure.requests, asked(azure), strict=True):
        assert request.headers["x-ms-previous-snapshot-url"] == azure.url("base").reveal()
        assert query["comp"] == "pagelist" and "prevsnapshot" not in query
        assert request.headers["x-ms-version"] >= "2019-07-07"


def test_a_blob_snapshot_is_compared_with_its_base_by_moment(azure: Loopback) -> None:
    azure.answers = [xml(pages(("page", 0, 511), marker="m")), xml(pages(("clear", 512, 1023)))]
    moment = "2026-03-01T12:00:00.1234567Z"
    found = list(blob_changes(anonymous(), azure.url(), moment, SIZE))
    assert found == [ChangedRange(ByteRange(0, 512), False), ChangedRange(ByteRange(512, 1024), True)]
    assert [query["prevsnapshot"] for query in asked(azure)] == [moment, moment]
    assert all("x-ms-previous-snapshot-url" not in request.headers for request in azure.requests)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "PreviousSnapshotCannotBeNewer"),
        (409, "PreviousSnapshotNotFound"),
        (409, "PreviousSnapshotOperationNotSupported"),
        (409, "BlobGenerationMismatch"),
        (409, "BlobOverwritten"),
        (400, "UnsupportedHeaderForNonManagedDisksAccount"),
    ],
)
def test_a_refused_comparison_says_why(azure: Loopback, status: int, code: str) -> None:
    azure.answers = [refusing(status, code)]
    with pytest.raises(DiffRefused) as caught:
        list(managed_changes(anonymous(), azure.url(), azure.url("base"), SIZE))
    assert caught.value.code == code
    assert SIGNATURE not in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        "no xml",
        "",
        '<?xml version="1.0" encoding="x-unheard-of"?><PageList/>',
        "<PageList><PageRange>",
        "<PageList><PageRange><Start>x</Start><End>511</End></PageRange></PageList>",
        "<PageList><PageRange><Start>1_024</Start><End>1535</End></PageRange></PageList>",
        "<PageList><PageRange><Start>0</Start></PageRange></PageList>",
        "<PageList><PageRange><Start>0</Start><Start>512</Start><End>1023</End></PageRange></PageList>",
        "<PageList><Start>0</Start><PageRange><End>511</End></PageRange></PageList>",
        # Somebody between here and Azure who answers 200 to everything: no list is not an empty one.
        "<html><body>Sign in</body></html>",
        "<PageList>Sign in</PageList>",
        "<PageList><Error><Code>ServerBusy</Code></Error></PageList>",
        "<PageList><pagerange><Start>0</Start><End>511</End></pagerange></PageList>",
        '<PageList xmlns:a="urn:a"><a:PageRange><Start>0</Start><End>511</End></a:PageRange></PageList>',
        "<PageList><NextMarker>m<x/></NextMarker></PageList>",
        '<!DOCTYPE PageList SYSTEM "x"><PageList/>',
    ],
)
def test_a_list_that_cannot_be_read_is_never_taken_for_an_empty_one(azure: Loopback, document: str) -> None:
    azure.answers = [xml(pages(("page", 0, 511), marker="m")), xml(document)]
    with pytest.raises(TryAgainLater, match="list page ranges: no whole answer from Azure"):
        list(allocated_ranges(anonymous(), azure.url(), SIZE))


def test_a_page_that_follows_itself_is_not_read_for_ever(azure: Loopback) -> None:
    azure.otherwise = xml(pages(marker="m"))
    with pytest.raises(TryAgainLater, match="follows itself"):
        list(allocated_ranges(anonymous(), azure.url(), SIZE))


def test_a_long_list_hears_a_stop_between_its_pages(azure: Loopback) -> None:
    azure.answers = [xml(pages(("page", 0, 511), marker="m")), xml(pages(marker="n")), xml(pages())]
    stop = Stop()
    with waiting(stop.wait), pytest.raises(RunStopped):
        for _ in allocated_ranges(anonymous(), azure.url(), SIZE):
            stop.set()
    assert len(azure.requests) == 1


@pytest.mark.parametrize("status", [204, 206, 302])
def test_an_answer_that_is_no_list_is_refused(azure: Loopback, status: int) -> None:
    """Nor does anybody follow it elsewhere, with the base's signature in a header."""
    elsewhere = {"Content-Length": "0", "Location": azure.url("elsewhere").reveal()}
    azure.answers = [lambda handler: send(handler, status, elsewhere, b"")]
    with pytest.raises(AzureRefused, match=rf"compare two .*answered {status} .*expected 200 and a list"):
        list(managed_changes(anonymous(), azure.url(), azure.url("base"), SIZE))
    assert len(azure.requests) == 1


def test_a_signature_is_sent_as_it_was_signed(azure: Loopback) -> None:
    signed = "/account/disk?sv=2021-12-02&sp=r&sig=a%2BB%2F%3D&se=2026-03-01T12%3A00%3A00Z&b=+"
    azure.answers = [xml(pages(("page", 0, 511), marker="a/b+c=")), xml(pages())]
    list(allocated_ranges(anonymous(), Secret(azure.origin + signed), SIZE))
    assert all(request.target.startswith(f"{signed}&comp=pagelist&") for request in azure.requests)
    assert asked(azure)[1]["marker"] == "a/b+c="


def test_an_answers_words_reach_the_error_and_no_signature_does(azure: Loopback) -> None:
    def refused(handler) -> None:
        words = f"Of {handler.headers['x-ms-previous-snapshot-url']} nothing is known.\nTime: 12:00"
        body = (
            f"<Error><Code>InvalidHeaderValue</Code><Message>{words.replace('&', '&amp;')}</Message></Error>"
        )
        send(handler, 400, {"x-ms-request-id": "4711"}, body.encode())

    azure.answers = [refused]
    with pytest.raises(AzureRefused, match=r"400 InvalidHeaderValue: Of http.*request 4711") as caught:
        list(managed_changes(anonymous(), azure.url(), azure.url("base"), SIZE))
    assert SIGNATURE not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("status", "code", "ours"), ANSWERED)
def test_refusals_are_those_of_all_requests(
    azure: Loopback, status: int, code: str, ours: type[VsaError]
) -> None:
    azure.answers = [refusing(status, code, in_body=True)]
    with pytest.raises(VsaError) as caught:
        list(allocated_ranges(anonymous(), azure.url(), SIZE))
    assert type(caught.value) is ours
    assert str(caught.value).startswith(f"list page ranges: {status} {code}".rstrip())


def test_a_page_that_is_missing_is_never_passed_over(azure: Loopback) -> None:
    azure.answers = [xml(pages(("page", 0, 511), marker="m")), refusing(503, "ServerBusy")]
    with pytest.raises(TryAgainLater):
        list(allocated_ranges(anonymous(), azure.url(), SIZE))


def test_a_list_that_breaks_off_is_never_taken_for_the_whole(azure: Loopback) -> None:
    document = pages(("page", 0, 511), ("page", 1024, 1535)).encode()

    def broken_off(handler) -> None:
        length = str(len(document))
        send(handler, 200, {"Content-Type": "application/xml", "Content-Length": length}, document[:120])
        handler.close_connection = True

    azure.answers = [broken_off]
    with pytest.raises(TryAgainLater):
        list(allocated_ranges(anonymous(), azure.url(), SIZE))


@pytest.mark.parametrize(
    "ending",
    [b"", b"40\r\n<PageRange>", b"x\r\n"],
    ids=["between two chunks", "in a chunk", "no length of a chunk"],
)
def test_a_list_in_chunks_that_breaks_off_is_asked_for_again(azure: Loopback, ending: bytes) -> None:
    """As the service sends lists: where it breaks off decides what the SDK's transport makes of it."""
    document = pages(("page", 0, 511), ("page", 1024, 1535)).encode()

    def broken_off(handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%b\r\n" % (120, document[:120]) + ending)
        handler.close_connection = True

    azure.answers = [broken_off]
    with pytest.raises(TryAgainLater):
        list(allocated_ranges(anonymous(), azure.url(), SIZE))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_partition_into_pages_is_the_same_list(azure: Loopback, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, SIZE // PAGE), max_size=12)))
    kinds = st.sampled_from(["page", "clear", ""])
    rows = [
        (kind, start * PAGE, end * PAGE - 1) for start, end in pairwise(cuts) if (kind := data.draw(kinds))
    ]
    split = data.draw(st.integers(0, len(rows)))
    documents = (pages(*rows[:split], marker="m"), "\ufeff" + pages(*rows[split:]))
    found = changed(azure, *documents)
    azure.answers = [xml(document) for document in documents]
    by_the_sdk = anonymous().blob(azure.url().reveal()).list_page_ranges()
    assert [(item.range.offset, item.range.end - 1, item.cleared) for item in found] == [
        (item.start, item.end, bool(item.cleared)) for item in by_the_sdk
    ]
    assert [(item.range, item.cleared) for item in found] == [
        (ByteRange(start, end + 1), kind == "clear") for kind, start, end in rows
    ]


def test_the_size_behind_a_url(azure: Loopback) -> None:
    azure.answers = [lambda handler: send(handler, 200, {"Content-Length": str(SIZE + VHD_FOOTER)}, b"")]
    assert content_length(anonymous(), azure.url()) == SIZE + VHD_FOOTER


def test_the_size_behind_a_url_that_leads_nowhere(azure: Loopback) -> None:
    azure.answers = [refusing(404, "BlobNotFound")]
    with pytest.raises(AzureNotFound):
        content_length(anonymous(), azure.url())


@pytest.mark.parametrize(("status", "code"), [(503, "ServerBusy"), (429, "TooManyRequests")])
def test_no_list_is_repeated_here_and_when_to_come_again_is_handed_on(
    azure: Loopback, status: int, code: str
) -> None:
    """The SDK by itself would not repeat a 429 at all, and would pass over the time that a 503 names."""
    azure.answers = [refusing(status, code, Retry_After="17")]
    with pytest.raises(TryAgainLater) as caught:
        list(allocated_ranges(anonymous(), azure.url(), SIZE))
    assert (caught.value.retry_after, len(azure.requests)) == (17.0, 1)
