"""`optimize publish` and `optimize verify`: a finished run handed on, and what is proven of one that was."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from optimize.cli import verbosity
from optimize.cli.options import JsonOption, QuietOption, VerboseOption
from optimize.cli.output import print_json
from optimize.errors import RequestError


def publish(
    run_folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folder; several of one checkpoint are its variants.")
    ],
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DESTINATION",
            help="New or empty folder, FILE.tar.zst, hf://user/name[@branch], oci://host/name:tag, s3://…, gs://…, az://….",
        ),
    ],
    layout: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="For what its files are arranged: optimum, transformers.js, triton, ovms, kserve, sagemaker, vertex, "
            "docker.",
        ),
    ] = "optimum",
    replace: Annotated[bool, typer.Option("--replace", help="Replace other content that is there.")] = False,
    add: Annotated[
        bool, typer.Option("--add", help="Put the models beside those of the publication that is there.")
    ] = False,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Publish a run that is unverified, too; its card says so.")
    ] = False,
    sign_key: Annotated[
        Optional[Path], typer.Option("--sign-key", metavar="FILE", help="Sign it with this private key, in PEM.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository of the Hub public.")] = False,
    pull_request: Annotated[
        bool, typer.Option("--pull-request", help="Open a pull request on the Hub instead of a commit.")
    ] = False,
    message: Annotated[
        Optional[str], typer.Option("--message", metavar="TEXT", help="Message of the commit on the Hub.")
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Judge a passed run again and hand it on, or several.

    It is put as the model, its tokenizer, a model card, the manifest, provenance and checksums, and read back.
    """
    from optimize.cli.progress import progress
    from optimize.publishing.destinations.interface import Terms
    from optimize.publishing.publish import publish as put

    terms = Terms(replace=replace, public=public, pull_request=pull_request, message=message)
    with progress() as shown:
        done = put(
            run_folders,
            destination,
            terms,
            add=add,
            layout=layout,
            unverified=unverified,
            sign_key=sign_key,
            progress=shown,
        )
    if as_json:
        print_json([{"address": done.address, "files": dict(done.files)}])
    elif not verbosity.is_quiet():
        print(f"published to {done.address}")


def verify(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Folder or address of a publication.")],
    key: Annotated[
        Optional[Path], typer.Option("--key", metavar="FILE", help="Public key of who signed it, in PEM.")
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check all that a publication says of itself, and say what is proven.

    Exit code 2: something is wrong.
    """
    from optimize.cli.progress import progress
    from optimize.publishing.verifying import verify as check

    with progress() as shown:
        findings = check(address, key=key, progress=shown)
    if as_json:
        print_json([{"findings": list(map(asdict, findings))}])
    elif not verbosity.is_quiet():
        for each in findings:
            print(f"{each.what}: {each.outcome}: {each.words}")
    for each in findings:
        if each.outcome == "wrong":
            raise RequestError(f"{address}: {each.what}: {each.words}; get it from elsewhere")
