"""The command line of the simulated Azure: `python -m azsim --help`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from azsim.control import Control, ControlError
from azsim.files import write_atomically

Options = argparse.Namespace

_DISK_HELP = "a managed disk's name or resource id, or account/container/blob"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 refused, 2 wrong arguments (argparse exits by itself)."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ControlError, OSError, ValueError) as error:
        print(f"azsim: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="azsim", description="A local Azure for tests and demonstrations.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_fleet_commands(commands)
    _add_disk_commands(commands)
    _add_vm_commands(commands)
    _add_fault_commands(commands)
    return parser


def _command(commands: Any, name: str, run: Callable[[Options], None], help: str) -> argparse.ArgumentParser:
    """A subcommand that works on a state folder."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    parser.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="state folder of the simulation"
    )
    parser.set_defaults(run=run)
    return parser


def _add_serve(commands: Any) -> None:
    serve = _command(commands, "serve", _serve, "Serve until SIGTERM; prints one line of JSON when ready.")
    serve.add_argument("--port", type=int, default=0, help="default: the last one, else any free one")
    serve.add_argument("--ready-file", type=Path, metavar="FILE", help="write that line to a file, too")
    serve.add_argument("--page-size", type=int, metavar="N", help="resources in one page of a list")
    serve.add_argument("--poll-count", type=int, metavar="N", help="polls answered InProgress per operation")
    serve.add_argument(
        "--diff-boundary", type=int, metavar="BYTES", help="disk size across which no changes are known"
    )
    serve.add_argument(
        "--premium-read-mib", type=float, metavar="N", help="MiB/s of direct reads of premium snapshots"
    )
    serve.add_argument("--ranges-per-answer", type=int, metavar="N", help="page ranges in one answer")
    serve.add_argument("--copy-pending-polls", type=int, metavar="N", help="polls answered pending per copy")
    serve.add_argument(
        "--background-copy-seconds", type=float, metavar="N", help="virtual time to complete a slow snapshot"
    )
    serve.add_argument(
        "--throttle", type=float, metavar="N", help="throttle as ARM does, at N times its limits; 0: never"
    )
    serve.add_argument("--token-seconds", type=int, metavar="N", help="life of a bearer token in real time")
    serve.add_argument(
        "--disk-address", metavar="URL", help="where SAS URLs of disks lead, to a server before this one"
    )


def _add_fleet_commands(commands: Any) -> None:
    fleet = _command(commands, "create-fleet", _create_fleet, "Create accounts, VMs and disks from a file.")
    fleet.add_argument("fleet", type=Path, metavar="FLEET.json")
    clock = _command(commands, "clock", _clock, "Show virtual time, or step it forward.")
    clock.add_argument("--advance", type=float, metavar="SECONDS")
    listing = _command(commands, "inventory", _inventory, "List every VM, disk, snapshot and blob.")
    listing.add_argument("--json", action="store_true")
    log = _command(commands, "requests", _requests, "Show the latest requests as JSON lines.")
    log.add_argument("--since", type=int, default=0, metavar="NUMBER")


def _add_disk_commands(commands: Any) -> None:
    def disk_command(name: str, run: Callable[[Options], None], help: str) -> argparse.ArgumentParser:
        parser = _command(commands, name, run, help)
        parser.add_argument("disk", metavar="DISK", help=_DISK_HELP)
        return parser

    write = disk_command("write-disk", _write_disk, "Write to a disk as its guest would.")
    source = write.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", type=Path, metavar="FILE", help="make the disk equal to this file")
    source.add_argument(
        "--from", type=Path, dest="source", metavar="FILE", help="write these bytes at --offset"
    )
    write.add_argument("--offset", type=int, default=0, metavar="N")
    write.add_argument("--discard", action="store_true", help="with --image: clear what became zero")
    clear = disk_command("clear-disk", _clear_disk, "Discard a range of a disk.")
    clear.add_argument("--offset", type=int, required=True, metavar="N")
    clear.add_argument("--length", type=int, required=True, metavar="N")
    grow = disk_command("grow-disk", _grow_disk, "Make a disk larger.")
    grow.add_argument("--size", type=int, required=True, metavar="BYTES")
    save = disk_command("save-disk", _save_disk, "Save a disk's bytes as a raw image file.")
    save.add_argument("image", type=Path, metavar="FILE")
    disk_command("digest-disk", _digest_disk, "Show size and SHA-256 of a disk's bytes.")
    disk_command("delete-disk", _delete_disk, "Delete a managed disk, attached or not.")
    disk_command("replace-disk", _replace_disk, "Swap a managed disk for a copy with another unique id.")


def _add_vm_commands(commands: Any) -> None:
    def vm_command(name: str, run: Callable[[Options], None], help: str) -> argparse.ArgumentParser:
        parser = _command(commands, name, run, help)
        parser.add_argument("vm", metavar="VM", help="name or resource id")
        return parser

    attach = vm_command("attach-disk", _attach_disk, "Make a managed data disk and attach it.")
    attach.add_argument("--name", required=True)
    attach.add_argument("--image", type=Path, metavar="FILE")
    attach.add_argument("--size", type=int, metavar="BYTES")
    attach.add_argument("--lun", type=int)
    attach.add_argument("--sku", default="Premium_LRS")
    detach = vm_command("detach-disk", _detach_disk, "Take a disk off a VM; the disk stays.")
    detach.add_argument("--name", required=True)
    power = vm_command("power", _power, "Set a VM's power state.")
    power.add_argument("power", choices=("running", "stopped", "deallocated"))
    tag = vm_command("tag", _tag, "Set tags of a VM; KEY= takes one away.")
    tag.add_argument("tags", nargs="+", metavar="KEY=VALUE")
    delete = vm_command("delete-vm", _delete_vm, "Delete a VM.")
    delete.add_argument("--with-disks", action="store_true")
    move = vm_command("move-vm", _move_vm, "Give a VM another resource group or name.")
    move.add_argument("--resource-group")
    move.add_argument("--name")


