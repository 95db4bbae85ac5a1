"""The dashboard in a real browser: keys, undo, lost connections, policy, narrow screens. Needs chromium on PATH."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from cloud.db.tables import Description, Task
from tests.cloud.dashboard import seed
from tests.cloud.dashboard.conftest import Site

pytestmark = pytest.mark.servers

PAGES = ["/", "/lines/cells", "/lines/modules", "/lines/cells/review", "/fleet", "/rollouts?line=cells",
         "/candidates?line=cells", "/audit", "/login"]  # fmt: skip


def settle(condition: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Wait until the server's side of the story is true."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def wait_in(tab: Any, condition: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Wait while the browser goes on working: Playwright handles its routes only inside its own calls."""
    settle(lambda: tab.wait_for_timeout(50) is None and condition(), within_s=within_s)


def open_queue(tab: Any, site: Site) -> None:
    tab.goto(f"{site.url}/lines/cells/review")
    tab.locator('[data-part="frame"] img').wait_for()


def part(tab: Any, name: str) -> Any:
    return tab.locator(f'[data-part="{name}"]')


def current(tab: Any) -> str:
    return str(part(tab, "sid").inner_text())


def press(tab: Any, *keys: str) -> None:
    for key in keys:
        tab.locator('[data-part="frame"] img').wait_for()
        tab.keyboard.press(key)


def names(site: Site) -> list[str | None]:
    return [name for _, name, _ in site.plant.labels()]


def test_keys_label_accept_skip_and_undo(tab: Any, site: Site) -> None:
    open_queue(tab, site)
    first = current(tab)
    press(tab, "1")
    assert current(tab) != first
    suggested = part(tab, "says").inner_text()
    press(tab, "2", "u", "Space")
    settle(lambda: names(site)[-1] == suggested and "All saved" in part(tab, "sending-text").inner_text())
    assert names(site) in (["functional", "defective", None, suggested], ["functional", suggested])
    second = current(tab)
    press(tab, "x")
    assert current(tab) != second
    settle(lambda: "skip" in site.plant.posts)
    assert part(tab, "done").inner_text() == "2"
    tab.get_by_text("All saved").wait_for()
    assert site.complaints == []


def test_undo_after_saving_goes_to_the_server_and_shows_the_part_again(tab: Any, site: Site) -> None:
    open_queue(tab, site)
    first = current(tab)
    press(tab, "2")
    settle(lambda: names(site) == ["defective"])
    press(tab, "u")
    assert current(tab) == first
    settle(lambda: names(site) == ["defective", None])
    label, undo = site.plant.labels()
    assert undo[0] == label[0]
    assert undo[2] is not None
    press(tab, "1")
    settle(lambda: names(site) == ["defective", None, "functional"])
    press(tab, "u", "u")
    assert part(tab, "said").inner_text() == "There is nothing to take back."


def test_buttons_show_their_keys_and_work_by_mouse(tab: Any, site: Site) -> None:
    open_queue(tab, site)
    keys = tab.locator(".choice kbd").all_inner_texts()
    assert keys == ["1", "2"]
    tab.get_by_role("button", name="defective").click()
    settle(lambda: names(site) == ["defective"])
    tab.keyboard.press("Space")  # after a click the keys still belong to the queue
    settle(lambda: len(names(site)) == 2)


def test_keys_with_modifiers_and_in_the_help_do_nothing(tab: Any, site: Site) -> None:
    open_queue(tab, site)
    first = current(tab)
    for key in ("Alt+1", "Control+1", "9", "q"):
        tab.keyboard.press(key)
    tab.keyboard.press("?")
    part(tab, "help-box").wait_for()
    tab.keyboard.press("1")
    assert current(tab) == first
    part(tab, "help-close").click()
    tab.keyboard.press("h")
    assert part(tab, "map").is_hidden()
    tab.keyboard.press("h")
    assert part(tab, "map").is_visible()
    assert site.plant.posts == []


