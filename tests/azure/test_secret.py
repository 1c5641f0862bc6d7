"""A secret shows itself to `reveal` alone."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticSerializationError

from vsa.azure.connection import AzureConnection
from vsa.secret import Secret

TEXT = "https://host/disk?sig=dGhlIHNpZ25hdHVyZQ"
SECRET = Secret(TEXT)


@dataclass(frozen=True)
class Holder:
    name: str
    secret: Secret


class Noun(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    secret: Secret


def logged(*args: object) -> str:
    record = logging.LogRecord("vsa", logging.INFO, __file__, 1, args[0], args[1:], None)
    return logging.Formatter().format(record)


def raised(error: Exception) -> str:
    with pytest.raises(type(error)) as caught:
        raise error
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    return "".join(shown.format())


SHOWING: dict[str, Callable[[], str]] = {
    "repr": lambda: repr(SECRET),
    "str": lambda: str(SECRET),
    "format": lambda: f"{SECRET}",
    "repr in format": lambda: f"{SECRET!r:>20} {SECRET=}",
    "percent": lambda: "%s %r" % (SECRET, SECRET),  # noqa: UP031
    "list": lambda: str([SECRET]),
    "dict": lambda: str({"url": SECRET}),
    "dataclass": lambda: repr(Holder("disk", SECRET)),
    "pydantic": lambda: repr(Noun(secret=SECRET)),
    "pprint": lambda: pprint.pformat(Holder("disk", SECRET)),
    "connection": lambda: repr(AzureConnection("s", "t", "c", SECRET)),
    "log": lambda: logged("%s and %r", SECRET, [SECRET]),
    "log of itself": lambda: logged(SECRET),
    "exception": lambda: raised(ValueError("wrong", SECRET)),
    "exception of a holder": lambda: raised(KeyError(Holder("disk", SECRET))),
    "json by repr": lambda: json.dumps({"url": SECRET}, default=repr),
}

STORING: dict[str, tuple[Callable[[], Any], type[Exception]]] = {
    **{
        f"pickle {protocol}": (lambda protocol=protocol: pickle.dumps(SECRET, protocol), TypeError)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "pickle of a holder": (lambda: pickle.dumps(Holder("disk", SECRET)), TypeError),
    "copy": (lambda: copy.copy(SECRET), TypeError),
    "deep copy": (lambda: copy.deepcopy([SECRET]), TypeError),
    "asdict": (lambda: asdict(Holder("disk", SECRET)), TypeError),
    "json": (lambda: json.dumps({"url": SECRET}), TypeError),
    "json through pydantic": (lambda: Noun(secret=SECRET).model_dump_json(), PydanticSerializationError),
    "vars": (lambda: vars(SECRET), TypeError),
    "iteration": (lambda: list(SECRET), TypeError),  # type: ignore[call-overload]
    "bytes": (lambda: bytes(SECRET), TypeError),  # type: ignore[call-overload]
}


@pytest.mark.parametrize("way", SHOWING)
def test_showing_it_shows_that_it_is_there_and_no_more(way: str) -> None:
    shown = SHOWING[way]()
    assert "***" in shown
    assert "dGhlIHNpZ25hdHVyZQ" not in shown and "host/disk" not in shown


@pytest.mark.parametrize("way", STORING)
def test_it_cannot_be_stored(way: str) -> None:
    store, error = STORING[way]
    with pytest.raises(error) as caught:
        store()
    assert "dGhlIHNpZ25hdHVyZQ" not in str(caught.value)


def test_it_is_known_by_what_it_holds() -> None:
    assert Secret(TEXT) == SECRET and hash(Secret(TEXT)) == hash(SECRET)
    assert Secret(TEXT + "x") != SECRET
    assert SECRET != TEXT
    assert SECRET.reveal() == TEXT
