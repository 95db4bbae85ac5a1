"""`edgeloop cloud`: run the service and its workers, set up lines, boxes and tokens, look for faults.

A role's code is imported inside its command, so `--help` is quick. Exit codes: 0 ok, 1 error, 2 usage or
configuration, 3 not found, 4 conflict.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from models.stopping import stop_on_signals

if TYPE_CHECKING:
    from cloud.bootstrap import Services
    from cloud.lines.schemas import ReferenceItem
    from cloud.settings import CloudSettings

app = typer.Typer(no_args_is_help=True, add_completion=True, help="The cloud service.", pretty_exceptions_enable=False)
line_app = typer.Typer(no_args_is_help=True, help="Lines: what is made, its classes, its reference images.")
edge_app = typer.Typer(no_args_is_help=True, help="Boxes: make them known.")
token_app = typer.Typer(no_args_is_help=True, help="Tokens of people and programs.")
app.add_typer(line_app, name="line")
app.add_typer(edge_app, name="edge")
app.add_typer(token_app, name="token")

Config = Annotated[Path, typer.Option("--config", "-c", envvar="EDGELOOP_CLOUD_CONFIG", help="cloud.toml")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
EXIT_CODES = {404: 3, 409: 4}


class WorkerKind(StrEnum):
    """What a worker does."""

    TRAIN = "train"
    GATE = "gate"


def _fail(message: str, code: int = 1) -> NoReturn:
    print(f"edgeloop cloud: {message}", file=sys.stderr)
    raise typer.Exit(code)


def _settings(config: Path, **flags: dict[str, Any]) -> CloudSettings:
    from cloud.settings import BadSettings, load

    try:
        return load(config, flags=flags)
    except BadSettings as fault:
        _fail(str(fault), 2)


@contextmanager
def _faults() -> Iterator[None]:
    """Expected faults as one line; anything else is a bug and keeps its traceback."""
    from sqlalchemy.exc import SQLAlchemyError

    from cloud.db.migrate import NewerDatabase
    from cloud.http import Problem
    from cloud.objects import StoreError
    from ota.errors import OtaError

    try:
        yield
    except Problem as problem:
        _fail(problem.detail, EXIT_CODES.get(problem.status, 1))
    except (NewerDatabase, OtaError, StoreError, OSError) as fault:
        _fail(str(fault))
    except SQLAlchemyError as fault:
        _fail(f"the database cannot be used: {str(fault).splitlines()[0]}")


@contextmanager
def _services(config: Path) -> Iterator[Services]:
    from cloud.bootstrap import build

    settings = _settings(config)
    with _faults():
        services = build(settings)
        try:
            yield services
        finally:
            services.engine.dispose()


def _say(document: Any, text: str, *, as_json: bool) -> None:
    print(json.dumps(document, ensure_ascii=False, sort_keys=True) if as_json else text)


@app.command()
def run(
    config: Config,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
) -> None:
    """Run the web application, ingest and the scheduler until SIGTERM."""
    from cloud import logs
    from cloud.bootstrap import Cloud, build
    from cloud.serve import listen, serve

    logs.configure(role="cloud")
    settings = _settings(config, web={"host": host, "port": port})
    stop = stop_on_signals()
    with _faults(), listen(settings.web.host, settings.web.port) as listener:
        cloud = Cloud(build(settings))
        cloud.start()
        try:
            serve(cloud.app, listener, stop)
        finally:
            cloud.stop()


@app.command()
def worker(config: Config, kind: Annotated[WorkerKind, typer.Option(help="What it works on.")]) -> None:
    """Run one worker until SIGTERM; a job under way is put back."""
    import structlog

    from cloud import bootstrap, logs

    logs.configure(role=f"{kind}-worker")
    settings = _settings(config)
    stop = stop_on_signals()
    with _faults():
        services = bootstrap.build(settings)
        make = bootstrap.train_worker if kind is WorkerKind.TRAIN else bootstrap.gate_worker
        work = make(services)
        structlog.get_logger(__name__).info("worker_started", kind=str(kind))
        work.run(stop)
        services.engine.dispose()


@app.command()
def migrate(config: Config, as_json: AsJson = False) -> None:
    """Bring the database to this program's version."""
    from cloud.db.migrate import upgrade
    from cloud.db.session import open_engine

    settings = _settings(config)
    with _faults():
        settings.cloud.state_dir.mkdir(parents=True, exist_ok=True)
        engine = open_engine(settings.database_url)
        revision = upgrade(engine)
        engine.dispose()
    _say({"revision": revision}, f"the database is at revision {revision}", as_json=as_json)