PAINT = """async ([width, height, region]) => {
    const own = document.querySelector("script[type=module][src*='review']").src;
    const { paint } = await import(new URL("./heat.js", own));
    const canvas = document.createElement("canvas");
    paint(canvas, [1, 1, 1, 1], [2, 2], { naturalWidth: width, naturalHeight: height }, region);
    const pixels = canvas.getContext("2d");
    const seen = (share) => pixels.getImageData(share * canvas.width, canvas.height / 2, 1, 1).data[3] > 0;
    return [canvas.width / canvas.height, seen(0.25), seen(0.75)];
}"""


@pytest.mark.parametrize(("region", "left"), [(None, True), ([0.5, 0.1, 0.5, 0.8], False)])
def test_the_map_lies_over_what_the_model_saw(tab: Any, site: Site, region: list[float] | None, left: bool) -> None:
    open_queue(tab, site)
    assert tab.evaluate(PAINT, [400, 200, region]) == [2, left, True]


def test_a_flag_is_sent_once(tab: Any, site: Site) -> None:
    open_queue(tab, site)
    press(tab, "f", "f")
    assert part(tab, "flagged").is_visible()
    settle(lambda: site.plant.posts == ["flag"])
    press(tab, "1")
    assert part(tab, "flagged").is_hidden()


def test_labels_made_without_a_connection_are_kept_over_a_reload_and_sent_once(tab: Any, site: Site) -> None:
    open_queue(tab, site)
    site.plant.down = True
    press(tab, "1", "2", "1")
    tab.get_by_text("No connection: 3 kept on this computer").wait_for()
    assert tab.locator(".trail .pending").count() == 3
    assert site.plant.labels() == []
    tab.reload()
    tab.get_by_text("3 kept on this computer").wait_for()
    site.plant.down = False
    settle(lambda: len(names(site)) == 3)
    tab.get_by_text("All saved").wait_for()
    assert names(site) == ["functional", "defective", "functional"]
    assert len({sid for sid, _, _ in site.plant.labels()}) == 3


def test_an_undo_without_a_connection_sends_nothing_or_both(tab: Any, site: Site) -> None:
    open_queue(tab, site)
    site.plant.down = True
    press(tab, "1")
    tab.get_by_text("No connection: 1 kept").wait_for()
    press(tab, "u")
    site.plant.down = False
    press(tab, "2")
    settle(lambda: "defective" in names(site))
    tab.get_by_text("All saved").wait_for()
    assert names(site) in (["defective"], ["functional", None, "defective"])


def test_a_lost_answer_does_not_make_two_labels(tab: Any, site: Site) -> None:
    open_queue(tab, site)
    site.plant.lose_answers = 1
    press(tab, "1")
    tab.get_by_text("No connection: 1 kept").wait_for()
    tab.get_by_text("All saved").wait_for()
    assert names(site) == ["functional"]
    press(tab, "u")
    settle(lambda: names(site) == ["functional", None])


def test_a_refused_label_stays_until_somebody_dismisses_it(tab: Any, site: Site) -> None:
    open_queue(tab, site)
    site.plant.refuse = True
    press(tab, "1")
    tab.get_by_text("was not taken: This sample was withdrawn.").wait_for()
    tab.reload()
    tab.get_by_text("was not taken: This sample was withdrawn.").wait_for()
    site.plant.refuse = False
    tab.get_by_role("button", name="Try again").click()
    settle(lambda: names(site) == ["functional"])
    part(tab, "refusals").wait_for(state="hidden")


def test_another_person_at_the_desk_does_not_send_the_first_ones_labels(tab: Any, site: Site) -> None:
    open_queue(tab, site)
    site.plant.down = True
    press(tab, "1")
    tab.get_by_text("No connection: 1 kept").wait_for()
    site.plant.actor, site.plant.down = "ben", False
    tab.reload()
    tab.get_by_text("1 decisions by anna wait on this computer").wait_for()
    press(tab, "2")
    settle(lambda: names(site) == ["defective"])
    site.plant.actor = "anna"
    tab.reload()
    settle(lambda: names(site) == ["defective", "functional"])


