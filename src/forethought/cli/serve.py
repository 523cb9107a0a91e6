"""`forethought serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import quiet, say

_KEYS = Path("keys.yaml")


def serve(
    model: Annotated[str | None, typer.Argument(help="As everywhere; left out, the configuration's.")] = None,
    config: Annotated[Path | None, typer.Option(help="A configuration file (docs/serving.md).")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at. Default: this machine's own.")] = None,
    port: Annotated[int | None, typer.Option(min=0, help="Port to listen at. Default: 8000; 0: a free one.")] = None,
    defence: options.Defence = None,
    upstream: Annotated[
        list[str] | None, typer.Option(help="A vLLM server that holds the model (docs/serving.md); can be repeated.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is wrong with the configuration.")] = False,
    new_key: Annotated[
        str | None,
        typer.Option(metavar="MAY", help="Make a key that may do this, such as ask,reasoning, and show it once."),
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="File of keys. Default for a new key: keys.yaml.")] = None,
    name: Annotated[str, typer.Option(help="Whose the new key is.")] = "key",
    limits: Annotated[str, typer.Option(help="How often the new key may ask, such as 60/minute.")] = "",
    verify_audit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only say whether an audit log is whole.")
    ] = None,
) -> None:
    """Serves a defended model by the OpenAI API, its decisions to gateways, and a page to try it (docs/serving.md).

    Examples:

      forethought serve runs/quickstart

      forethought serve --new-key ask,reasoning --name shop --limits 60/minute

      forethought serve --config serve.yaml --check

      forethought serve --verify-audit audit.jsonl
    """
    if new_key is not None:
        from forethought.server.keys import new_key as make

        file = keys or _KEYS
        print(make(file, name, [one.strip() for one in new_key.split(",")], limits))
        say(f"Kept in {file} as its hash: this is the only time it is shown.")
        return
    if verify_audit is not None:
        from forethought.server.audit import verify

        found = verify(verify_audit)
        mended = f", {found.mended} cut short and closed" if found.mended else ""
        say(f"Whole: lines {found.first} to {found.first + found.lines - 1}{mended}. Last hash: {found.head}")
        return
    quiet()
    if check:
        from forethought.server.config import check as checked

        given = {"model": model, "host": host, "port": port, "keys": keys}
        checked(config, {field: value for field, value in given.items() if value is not None})
        say(f"{config or 'This'}: nothing is wrong with it.")
        return
    from forethought.server.serve import serve as run

    run(model, config=config, defence=defence, host=host, port=port, keys=keys, upstreams=upstream or ())
