"""Where a blob is: one place that takes blob URLs apart and puts them together."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, urlsplit

from azure.storage.blob import BlobClient

from vsa.errors import BadRequest


class BlobAddress(NamedTuple):
    """A blob in an account; `name` is decoded and may hold folders, spaces and any letter.

    VHD addresses of old VMs may begin with http: they are read over https all the same.
    """

    account_url: str
    account: str
    container: str
    name: str

    @classmethod
    def parse(cls, url: str) -> BlobAddress:
        """Raises BadRequest for what is no blob's URL; a query, such as a SAS, is left behind."""
        bare = url.partition("?")[0]
        try:
            client = BlobClient.from_blob_url(f"https://{bare.partition('://')[2]}")
        except ValueError as error:
            raise BadRequest(f"{bare!r} is not the URL of a blob: {error}") from None
        name = client.blob_name
        end = len(client.url) - len(f"/{client.container_name}/{_quoted(name)}")
        if urlsplit(bare).scheme not in ("https", "http") or not client.account_name:
            raise BadRequest(f"{bare!r} is not the URL of a blob in a storage account")
        return cls(client.url[:end], client.account_name, client.container_name, name)

    @property
    def url(self) -> str:
        return f"{self.container_url}/{_quoted(self.name)}"

    @property
    def container_url(self) -> str:
        return f"{self.account_url}/{self.container}"

    def beside(self, container: str, name: str) -> BlobAddress:
        """Another blob of the same account."""
        return self._replace(container=container, name=name)


def _quoted(name: str) -> str:
    return quote(name, safe="~/")
