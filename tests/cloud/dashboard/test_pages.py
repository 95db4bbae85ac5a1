"""Every page in both languages on a seeded database, and on an empty one."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, func, select

from cloud.accuracy.service import AccuracyService
from cloud.dashboard.pages import POLICY, local_path
from cloud.db.tables import AggregateRow, Label, Line, Sample, Task
from tests.cloud.dashboard import seed
from tests.cloud.dashboard.plant import Plant, build

PAGES = ["/", "/lines/cells", "/lines/modules", "/review", "/lines/cells/review", "/fleet", "/fleet?line=cells",
         "/rollouts?line=cells", "/rollouts?line=modules", "/candidates?line=cells", "/candidates?line=modules",
         "/audit", "/audit?subject=nothing", "/login"]  # fmt: skip
CHINESE = {"accept-language": "zh-CN,zh;q=0.9,en;q=0.5"}


class Inspector(HTMLParser):
    """Collects what a strict policy forbids and what a screen reader needs."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.nameless: list[str] = []
        self.ids: list[str] = []
        self.language = ""
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "html":
            self.language = given.get("lang") or ""
        if "id" in given:
            self.ids.append(str(given["id"]))
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name.startswith(("on", "hx-on"))]
        if (tag == "script" and "src" not in given) or tag == "style":
            self.inline.append(tag)
        if any((value or "").startswith("javascript:") for value in given.values()):
            self.inline.append(f"{tag} javascript:")
        if tag == "img" and "alt" not in given:
            self.nameless.append(tag)


def inspect(text: str) -> Inspector:
    found = Inspector()
    found.feed(text)
    return found


@pytest.mark.parametrize("address", PAGES)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_answers_in_both_languages(browse: TestClient, address: str, language: str) -> None:
    answer = browse.get(address, headers=CHINESE if language == "zh" else {"accept-language": "en"})
    assert answer.status_code == 200
    page = inspect(answer.text)
    assert page.language == {"en": "en", "zh": "zh-Hans"}[language]
    assert page.inline == []
    assert page.nameless == []
    assert len(page.ids) == len(set(page.ids))
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "%(" not in answer.text
    assert "%%" not in answer.text


def _words(text: str) -> str:
    """What a person reads: no tags, no scripts' attributes, no parts marked as English."""
    text = re.sub(r'<(span|p|button)\b[^>]*lang="en"[^>]*>.*?</\1>', " ", text, flags=re.S)
    return re.sub(r"<[^>]+>", " ", text)


def test_a_chinese_page_has_no_english_sentence(browse: TestClient) -> None:
    names = {"edgeloop", "English", "anna", "gate"}
    for address in ("/", "/lines/cells", "/fleet", "/login"):
        words = re.findall(r"[A-Za-z]{4,}(?: [a-z]{2,}){2,}", _words(browse.get(address, headers=CHINESE).text))
        assert [word for word in words if word not in names] == []


def test_the_plant_says_when_there_are_too_few_labels(browse: TestClient) -> None:
    text = browse.get("/", headers={"accept-language": "en"}).text
    assert "not enough labels: 12 of 20" in text
    assert "标注不足：12 / 20" in browse.get("/", headers=CHINESE).text


def test_the_plant_shows_accuracy_with_interval_parts_money_and_release(browse: TestClient) -> None:
    text = re.sub(r"\s+", " ", _words(browse.get("/", headers={"accept-language": "en"}).text))
    assert "True accuracy: 89.4 %" in text
    assert "true accuracy, 95% interval 85.3% – 93.5%, from 62 labels, period" in text
    assert re.search(r"Escape 4\.2% of defective parts ≈ 13 parts a period, ≈ 479 EUR", text)
    assert "1 box offline" in text


def test_pages_stand_on_the_real_accuracy_service(tmp_path: Path) -> None:
    plant = build(tmp_path)
    services = plant.services
    services.accuracy = AccuracyService(begin=services.begin, reads=services.reads, now=services.now)
    client = TestClient(plant.app, headers={"accept-language": "en"})
    text = client.get("/lines/cells").text
    assert "not enough labels: 14 of 20" in text
    assert client.get("/").status_code == 200


