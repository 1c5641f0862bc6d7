"""What people may write as a media's location, and what is never repeated of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vsa.cli.program import LOCATIONS
from vsa.errors import BadRequest
from vsa.media.location import FORMS, BlobContainer, Bucket, place_of


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("/backup", Path("/backup")),
        ("file:///backup/a%20b", Path("/backup/a b")),
        ("file://localhost/backup", Path("/backup")),
        ("azure://account1/media", BlobContainer("account1", "media")),
        ("azure://account1/media/", BlobContainer("account1", "media")),
        ("azure://account1/my-media/site/A_1.b", BlobContainer("account1", "my-media", "site/A_1.b")),
        ("s3://bucket.of-mine", Bucket("bucket.of-mine")),
        ("s3://bucket/site/a/", Bucket("bucket", "site/a")),
    ],
)
def test_a_location_names_a_place(location, place):
    assert place_of(location) == place


@pytest.mark.parametrize(
    "location", ["azure://account1/media", "azure://account1/media/a/b", "s3://b-1", "s3://b-1/x"]
)
def test_a_cloud_place_is_written_as_it_was_named(location):
    assert str(place_of(location)) == location


@pytest.mark.parametrize(
    "location",
    [
        "",
        "azure://account1",
        "azure:///media",
        "azure://Account1/media",
        "azure://account1.blob.core.windows.net/media",
        "azure://account1/My-Media",
        "azure://account1/a--b",
        "azure://account1/$web",
        "azure://account1/ab",
        "azure://account1/media/../other",
        "azure://account1/media/a//b",
        "azure://account1/media/.hidden",
        "azure://account1/media/a%2e",
        "s3://",
        "s3://Bucket",
        "s3://bu",
        "s3://bucket/../x",
        "s3://bucket:9000/x",
        "https://account1.blob.core.windows.net/media",
        "file://elsewhere/backup",
        "file:backup://x",
        "ftp://x/y",
        "azure://[::1/media",
        "/backup/a\0b",
        "file:///backup/a%00b",
        "/backup/\ud800",
    ],
)
def test_anything_else_is_refused_with_the_forms_there_are(location):
    with pytest.raises(BadRequest, match="expected"):
        place_of(location)


@pytest.mark.parametrize(
    "location",
    [
        "azure://account1/media?sv=1&sig=CANARY",
        "azure://user:CANARY@account1/media",
        "s3://id:CANARY@bucket/x",
        "s3://bucket/x#CANARY",
        "https://account1.blob.core.windows.net/media?sig=CANARY",
        "https://user:CANARY@host/media",
        "file:///backup?sig=CANARY",
    ],
)
def test_a_location_with_a_secret_is_refused_and_not_repeated(location):
    with pytest.raises(BadRequest, match="must hold no secret") as caught:
        place_of(location)
    assert "CANARY" not in str(caught.value)


def test_the_help_of_the_command_line_names_the_forms_there_are():
    assert LOCATIONS == FORMS
