"""The command line itself: what can be typed, and what happens then."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import TextIO, TypeAlias

from vsa.cli.answers import Command, complain
from vsa.cli.azure import add_azure_options
from vsa.cli.exits import Exit, exit_of, exit_table
from vsa.cli.keys import add_key_options, add_new_key_options
from vsa.errors import VsaError
from vsa.text import printable

LOCATIONS = "a folder's path, file:///PATH, azure://ACCOUNT/CONTAINER[/PREFIX] or s3://BUCKET[/PREFIX]"
"""As vsa/media/location.py takes them; kept here too, since help should not wait for the engine to load."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. SIGTERM ends as cleanly as Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(arguments, sys.stdout, sys.stderr)
    except BrokenPipeError:
        # Whoever read our output has left; the interpreter must not find out again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    finally:
        signal.signal(signal.SIGTERM, before)


def run(arguments: Sequence[str] | None, out: TextIO, err: TextIO) -> int:
    """The same with the streams given: answers go to `out`, progress and errors to `err`."""
    options = parser().parse_args(arguments)
    try:
        answer = _command(options.command)(options, err)
    except (VsaError, OSError) as error:
        complain(err, error)
        return exit_of(error)
    except KeyboardInterrupt:
        err.write("vsa: interrupted\n")
        return Exit.INTERRUPTED
    text = json.dumps(answer.document, indent=2) if options.json else answer.text
    out.write(f"{text}\n" if text else "")
    out.flush()
    return answer.exit


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="vsa",
        description="Look at the backup media of azure-vsa, restore from it, and keep it in order.",
        epilog=exit_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    init = _add(commands, "init", "create backup media in an absent or empty place")
    init.add_argument("--extent-size", default="64KiB", metavar="SIZE", help="the unit of change (64KiB)")
    init.add_argument("--seal", action="store_true", help="encrypt it, with the key given or asked for")
    points = _add_witnessed(commands, "points", "list the recovery points, oldest first")
    points.add_argument("--vm", metavar="NAME", help="only those of the VM of this name, resource id or key")
    _add_witnessed(commands, "clients", "list the protected VMs")
    jobs = _add_witnessed(commands, "jobs", "list the jobs, newest first, with what they complained of")
    jobs.add_argument("--limit", type=_count, default=20, metavar="N", help="no more than N (20)")
    show = _add_witnessed(commands, "show", "show all that is known of one recovery point")
    show.add_argument("point", type=_slot, metavar="POINT", help="its number in `vsa points`")
    _add_restore(commands)
    rebuild = _add(commands, "rebuild", "make media anew from packs alone")
    rebuild.add_argument("--to", required=True, metavar="LOCATION", help="an absent or empty place")
    rebuild.add_argument(
        "--with-holes",
        action="store_true",
        help="bring back also points that need packs which are not there, as those a prune has given up do",
    )
    _add_witnessed(commands, "witness", "print the log's last entry, to be kept outside the media")
    _add_key(commands)
    _add_verify(commands)
    _add_forget(commands)
    _add_marks(commands)
    _add_prune(commands)
    _add_sweep(commands)
    return top


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add(commands: Commands, name: str, purpose: str) -> argparse.ArgumentParser:
    added = commands.add_parser(
        name,
        help=purpose,
        description=purpose[0].upper() + purpose[1:] + ".",
        epilog=exit_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.add_argument("--media", required=True, metavar="LOCATION", help=LOCATIONS)
    added.add_argument("--json", action="store_true", help="answer with a JSON document")
    add_key_options(added)
    return added


def _add_witnessed(commands: Commands, name: str, purpose: str) -> argparse.ArgumentParser:
    added = _add(commands, name, purpose)
    added.add_argument(
        "--witness",
        metavar="SLOT:SHA256",
        help="an entry that the log must have, as `vsa witness` printed it; all of the log is read then",
    )
    return added


def _add_key(commands: Commands) -> None:
    key = commands.add_parser("key", help="see, add or exchange what opens sealed media")
    keys = key.add_subparsers(title="commands", dest="key_command", required=True, metavar="COMMAND")
    _add(keys, "check", "prove that a key opens the media, and list all that do")
    add_new_key_options(_add(keys, "add", "let one more key open the media"))
    rotate = _add(keys, "rotate", "let a new key open the media in place of those that do")
    add_new_key_options(rotate)
    rotate.add_argument("--all", action="store_true", help="retire keys of other people, too")
    rotate.add_argument("--reason", type=_text, default="", metavar="TEXT", help="why, for the log")


def _add_restore(commands: Commands) -> None:
    restore = _add_witnessed(commands, "restore", "write disks of a recovery point to new image files")
    restore.add_argument("point", type=_slot, metavar="POINT", help="its number in `vsa points`")
    restore.add_argument(
        "--disk", default="all", metavar="DISK", help="a disk's name, its LUN, `os`, or `all` (all)"
    )
    restore.add_argument(
        "--to",
        required=True,
        metavar="FOLDER|FILE",
        help="a file for one disk, else a folder; nothing is overwritten",
    )
    restore.add_argument(
        "--format", choices=("raw", "vhd"), default="vhd", help="vhd is what Azure takes (vhd)"
    )
    restore.add_argument(
        "--threads", type=_count, default=4, metavar="N", help="disk pieces read at one time (4)"
    )
    restore.add_argument(
        "--salvage",
        action="store_true",
        help="restore what is left of damaged disks; IMAGE.lost names the bytes that are zeros instead",
    )
    restore.add_argument(
        "--no-checksum",
        action="store_true",
        help="no SHA-256 of the whole disk; every extent is still checked",
    )


def _add_verify(commands: Commands) -> None:
    verify = _add_witnessed(commands, "verify", "prove that points can be restored, and record damage")
    verify.add_argument("points", type=_slot, nargs="*", metavar="POINT", help="only these (all)")
    verify.add_argument(
        "--depth",
        choices=("log", "objects", "bytes", "restore"),
        default="bytes",
        help="the log alone; every index, and that packs are there; every byte; whole restores (bytes)",
    )
    verify.add_argument(
        "--sample",
        type=_percent,
        default=1.0,
        metavar="PERCENT",
        help="read or restore a share, half of it by turns so that all is seen in time (100)",
    )
    verify.add_argument("--threads", type=_count, default=4, metavar="N", help="packs read at one time (4)")
    verify.add_argument(
        "--no-record", action="store_true", help="leave the media as it is, do not record damage in its log"
    )


def _percent(text: str) -> float:
    value = float(text.removesuffix("%"))
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and at most 100")
    return value / 100


def _add_forget(commands: Commands) -> None:
    forget = _add_witnessed(
        commands, "forget", "say which recovery points would be forgotten; with --apply, forget them"
    )
    forget.add_argument(
        "points", type=_slot, nargs="*", metavar="POINT", help="exactly these; or else a rule below"
    )
    for period in ("last", "daily", "weekly", "monthly", "yearly"):
        of = "the newest N" if period == "last" else f"the first of each of N {_PERIODS[period]}"
        forget.add_argument(f"--keep-{period}", type=_count, metavar="N", help=f"keep {of}")
    forget.add_argument("--vm", metavar="NAME", help="judge only the points of the VM of this name or key")
    forget.add_argument(
        "--override-share", action="store_true", help="also if it is more than half of a VM's points"
    )
    _add_apply(forget)


def _add_marks(commands: Commands) -> None:
    unforget = _add_witnessed(
        commands, "unforget", "call forgotten points back, as long as no prune has given them up"
    )
    unforget.add_argument("points", type=_slot, nargs="+", metavar="POINT")
    pin = _add_witnessed(commands, "pin", "keep points whatever retention says")
    pin.add_argument("points", type=_slot, nargs="+", metavar="POINT")
    pin.add_argument("--unpin", action="store_true", help="let retention have them again")
    pin.add_argument("--reason", type=_text, default="", metavar="TEXT", help="for people who ask later")


def _add_prune(commands: Commands) -> None:
    prune = _add_witnessed(commands, "prune", "say what a prune would delete and move; with --apply, do it")
    prune.add_argument(
        "--grace-days",
        type=_days,
        default=14.0,
        metavar="N",
        help="for so long forgotten points can be called back (14)",
    )
    prune.add_argument(
        "--threshold",
        type=_part,
        default=0.5,
        metavar="PART",
        help="rewrite packs of which less than this is needed; 0: none (0.5)",
    )
    prune.add_argument("--scratch", metavar="FOLDER", help="where to work, about 60 bytes for each extent")
    _add_apply(prune)


def _add_sweep(commands: Commands) -> None:
    leftovers = _add_witnessed(
        commands,
        "leftovers",
        "list what dead runs left in Azure, since when and at what cost; changes nothing",
    )
    sweep = _add_witnessed(
        commands, "sweep", "say what a sweep would remove from Azure; with --yes, remove it"
    )
    sweep.add_argument(
        "--yes", action="store_true", help="fence dead runs in the log and remove what they left"
    )
    for command in (leftovers, sweep):
        command.add_argument(
            "--run",
            action="append",
            default=[],
            metavar="ID",
            help="a run that you know to be dead; no Prefect server is asked",
        )
        command.add_argument(
            "--price",
            type=_price,
            metavar="USD",
            help="US dollars for a GiB and month of a snapshot, for the estimates (0.05)",
        )
        add_azure_options(command)


def _price(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is no price from 0 to 1000")
    return value


def _add_apply(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--apply", type=_token, metavar="TOKEN", help="do it, if it still is what had this token"
    )
    command.add_argument(
        "--trust-clock", action="store_true", help="this machine's clock is right, whatever the log says"
    )


_SLOT_DIGITS = 12
_PERIODS = {"daily": "days", "weekly": "weeks", "monthly": "months", "yearly": "years"}


def _days(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 36_500:
        raise argparse.ArgumentTypeError(f"{text} is no number of days from 0 to 36500")
    return value


def _part(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def _slot(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= _SLOT_DIGITS else -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is no number of a point: `vsa points` lists them")
    return value


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is not in UTF-8") from error
    return text


def _token(text: str) -> str:
    """Never empty: a script whose variable is not set would take a dry run for the deed."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the token is empty: give the one that the plan ends with")
    return text


def _quoted(text: str) -> str:
    return repr(printable(text[:100]))


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _command(name: str) -> Command:
    # Arrow and numpy take longer to load than most commands take to run: only what is used is loaded.
    if name == "restore":
        from vsa.cli.restoring import restore  # noqa: PLC0415

        return restore
    if name == "rebuild":
        from vsa.cli.rebuilding import rebuild  # noqa: PLC0415

        return rebuild
    if name == "key":
        from vsa.cli.keying import key  # noqa: PLC0415

        return key
    if name == "verify":
        from vsa.cli.verifying import verify  # noqa: PLC0415

        return verify
    if name in ("forget", "unforget", "pin", "prune"):
        from vsa.cli.keeping import KEEPING as COMMANDS  # noqa: PLC0415
    elif name in ("leftovers", "sweep"):
        from vsa.cli.sweeping import SWEEPING as COMMANDS  # noqa: PLC0415
    else:
        from vsa.cli.reading import COMMANDS  # noqa: PLC0415
    return COMMANDS[name]