@app.command()
def doctor(config: Config, as_json: AsJson = False) -> None:
    """Look for what is missing or wrong: database, object store, broker, keys, certificates, disk."""
    from cloud.doctor import examine

    findings = examine(_settings(config))
    rows = [f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.detail}" for finding in findings]
    documents = [{"name": finding.name, "ok": finding.ok, "detail": finding.detail} for finding in findings]
    healthy = all(finding.ok for finding in findings)
    _say({"ok": healthy, "findings": documents}, "\n".join(rows), as_json=as_json)
    raise typer.Exit(0 if healthy else 1)


@line_app.command("create")
def line_create(
    *,
    config: Config,
    name: Annotated[str, typer.Argument(help="Short name: small letters, digits, dashes.")],
    classes: Annotated[
        list[str], typer.Option("--class", help="NAME, NAME:defect or NAME:defect:must-catch; once per class.")
    ],
    title: Annotated[str | None, typer.Option(help="What people read.")] = None,
    camera: Annotated[list[str] | None, typer.Option(help="A camera's name; once per camera.")] = None,
    escape_cost: Annotated[float, typer.Option(help="Cost of a defect that passes.")] = 0.0,
    overkill_cost: Annotated[float, typer.Option(help="Cost of a good part that is rejected.")] = 0.0,
    currency: Annotated[str, typer.Option(help="Three letters.")] = "EUR",
    hour_s: Annotated[float, typer.Option(help="Length of a period, seconds.")] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Make a line."""
    from cloud.lines.options import BadOption, line_spec

    try:
        spec = line_spec(
            classes, name=name, title=name if title is None else title, cameras=camera or [], currency=currency,
            escape_cost=escape_cost, overkill_cost=overkill_cost, hour_s=hour_s,
        )  # fmt: skip
    except BadOption as fault:
        _fail(str(fault), 2)
    with _services(config) as services:
        made = services.lines.create(spec, actor="cli")
    _say(made.model_dump(mode="json"), f"line {made.name} has {len(made.classes)} classes", as_json=as_json)


@line_app.command("list")
def line_list(config: Config, as_json: AsJson = False) -> None:
    """Every line."""
    with _services(config) as services:
        found = services.lines.all()
    rows = [f"{line.name}  {line.title}  {', '.join(one.name for one in line.classes)}" for line in found]
    _say({"lines": [line.model_dump(mode="json") for line in found]}, "\n".join(rows), as_json=as_json)


@line_app.command("import")
def line_import(
    *,
    config: Config,
    line: Annotated[str, typer.Option(help="The line.")],
    purpose: Annotated[str, typer.Option(help="gate (judges, never trained on) or memory (replayed).")],
    data: Annotated[Path, typer.Option(help="A folder with one folder of images per class.")],
    domain: Annotated[str | None, typer.Option(help="Product or cell type of these images.")] = None,
    as_json: AsJson = False,
) -> None:
    """Import labelled images; all of them or none. Doing it again changes nothing."""
    if purpose not in ("gate", "memory"):
        _fail(f"--purpose {purpose}: write gate or memory", 2)
    items = list(_read_folder(data, domain))
    if not items:
        _fail(f"{data} has no images: make one folder per class and put PNG, JPEG or BMP files into it", 2)
    with _services(config) as services:
        result = services.lines.add_references(line, purpose, items, actor="cli")  # type: ignore[arg-type]
    text = f"{result.added} images imported, {result.known} were there already"
    _say(result.model_dump(), text, as_json=as_json)


@line_app.command("publish")
def line_publish(
    *,
    config: Config,
    line: Annotated[str, typer.Option(help="The line; its classes must be those of the model.")],
    model: Annotated[Path, typer.Option(help="A folder made by edgeloop models train or cascade apply.")],
    offline_keys: Annotated[Path, typer.Option(help="Folder of the key ceremony; its offline keys sign the base.")],
    as_json: AsJson = False,
) -> None:
    """Sign a model and hand it to the gate: a line's first, or one with the next number. Asks for the passphrase."""
    import getpass
    import os

    from cloud.first_release import publish_first

    passphrase = os.environ.get("EDGELOOP_OTA_PASSPHRASE")
    if passphrase is None:
        if not sys.stdin.isatty():
            _fail("set EDGELOOP_OTA_PASSPHRASE: there is no terminal to ask for the passphrase", 2)
        passphrase = getpass.getpass("Passphrase of the offline keys: ")
    with _services(config) as services:
        done = publish_first(services, line=line, folder=model, keys=offline_keys, passphrase=passphrase)
    text = f"base {done['base'][:12]} is signed; release {done['release']} waits for the gate worker"
    _say(done, text, as_json=as_json)


def _read_folder(folder: Path, domain: str | None) -> Iterator[ReferenceItem]:
    """Folders of images per class; a labels.csv (file,label[,domain][,group]) takes their place where it is."""
    import csv

    from cloud.lines.schemas import ReferenceItem

    if not folder.is_dir():
        _fail(f"{folder} is no folder", 2)
    table = folder / "labels.csv"
    if not table.is_file():
        for path in sorted(folder.glob("*/*")):
            if path.is_file() and path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"):
                yield ReferenceItem(_image(path), path.parent.name, domain, source=str(path))
        return
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as fault:
        _fail(f"{table} is no table in UTF-8: {fault}", 2)
    except OSError as fault:
        _fail(f"{table}: {fault.strerror or fault}", 2)
    for row in rows:
        yield _reference(folder, row, domain)


def _reference(folder: Path, row: dict[str, str | None], domain: str | None) -> ReferenceItem:
    """One row of labels.csv."""
    from cloud.lines.schemas import ReferenceItem

    table = folder / "labels.csv"
    if "file" not in row or "label" not in row:
        _fail(f"{table} needs the columns file and label", 2)
    name, label = row["file"], row["label"]
    if not name or not label:
        _fail(f"{table}: a row lacks its file or its label: {name or label or 'both are empty'}", 2)
    path = folder / name
    return ReferenceItem(
        _image(path), label, domain or row.get("domain") or None, row.get("group") or None, source=str(path)
    )


def _image(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        _fail(f"the image {path} cannot be opened: {fault.strerror or fault}; remove or replace it", 2)


@edge_app.command("add")
def edge_add(
    config: Config,
    name: Annotated[str, typer.Argument(help="The box's name: the common name of its certificate.")],
    line: Annotated[str, typer.Option(help="Its line.")],
    certificate: Annotated[Path, typer.Option(help="Its certificate, PEM.")],
    as_json: AsJson = False,
) -> None:
    """Make a box known, or give it a new certificate."""
    from pydantic import ValidationError

    from cloud.fleet.schemas import NewEdge

    try:
        new = NewEdge(name=name, line=line, certificate=certificate.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as fault:
        _fail(f"{certificate}: {fault}", 2)
    except ValidationError as fault:
        _fail(f"{name!r} or {line!r} is no name: {fault.errors()[0]['msg']}", 2)
    with _services(config) as services:
        made = services.fleet.enrol(new, actor="cli")
    _say(made.model_dump(mode="json"), f"edge {made.name} is enrolled on line {made.line}", as_json=as_json)


@token_app.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="Whose it is; shown in the audit log.")],
    role: Annotated[str, typer.Option(help="viewer, labeller, operator or admin")] = "viewer",
    url: Annotated[str | None, typer.Option(help="Print a sign-in link for this address.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token. Only its digest goes into cloud.toml: the token is shown once."""
    from cloud.auth.tokens import ROLES, new_token

    if role not in ROLES:
        _fail(f"--role {role}: write one of {', '.join(ROLES)}", 2)
    token, digest = new_token()
    link = f"{url.rstrip('/')}/login?token={token}" if url else None
    table = f'[[web.tokens]]\nname = {json.dumps(name)}\nrole = "{role}"\nsha256 = "{digest}"'
    text = f"# token, shown once: {token}\n" + (f"# sign in: {link}\n" if link else "") + table
    _say({"name": name, "role": role, "token": token, "sha256": digest, "link": link}, text, as_json=as_json)
