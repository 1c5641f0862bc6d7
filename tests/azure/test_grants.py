"""Many threads read through one grant: when it ends it is asked for once, and not without end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from vsa.azure.grants import MOST_FRESH_REFUSALS, MOST_RENEWALS, GrantedAccess, renewing
from vsa.errors import AccessDenied, AccessExpired, AzureRefused, TryAgainLater
from vsa.secret import Secret

THREADS = 8


class Granting:
    """Gives out URL after URL, and ends them on demand."""

    def __init__(self) -> None:
        self.granted: list[Secret] = []
        self.ended: set[str] = set()
        self._numbers = count()

    def __call__(self) -> Secret:
        self.granted.append(Secret(f"https://host/disk?sig={next(self._numbers)}"))
        return self.granted[-1]

    def end_all(self) -> None:
        self.ended |= {url.reveal() for url in self.granted}

    def read(self, *urls: Secret) -> list[str]:
        if any(url.reveal() in self.ended for url in urls):
            raise AccessExpired("no longer")
        return [url.reveal() for url in urls]


def test_threads_that_hold_the_same_ended_url_ask_once() -> None:
    granting = Granting()
    access = GrantedAccess(granting, "snapshot disk")
    all_failed = threading.Barrier(THREADS)

    def fail_and_renew(stale: Secret) -> Secret:
        all_failed.wait(10)
        access.renew(stale)
        return access.url

    for number in range(1, 4):
        stale = access.url
        with ThreadPoolExecutor(THREADS) as pool:
            urls = list(pool.map(fail_and_renew, [stale] * THREADS))
        assert len(granting.granted) == number + 1
        assert all(url is granting.granted[-1] for url in urls)


def test_a_thread_that_comes_late_with_an_old_url_does_not_end_the_new_one() -> None:
    granting = Granting()
    access = GrantedAccess(granting, "snapshot disk")
    old = access.url
    access.renew(old)
    access.renew(access.url)
    access.renew(old)
    assert len(granting.granted) == 3
    assert access.url is granting.granted[2]


def test_the_same_text_granted_again_is_another_grant() -> None:
    """Azure may answer with the same SAS while it lasts; that is no reason to take it for renewed."""
    grants = [Secret("https://host/disk?sig=1") for _ in range(3)]
    left = iter(grants)
    access = GrantedAccess(lambda: next(left), "snapshot disk")
    access.renew(grants[0])
    access.renew(grants[0])
    assert access.url is grants[1]
    access.renew(grants[1])
    assert access.url is grants[2]


def test_renewals_have_an_end() -> None:
    granting = Granting()
    access = GrantedAccess(granting, "snapshot disk")
    for _ in range(MOST_RENEWALS):
        access.renew(access.url)
        access.worked(access.url)
    with pytest.raises(AccessExpired, match="snapshot disk: access ended 17 times") as caught:
        access.renew(access.url)
    assert "sig=" not in str(caught.value)
    assert len(granting.granted) == 1 + MOST_RENEWALS


def test_grants_that_are_refused_while_fresh_are_no_matter_of_time() -> None:
    granting = Granting()
    access = GrantedAccess(granting, "snapshot disk")
    for _ in range(MOST_FRESH_REFUSALS):
        access.renew(access.url)
    with pytest.raises(AccessDenied, match="snapshot disk: Azure granted access and refused it 4 times"):
        access.renew(access.url)
    assert len(granting.granted) == 1 + MOST_FRESH_REFUSALS


def test_a_failed_renewal_leaves_the_old_url_to_be_renewed_again() -> None:
    answers = iter([Secret("https://host/0"), TryAgainLater("busy"), Secret("https://host/1")])

    def grant() -> Secret:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    access = GrantedAccess(grant, "snapshot disk")
    first = access.url
    with pytest.raises(TryAgainLater):
        access.renew(first)
    access.renew(first)
    assert access.url.reveal() == "https://host/1"


def test_a_call_through_two_accesses_renews_both_since_nobody_says_which_has_ended() -> None:
    current, base = Granting(), Granting()
    accesses = GrantedAccess(current, "current"), GrantedAccess(base, "base")
    base.end_all()

    def compare(url: Secret, base_url: Secret) -> list[str]:
        return current.read(url) + base.read(base_url)

    assert renewing(compare, *accesses) == ["https://host/disk?sig=1", "https://host/disk?sig=1"]


def test_a_url_that_another_thread_replaced_during_the_call_is_not_replaced_again() -> None:
    granting = Granting()
    access = GrantedAccess(granting, "snapshot disk")

    def slow_read(url: Secret) -> list[str]:
        if url is granting.granted[0]:
            granting.end_all()
            access.renew(url)
        return granting.read(url)

    assert renewing(slow_read, access) == ["https://host/disk?sig=1"]
    assert len(granting.granted) == 2


@pytest.mark.parametrize("error", [TryAgainLater("busy"), AzureRefused("no", code="X")])
def test_other_errors_do_not_cost_a_grant(error: Exception) -> None:
    granting = Granting()

    def refused(url: Secret) -> None:
        raise error

    with pytest.raises(type(error)):
        renewing(refused, GrantedAccess(granting, "snapshot disk"))
    assert len(granting.granted) == 1