def _add_fault_commands(commands: Any) -> None:
    fault = commands.add_parser("fault", help="Script failures.").add_subparsers(required=True)
    add = _command(fault, "add", _add_fault, "Put a rule in force; prints its id.")
    add.add_argument(
        "action", help="status, cut, truncate, corrupt, delay, run, advance_clock or expire_access"
    )
    add.add_argument(
        "options", nargs="*", metavar="OPTION=VALUE", help="of the action; values are JSON or text"
    )
    for name in ("plane", "method", "path", "query", "header"):
        add.add_argument(f"--{name}", default="any" if name == "plane" else None)
    add.add_argument("--skip", type=int, default=0, metavar="N")
    add.add_argument("--times", type=int, default=1, metavar="N", help="0 means for ever")
    _command(fault, "list", _list_faults, "Show the rules in force and how often each fired.")
    clear = _command(fault, "clear", _clear_faults, "Lift rules; all of them without an id.")
    clear.add_argument("ids", nargs="*", metavar="ID")


def _serve(options: Options) -> None:
    # The server is slow to import; the other commands do not need it.
    from azsim.blob_model import BlobSettings  # noqa: PLC0415
    from azsim.server import CannotServe, serve  # noqa: PLC0415
    from azsim.simulation import Settings  # noqa: PLC0415

    def ready(endpoint: dict[str, str]) -> None:
        line = json.dumps(endpoint)
        if options.ready_file:
            write_atomically(options.ready_file, line.encode())
        print(line, flush=True)

    settings = Settings(**_given(options, [field.name for field in dataclasses.fields(Settings)]))
    blob_settings = BlobSettings(**_given(options, ["ranges_per_answer", "copy_pending_polls"]))
    if options.premium_read_mib is not None:
        speed = options.premium_read_mib * (1 << 20)
        blob_settings = dataclasses.replace(blob_settings, premium_snapshot_bytes_per_second=speed)
    try:
        serve(options.state, settings, blob_settings, port=options.port, ready=ready)
    except CannotServe as error:
        raise ControlError(str(error)) from error


def _given(options: Options, names: Sequence[str]) -> dict[str, Any]:
    """The options that were given, by name; the others keep their defaults."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _create_fleet(options: Options) -> None:
    _show(Control(options.state).create_fleet_file(options.fleet))


def _clock(options: Options) -> None:
    control = Control(options.state)
    _show(control.clock() if options.advance is None else control.advance_clock(options.advance))


def _inventory(options: Options) -> None:
    found = Control(options.state).inventory()
    if options.json:
        _show(found)
        return
    for kind, rows in found.items():
        print(f"{kind}: {len(rows)}")
        for row in rows:
            shown = [f"{name}={value}" for name, value in row.items() if value not in ({}, None)]
            print("  " + "  ".join(shown))


def _requests(options: Options) -> None:
    for entry in Control(options.state).requests(since=options.since):
        print(json.dumps(entry))


def _write_disk(options: Options) -> None:
    control = Control(options.state)
    if options.image is not None:
        _show(control.write_image(options.disk, options.image, discard=options.discard))
    else:
        _show(control.write_at(options.disk, options.offset, options.source))


def _clear_disk(options: Options) -> None:
    _show(Control(options.state).clear(options.disk, options.offset, options.length))


def _grow_disk(options: Options) -> None:
    _show(Control(options.state).grow_disk(options.disk, options.size))


def _save_disk(options: Options) -> None:
    _show(Control(options.state).save_disk(options.disk, options.image))


def _digest_disk(options: Options) -> None:
    _show(Control(options.state).digest_disk(options.disk))


def _delete_disk(options: Options) -> None:
    Control(options.state).delete_disk(options.disk)


def _replace_disk(options: Options) -> None:
    _show(Control(options.state).replace_disk(options.disk))


def _attach_disk(options: Options) -> None:
    given = {name: getattr(options, name) for name in ("name", "size", "lun", "sku", "image")}
    disk = {name: value for name, value in given.items() if value is not None}
    _show(Control(options.state).attach_disk(options.vm, disk))


def _detach_disk(options: Options) -> None:
    Control(options.state).detach_disk(options.vm, options.name)


def _power(options: Options) -> None:
    Control(options.state).power(options.vm, options.power)


def _tag(options: Options) -> None:
    pairs = (text.partition("=") for text in options.tags)
    _show(Control(options.state).tag(options.vm, {name: value or None for name, _, value in pairs}))


def _delete_vm(options: Options) -> None:
    Control(options.state).delete_vm(options.vm, with_disks=options.with_disks)


def _move_vm(options: Options) -> None:
    control = Control(options.state)
    _show(control.move_vm(options.vm, resource_group=options.resource_group, name=options.name))


def _add_fault(options: Options) -> None:
    match = {name: getattr(options, name) for name in ("plane", "method", "path", "query", "header")}
    given = dict(_option(text) for text in options.options)
    fault_id = Control(options.state).add_fault(
        options.action, skip=options.skip, times=options.times or None, **match, **given
    )
    print(fault_id)


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _list_faults(options: Options) -> None:
    _show(Control(options.state).faults())


def _clear_faults(options: Options) -> None:
    print(Control(options.state).clear_faults(*options.ids))


def _show(result: Any) -> None:
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    sys.exit(main())
