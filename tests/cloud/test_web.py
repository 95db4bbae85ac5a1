"""The whole application through its door: who may what, headers, problems, and every route behind the guard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.testclient import TestClient

from cloud.auth.rules import is_public
from cloud.auth.tokens import digest
from cloud.bootstrap import Cloud, build
from cloud.lines.schemas import LineSpec, NewClass
from cloud.objects.state import StoreState
from cloud.settings import CloudSettings
from models.contracts import topics
from ota.keys import ceremony
from ota.repository import ReleaseRepository
from simulators.objects import MemoryObjects
from tests.cloud.kit import Shot, offer, png

ROLES = ("viewer", "labeller", "operator", "admin")
HTML = {"accept": "text/html"}
IDLE = ("HEAD", "OPTIONS")


def settings_in(folder: Path) -> CloudSettings:
    tokens = [{"name": f"the-{role}", "role": role, "sha256": digest(f"token-{role}")} for role in ROLES]
    return CloudSettings.model_validate(
        {
            "cloud": {"state_dir": folder / "state"},
            "objects": {"endpoint": "127.0.0.1:1", "access_key": "a", "secret_key": "b"},
            "release": {"repository": folder / "repo", "keys": folder / "keys" / "online"},
            "web": {"tokens": tokens},
        }
    )


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    keys = ceremony(folder / "keys", lines=["cells"], passphrase="a long passphrase")
    ReleaseRepository(folder / "repo", now=lambda: datetime.now(UTC)).create(keys, ["cells"])
    made = Cloud(build(settings_in(folder), objects=MemoryObjects()))
    classes = [NewClass(name="good", defect=False), NewClass(name="crack", defect=True)]
    made.services.lines.create(LineSpec(name="cells", title="Cells", classes=classes))
    yield made
    made.stop()


def as_(cloud: Cloud, role: str | None, **headers: str) -> TestClient:
    if role is not None:
        headers["authorization"] = f"Bearer token-{role}"
    return TestClient(cloud.app, headers=headers, follow_redirects=False)


def browser(cloud: Cloud, role: str) -> TestClient:
    client = TestClient(cloud.app, follow_redirects=False)
    assert client.get(f"/login?token=token-{role}").status_code == 200
    return client


def sample(cloud: Cloud, seq: int, data: bytes | None = None) -> Shot:
    assert cloud.services.ingest is not None
    with as_(cloud, "admin") as client:
        client.post("/api/v1/edges", json={"name": "edge-1", "line": "cells"})
    shot = Shot(seq, data or png(seq))
    cloud.services.ingest.receive(topics.up("edge-1", "offer"), offer(shot))
    cloud.services.ingest.receive(topics.up("edge-1", "data"), shot.chunks(122_880)[0])
    return shot


def test_health_is_open_and_says_little(cloud: Cloud) -> None:
    answer = as_(cloud, None).get("/api/v1/health")
    assert answer.status_code == 200
    assert answer.json()["parts"] == {"database": "ok", "broker": "off", "object_store": "ok"}


def test_health_says_that_the_object_store_is_away_and_stays_200(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud.services, "store_state", StoreState(MemoryObjects(down=True)))
    answer = as_(cloud, None).get("/api/v1/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["parts"]["object_store"] == "away"


def test_a_browser_that_asks_for_an_icon_by_itself_gets_one(cloud: Cloud) -> None:
    for client in (as_(cloud, None), browser(cloud, "viewer")):
        answer = client.get("/favicon.ico", follow_redirects=True)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")


def test_a_wrong_token_is_told_apart_from_none_and_where_one_comes_from(cloud: Cloud) -> None:
    none = as_(cloud, None).get("/api/v1/fleet").json()["detail"]
    wrong = as_(cloud, None, authorization="Bearer nonsense").get("/api/v1/fleet").json()["detail"]
    assert none.startswith("Sign in first")
    assert wrong.startswith("The token was not accepted")
    assert all("edgeloop cloud token create" in text and "nonsense" not in text for text in (none, wrong))


def test_every_other_route_is_closed_to_strangers(cloud: Cloud) -> None:
    client, closed = as_(cloud, None), [(m, p) for m, p in _routes(cloud) if not is_public(p) and m not in IDLE]
    for method, path in closed:
        answer = client.request(method, path)
        assert answer.status_code == 401, (method, path)
        assert answer.json()["code"] == "unauthenticated"
    assert len(closed) > 25


def test_a_viewer_changes_nothing_anywhere(cloud: Cloud) -> None:
    client, own_view = as_(cloud, "viewer"), ("/audit/check", "/language")
    changing = [(m, p) for m, p in _routes(cloud) if m not in (*IDLE, "GET") and not is_public(p) and p not in own_view]
    for method, path in changing:
        assert client.request(method, path).status_code == 403, (method, path)
    assert len(changing) > 8


def _routes(cloud: Cloud) -> list[tuple[str, str]]:
    """Every (method, path) of the application, with placeholders filled in."""
    found = [(method, re.sub(r"\{[^}]*\}", "1", one.path)) for one in _walk(cloud) for method in one.methods or ()]
    return sorted(set(found))


def _walk(cloud: Cloud) -> list[RouteContext]:
    return list(iter_route_contexts(cloud.app.routes))


def test_a_page_sends_a_stranger_to_sign_in_and_back(cloud: Cloud) -> None:
    answer = as_(cloud, None, **HTML).get("/fleet?line=cells")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Ffleet%3Fline%3Dcells")


def test_the_sign_in_link_sets_a_strict_cookie_and_moves_on(cloud: Cloud) -> None:
    client = TestClient(cloud.app, follow_redirects=False)
    answer = client.get("/login?token=token-labeller&next=/fleet")
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert "token-labeller" not in answer.text + cookie
    assert 'content="0;url=/fleet"' in answer.text
    assert client.get("/api/v1/lines").status_code == 200
    assert client.post("/logout", headers={"sec-fetch-site": "same-origin"}).status_code == 303
    assert client.get("/api/v1/lines").status_code == 401
    assert 'url=/"' in client.get("/login?token=token-labeller&next=//evil").text


def test_a_wrong_token_opens_nothing(cloud: Cloud) -> None:
    client = TestClient(cloud.app, follow_redirects=False)
    for answer in (client.get("/login?token=wrong"), client.post("/login", data={"token": "wrong"}, headers=_own())):
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    assert as_(cloud, None, authorization="Bearer nonsense").get("/api/v1/fleet").status_code == 401


def _own() -> dict[str, str]:
    return {"sec-fetch-site": "same-origin"}


def test_a_cookie_changes_something_only_from_our_own_page(cloud: Cloud) -> None:
    client, shot = browser(cloud, "labeller"), sample(cloud, 40)
    url, body = f"/api/v1/samples/{shot.sid}/labels", {"name": "good"}
    for headers in ({}, {"origin": "http://evil"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        answer = client.post(url, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin")
    assert client.post(url, json=body, headers=_own()).status_code == 201
    assert client.post(url, json=body, headers={"origin": "http://testserver"}).status_code == 201
    assert as_(cloud, "labeller").post(url, json=body).status_code == 201  # a bearer token needs no origin


def test_headers_are_strict_on_pages_and_problems(cloud: Cloud) -> None:
    for answer in (
        browser(cloud, "viewer").get("/", headers=HTML),
        as_(cloud, None).get("/login"),
        as_(cloud, None).get("/api/v1/fleet"),
        as_(cloud, "viewer").get("/nowhere"),
    ):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith(("default-src 'self'", "default-src 'none'"))
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_review_loop_over_http(cloud: Cloud) -> None:
    shot, client = sample(cloud, 41), as_(cloud, "labeller")
    tasks = client.get("/api/v1/lines/cells/queue?limit=500").json()["tasks"]
    task = next(task for task in tasks if task["sid"] == shot.sid)
    image = client.get(task["image_url"])
    assert (image.content, image.headers["content-type"]) == (shot.data, "image/png")
    made = client.post(f"/api/v1/samples/{shot.sid}/labels", json={"name": "crack", "note": "left edge"}).json()
    assert (made["author"], made["counts"]) == ("the-labeller", True)
    assert client.get(f"/api/v1/samples/{shot.sid}").json()["label"] == "crack"
    assert client.post(f"/api/v1/labels/{made['id']}/undo").status_code == 201
    assert client.post(f"/api/v1/samples/{shot.sid}/flag", json={"reason": "blurred"}).status_code == 201
    assert client.post(f"/api/v1/samples/{shot.sid}/skip").json()["state"] == "skipped"
    assert client.post(f"/api/v1/samples/{shot.sid}/skip").json()["code"] == "not_open"
    entries = client.get(f"/api/v1/audit?subject={shot.sid}").json()
    assert [entry["action"] for entry in entries] == ["sample_skipped", "sample_flagged"]
    assert client.get("/api/v1/audit/verify").json() == {"holds": True, "broken_at": None}


def test_an_unreadable_image_is_a_download(cloud: Cloud) -> None:
    shot = sample(cloud, 42, data=b"<html><script>alert(1)</script>")
    answer = as_(cloud, "viewer").get(f"/api/v1/samples/{shot.sid}/image")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_problems_are_problem_json(cloud: Cloud) -> None:
    client = as_(cloud, "admin")
    for answer, status, code in (
        (client.get("/api/v1/samples/nope"), 404, "not_found"),
        (client.post("/api/v1/samples/nope/labels", json={}), 422, "invalid"),
        (client.get("/api/v1/nowhere"), 404, "http"),
        (client.post("/api/v1/edges", json={"name": "BAD", "line": "cells"}), 422, "invalid"),
        (client.post("/api/v1/samples/x/flag", content=b"x" * (2 << 20)), 413, "too_large"),
        (client.get("/api/v1/lines/cells/queue?after=nonsense"), 422, "bad_cursor"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_store_that_is_away_is_503(cloud: Cloud) -> None:
    shot = sample(cloud, 43)
    objects = cloud.services.objects
    assert isinstance(objects, MemoryObjects)
    assert cloud.services.landing is not None
    cloud.services.landing.drop(shot.sha256)
    objects.down = True
    answer = as_(cloud, "viewer").get(f"/api/v1/samples/{shot.sid}/image")
    objects.down = False
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


def test_fleet_and_conservation(cloud: Cloud) -> None:
    sample(cloud, 44)
    client = as_(cloud, "viewer")
    assert [edge["name"] for edge in client.get("/api/v1/fleet").json()["edges"]] == ["edge-1"]
    assert client.get("/api/v1/lines/cells/conservation").json()["line"] == "cells"
    assert client.get("/api/v1/lines/nowhere/conservation").status_code == 404


def test_the_session_key_is_not_world_readable(cloud: Cloud) -> None:
    path = cloud.services.settings.cloud.state_dir / "session.key"
    assert path.stat().st_mode & 0o077 == 0


def test_nothing_but_the_trainer_loads_torch() -> None:
    import subprocess
    import sys

    script = "import sys; sys.modules['torch'] = None; import cloud.bootstrap, cloud.cli, cloud.doctor, cloud.serve"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_scheduler_asks_for_the_renewal_of_an_old_adapter_role(tmp_path: Path) -> None:
    """The renewal itself is tested in `tests.cloud.jobs`; here, that the process calls it at all."""
    keys = ceremony(tmp_path / "keys", lines=["cells"], passphrase="a long passphrase")
    days_ago = datetime.now(UTC) - timedelta(days=4)
    ReleaseRepository(tmp_path / "repo", now=lambda: days_ago).create(keys, ["cells"])
    made = Cloud(build(settings_in(tmp_path), objects=MemoryObjects()))
    classes = [NewClass(name="good", defect=False), NewClass(name="crack", defect=True)]
    made.services.lines.create(LineSpec(name="cells", title="Cells", classes=classes))
    made.scheduler.run_due()
    assert [job.kind for job in made.services.jobs.of_line("cells") if job.state == "ready"] == ["propose"]
    assert {tick.name: tick.failed for tick in made.scheduler.ticks if tick.failed} == {}
    made.stop()