def test_the_queue_ends_and_says_so(tab: Any, site: Site) -> None:
    open_queue(tab, site)
    for done in range(12):
        assert part(tab, "work").is_visible(), f"ended after {done}"
        press(tab, "1")
    tab.get_by_text("Nothing to review").wait_for()
    settle(lambda: len(names(site)) == 12)


def test_names_with_markup_are_text(tab: Any, site: Site) -> None:
    with site.plant.services.begin() as session:
        session.connection().exec_driver_sql("UPDATE tasks SET state = 'open' WHERE line = 'modules'")
    tab.goto(f"{site.url}/lines/modules/review")
    tab.get_by_role("button", name="<b>scratch</b>").wait_for()
    assert site.complaints == []


def describe(site: Site, texts: dict[str, str | None], *, queue: str) -> None:
    """Sentences in these languages for every part of the line that waits, all of them in one queue."""
    with site.plant.services.begin() as session:
        session.execute(update(Task).where(Task.state == "open").values(queue=queue))
        for sid in session.scalars(select(Task.sid).where(Task.line == "cells", Task.state == "open")):
            for language, text in texts.items():
                session.add(Description(sid=sid, language=language, text=text, base_sha=seed.SHA, release=4,
                                        dropped=None if text else "garbled", created_at=seed.NOW))  # fmt: skip


HOSTILE = '<img src="x" onerror="document.title=1"><b>a scratch</b> " \' </details>'


def test_a_models_words_are_marked_and_are_text(tab: Any, site: Site) -> None:
    """A checkpoint is foreign: what it generates must not become markup."""
    describe(site, {"en": HOSTILE, "zh": "一道划痕。"}, queue="value")
    open_queue(tab, site)
    words = part(tab, "words")
    assert words.locator("summary").inner_text() == "The model’s words, not a measurement"
    assert part(tab, "words-text").inner_text() == HOSTILE
    assert part(tab, "words-text").get_attribute("lang") == "en"
    assert part(tab, "words-from").inner_text() == "About the decision of release 4"
    assert words.locator("img, b").count() == 0
    assert tab.title() != "1"
    assert site.complaints == []


def test_where_labels_measure_the_words_are_folded(tab: Any, site: Site) -> None:
    describe(site, {"en": "a scratch is on the plate ."}, queue="estimate")
    open_queue(tab, site)
    assert part(tab, "words").is_visible()
    assert not part(tab, "words-text").is_visible()
    part(tab, "words").locator("summary").click()
    assert part(tab, "words-text").inner_text() == "a scratch is on the plate ."
    press(tab, "1")
    assert not part(tab, "words-text").is_visible()


@pytest.mark.parametrize("texts", [{}, {"en": None, "zh": None}])
def test_without_words_nothing_stands_in_their_place(tab: Any, site: Site, texts: dict[str, None]) -> None:
    describe(site, dict(texts), queue="value")
    open_queue(tab, site)
    assert not part(tab, "words").is_visible()
    assert part(tab, "words-text").text_content() == ""