def test_the_parts_and_the_money_of_mistakes_are_the_accuracy_services(tmp_path: Path) -> None:
    plant = build(tmp_path)
    services = plant.services
    services.accuracy = AccuracyService(begin=services.begin, reads=services.reads, now=services.now)
    _label_the_last_hour(services)
    row = [one for one in services.accuracy.by_period("cells") if one.status == "ok"][-1]
    assert row.escaped.value != pytest.approx(row.escape.value), "of all parts, not of the defective ones"
    client = TestClient(plant.app, headers={"accept-language": "en"})
    for address in ("/", "/lines/cells"):
        text = re.sub(r"\s+", " ", _words(client.get(address).text))
        for name, share, price in (("Escape", row.escaped, 38.0), ("Overkill", row.overkilled, 4.5)):
            count = share.value * row.n_parts
            assert round(count) > 10, "a figure that could be told from none"
            shown = re.search(rf"{name} [^≈]*≈ ([\d,]+) parts a period, ≈ ([\d,]+) EUR", text)
            assert shown is not None, text
            assert [int(found.replace(",", "")) for found in shown.groups()] == [round(count), round(count * price)]


def _label_the_last_hour(services: Any) -> None:
    """Everybody's word on the newest period: passed parts that were bad, and rejected parts that were good."""
    with services.begin() as session:
        waiting = select(Sample).join(Task, Task.sid == Sample.sid).where(Task.queue == "estimate")
        last = select(func.max(AggregateRow.period)).where(AggregateRow.line == "cells").scalar_subquery()
        for number, sample in enumerate(session.scalars(waiting.where(Sample.line == "cells", Sample.period == last))):
            sample.verdict = "pass" if number % 2 else "reject"
            sample.defect_score = 0.1 if number % 2 else 0.9
            session.execute(delete(Label).where(Label.sid == sample.sid))
            name = ("functional", "defective")[number % 3 == 0]
            session.add(Label(sid=sample.sid, line="cells", name=name, author="anna", method="single",
                              queue="estimate", labelled_at=sample.stored_at + 1))  # fmt: skip


def test_an_unknown_line_is_a_page_with_a_way_back(browse: TestClient) -> None:
    answer = browse.get("/lines/none")
    assert answer.status_code == 404
    assert "There is no line &#39;none&#39;" in answer.text
    assert 'href="/"' in answer.text


def test_what_people_wrote_is_text(browse: TestClient) -> None:
    text = browse.get("/audit").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_the_audit_log_pages_without_gaps(browse: TestClient) -> None:
    first = browse.get("/audit", headers={"accept-language": "en"}).text
    older = re.search(r'href="(/audit\?subject=&amp;before=\d+)"', first)
    assert older is not None
    second = browse.get(older.group(1).replace("&amp;", "&")).text
    digests = [re.findall(r'title="([0-9a-f]{64})"', text) for text in (first, second)]
    assert [len(found) for found in digests] == [50, 10]
    assert not set(digests[0]) & set(digests[1])


@pytest.mark.parametrize(("query", "status"), [("before=x", 422), ("before=0", 422), ("before=99999999", 200)])
def test_bad_page_marks_are_refused(browse: TestClient, query: str, status: int) -> None:
    assert browse.get(f"/audit?{query}").status_code == status


def test_checking_the_chain_finds_a_changed_entry(tmp_path: Path) -> None:
    plant = build(tmp_path)
    client = TestClient(plant.app)
    assert "The chain holds" in client.get("/audit/check", headers={"accept-language": "en"}).text
    with plant.services.begin() as session:
        session.connection().exec_driver_sql("UPDATE audit SET actor = 'someone else' WHERE id = 7")
    assert "breaks at entry 7" in client.get("/audit/check", headers={"accept-language": "en"}).text


