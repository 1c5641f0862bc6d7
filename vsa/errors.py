"""Every error the engine raises, grouped by what the caller does next.

VsaError
├── TryAgainLater        the same call may succeed: throttling, lost connections, a busy service
│   └── SnapshotAwaited  Azure has accepted to make a snapshot and has not shown it: it may still appear
├── AccessExpired        ask for a new access grant, then go on where it stopped
├── NoPoint              the VM is not protected by this job; the message says which disks failed and why
├── StreamFailed         a proxy could not bring a disk to the media, nor could another: its own words say why
├── RunStopped           this run was told to stop or was fenced: clean up, commit nothing
├── AzureRefused         Azure will not do it; the code says why
│   ├── AzureNotFound    the object is gone
│   ├── AccessDenied     wrong or expired credential, missing right
│   └── DiffRefused      no change list can be had: read by CRC instead
├── BadRequest           fix the input; repeating cannot help
│   ├── KeyNeeded        the media is sealed and no key was given
│   └── WrongKey         the key given is not the one that the media was sealed with
├── NoMedia              there is no backup media at that place
├── MediaConflict        another writer was first, or the media would have to be overwritten
│   ├── ObjectsDoomed    something that a run builds on is being deleted: read those extents again
│   └── PointGone        the recovery point has been given up: choose another one
├── MediaUnusable        the media cannot be used as asked: read-only, full, of a newer version
│   ├── NewerVersion     only a newer version knows what an object says: upgrade
│   └── DeleteRefused    a policy, a lock or a missing right keeps an object: not yet, perhaps later
└── MediaDamaged         stored data fails its check: stop, an operator is needed
    └── ObjectMissing    an object that the media refers to is not there

Messages name the object, what was expected, what was found and what to do. They reach logs, Prefect's
states and the media's log, so every one is redacted when it is made, whoever's words it quotes.
"""

from __future__ import annotations

from vsa.redact import redact


class VsaError(Exception):
    """Base of every error that this project raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class TryAgainLater(VsaError):
    """The same call may succeed later; `retry_after` is the service's own wish in seconds, if it had one.

    `is_busy`: the service is there and takes no more requests for now. One that has a wish is.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, is_busy: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.is_busy = is_busy or retry_after is not None


class SnapshotAwaited(TryAgainLater):
    """Azure has accepted to make a snapshot, and it was waited for in vain: it may still appear."""


class AccessExpired(VsaError):
    """An access grant ended or was revoked while it was still needed."""


class RunStopped(VsaError):
    """The run must end without committing."""


class AzureRefused(VsaError):
    """Azure answered no; `code` is its error code."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class AzureNotFound(AzureRefused):
    """The object does not exist (any more)."""


class AccessDenied(AzureRefused):
    """Signing in failed, or the identity lacks a right."""


class DiffRefused(AzureRefused):
    """Azure will not compare the two snapshots."""


class NoPoint(VsaError):
    """A VM gets no recovery point, because not all of its target disks could be backed up."""


class StreamFailed(VsaError):
    """A disk's stream failed where it ran, or could run nowhere."""


class BadRequest(VsaError):
    """The request cannot be met as it stands."""


class KeyNeeded(BadRequest):
    """The media is sealed and no key was given; the message says what opens it."""


class WrongKey(BadRequest):
    """The media is sealed and seems sound, and the key given does not open it."""


class NoMedia(VsaError):
    """Nothing that looks like backup media is there."""


class MediaConflict(VsaError):
    """What should be created is already there, or somebody else was first."""


class ObjectsDoomed(MediaConflict):
    """Objects that are needed have been doomed, or found damaged, since they were referred to."""


class PointGone(MediaConflict):
    """A recovery point was forgotten and pruned."""


class MediaUnusable(VsaError):
    """The media is sound but cannot serve this request."""


class NewerVersion(MediaUnusable):
    """An object, or the whole media, is as only a newer version of this program knows it."""


class DeleteRefused(MediaUnusable):
    """The store keeps an object that was to be deleted; nothing else is wrong with it."""


class MediaDamaged(VsaError):
    """Stored bytes are not what was stored."""


class MediaPutBack(MediaDamaged):
    """The log lacks an entry that somebody has seen in it: the media is in an older state, or another one."""


class ObjectMissing(MediaDamaged):
    """An object that the media refers to is not there."""


UNREADABLE = (MediaDamaged, NewerVersion, WrongKey)
"""What reading an object raises that is spoilt, or is not of this media: if it seems to be of another version
or key, that may be a bit that has flipped."""