def test_a_chinese_page_takes_the_chinese_words_else_those_there_are(chromium: Any, site: Site) -> None:
    describe(site, {"en": "a scratch.", "zh": "一道划痕。"}, queue="value")
    context = chromium.new_context(locale="zh-CN")
    page = context.new_page()
    open_queue(page, site)
    assert part(page, "words-text").inner_text() == "一道划痕。"
    assert part(page, "words").locator("summary").inner_text() == "模型自己的话，并非测量结果"
    with site.plant.services.begin() as session:
        session.execute(delete(Description).where(Description.language == "zh"))
    page.reload()
    page.locator('[data-part="frame"] img').wait_for()
    assert part(page, "words-text").inner_text() == "a scratch."
    assert part(page, "words-text").get_attribute("lang") == "en"
    context.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_no_page_breaks_the_policy_or_scrolls_sideways(chromium: Any, site: Site, width: int, language: str) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 844}, locale=language, color_scheme="dark")
    page = context.new_page()
    page.on("console", lambda said: said.type == "error" and site.complaints.append(f"{page.url}: {said.text}"))
    page.on("pageerror", lambda error: site.complaints.append(f"{page.url}: {error}"))
    for address in PAGES:
        page.goto(site.url + address)
        page.locator("main").wait_for()
        if address == "/lines/cells":
            page.locator("edge-chart canvas").wait_for()
        wide = page.locator("html").evaluate("element => element.scrollWidth")
        assert wide <= width, f"{address} is {wide} px wide"
    context.close()
    assert site.complaints == []


def test_the_page_follows_the_data_and_its_clock(tab: Any, site: Site) -> None:
    tab.goto(f"{site.url}/")
    tab.get_by_text("1 box offline").first.wait_for()
    clock = tab.locator("[data-clock]")
    before = clock.inner_text()
    site.plant.clock += 3_600_000_000
    with site.plant.services.begin() as session:
        session.connection().exec_driver_sql("UPDATE edges SET online = 1, seen_at = seen_at + 1")
    tab.get_by_text("1 box offline").first.wait_for(state="hidden")
    assert clock.inner_text() != before
    assert tab.locator("#live").count() == 1
    assert re.fullmatch(r"\d\d:\d\d:\d\d", clock.inner_text())


def test_the_event_stream_opens_however_late_its_script_arrives(tab: Any, site: Site) -> None:
    def late(route: Any) -> None:
        time.sleep(0.5)
        route.continue_()

    tab.route("**/hx-sse*", late)
    with tab.expect_request("**/events*"):
        tab.goto(f"{site.url}/")


def test_a_refresh_that_fails_is_asked_for_again_and_the_clock_waits_for_it(tab: Any, site: Site) -> None:
    tab.goto(f"{site.url}/")
    offline = tab.get_by_text("1 box offline").first
    offline.wait_for()
    before = tab.locator("[data-clock]").inner_text()
    failing, tries = [True], []

    def answer(route: Any) -> None:
        if not failing:
            route.continue_()
            return
        tries.append(1)
        route.abort()

    tab.route(f"{site.url}/", answer)
    with site.plant.services.begin() as session:
        session.connection().exec_driver_sql("UPDATE edges SET online = 1, seen_at = seen_at + 1")
    wait_in(tab, lambda: tries)
    site.plant.clock += 60_000_000  # only now: before the change was heard, the clock may move with any heartbeat
    wait_in(tab, lambda: len(tries) >= 2)
    assert tab.locator("[data-clock]").inner_text() == before
    failing.clear()
    offline.wait_for(state="hidden")
    wait_in(tab, lambda: tab.locator("[data-clock]").inner_text() != before)


def test_the_clock_turns_abnormal_when_the_server_falls_silent(tab: Any, site: Site) -> None:
    tab.clock.install()
    tab.route("**/events*", lambda route: route.abort())
    tab.goto(f"{site.url}/")
    assert tab.get_by_text("connection lost").count() == 0
    tab.clock.run_for(20_000)
    tab.get_by_text("connection lost").wait_for()
    assert "stale" in (tab.locator("[data-freshness]").get_attribute("class") or "")


def test_a_page_survives_signing_out_elsewhere(tab: Any, site: Site) -> None:
    tab.goto(f"{site.url}/fleet")
    tab.get_by_text("edge-1").first.wait_for()
    site.plant.actor = None
    with site.plant.services.begin() as session:
        session.connection().exec_driver_sql("UPDATE edges SET seen_at = seen_at + 1")
    tab.wait_for_timeout(4500)
    assert tab.get_by_text("edge-1").first.is_visible()