def test_rollout_totals_sum_to_the_boxes(browse: TestClient) -> None:
    text = browse.get("/rollouts?line=cells", headers={"accept-language": "en"}).text
    for totals in re.findall(r'<ul class="totals">(.*?)</ul>', text, flags=re.S):
        counts = [int(count) for count in re.findall(r"<b[^>]*>(\d+)</b>", totals)]
        total = re.search(r"= (\d+) box", totals)
        assert len(counts) == 5
        assert total is not None
        assert sum(counts) == int(total.group(1)) == 3
    assert "it failed on probation and was taken back" in text
    assert "rollback of release 3" in text


def test_a_gate_report_is_told_in_words(browse: TestClient) -> None:
    text = browse.get("/candidates?line=cells", headers={"accept-language": "en"}).text
    assert "Refused: 1 of 4 rules does not hold." in text
    assert "No class is forgotten" in text
    assert "recall 91.2 % -&gt; 78.0 %" in text
    assert "The gate has not judged it yet." in text
    assert "没有遗忘任何类别" in browse.get("/candidates?line=cells", headers=CHINESE).text


@pytest.mark.parametrize("address", ["/", "/review", "/fleet", "/rollouts", "/candidates", "/audit"])
def test_an_empty_plant_says_what_to_do_next(tmp_path: Path, address: str) -> None:
    answer = TestClient(build(tmp_path, seeded=False).app).get(address)
    assert answer.status_code == 200
    assert '<div class="empty">' in answer.text


def test_a_line_without_anything_yet(tmp_path: Path) -> None:
    plant = build(tmp_path, seeded=False)
    with plant.services.begin() as session:
        session.add(Line(name="cells", title="New", classes=seed.CLASSES, created_at=seed.START))
    client = TestClient(plant.app, headers={"accept-language": "en"}, follow_redirects=False)
    assert "no part inspected yet" in client.get("/").text
    assert "No period is complete yet" in client.get("/lines/cells").text
    one = client.get("/review")
    assert (one.status_code, one.headers["location"]) == (303, "/lines/cells/review")


def test_strangers_sign_in_and_come_back(tmp_path: Path) -> None:
    plant = build(tmp_path)
    plant.actor = None
    client = TestClient(plant.app, follow_redirects=False)
    answer = client.get("/fleet?line=cells")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Ffleet%3Fline%3Dcells"
    assert client.get("/events", headers={"accept": "text/event-stream"}).status_code == 401
    assert client.get("/", headers={"hx-request": "true"}).status_code == 401


def test_the_sign_in_form_names_the_error_and_goes_back_only_to_this_server(shown: Plant, browse: TestClient) -> None:
    answer = browse.get("/login?error=bad_token&next=//elsewhere.example/", headers={"accept-language": "en"})
    assert answer.status_code == 401
    assert "This token is not known here" in answer.text
    assert 'name="next" value="/"' in answer.text


@pytest.mark.parametrize(
    ("target", "path"),
    [("/fleet?line=a", "/fleet?line=a"), ("//x", "/"), ("/\\x", "/"), ("https://x", "/"), ("", "/"), (None, "/"),
     ("/a\r\nSet-Cookie: b", "/"), ("javascript:alert(1)", "/")],
)  # fmt: skip
def test_local_path(target: str | None, path: str) -> None:
    assert local_path(target) == path


def test_choosing_a_language_is_remembered(browse: TestClient) -> None:
    answer = browse.post("/language", data={"code": "zh", "next": "/fleet"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/fleet")
    assert "edgeloop_language=zh" in answer.headers["set-cookie"]
    browse.cookies.clear()
    assert browse.post("/language", data={"code": "xx"}).status_code == 422
    with_cookie = browse.get("/fleet", headers={"cookie": "edgeloop_language=zh", "accept-language": "en"})
    assert inspect(with_cookie.text).language == "zh-Hans"


def test_static_files_named_by_digest_are_kept_for_ever(browse: TestClient) -> None:
    page = browse.get("/lines/cells").text
    assets = re.findall(r'"(/static/[^"]+)"', page)
    assert len(assets) >= 7
    for address in assets:
        answer = browse.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert browse.get("/static/app.css").headers["cache-control"] == "no-cache"
    assert browse.get("/static/../pages.py").status_code == 404
