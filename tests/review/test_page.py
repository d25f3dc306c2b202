"""The page in a real browser, by keyboard; left out where there is no Chromium."""

from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from rtsx.review import create_review, merge_review, open_review, serve_review
from tests.review.reviewers import answers, image, outlines_of

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := which(name))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="this machine has no Chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def test_a_batch_by_keyboard_through_a_reload_and_a_crash_of_the_server(tmp_path: Path, browser: Any) -> None:
    place = str(tmp_path / "review")
    table = outlines_of(4)
    table.loc[0, "footprint_id"] = "<img src=x onerror=document.title='broken'>"
    create_review(
        table,
        place,
        cubes={"2024": "now", "2019": "then"},
        opener=lambda _: image(),
        repeats=0.0,
        class_name="<b>slump</b>",
    )
    review = open_review(place)
    page = browser.new_page(viewport={"width": 1400, "height": 800})
    state = lambda name: page.wait_for_selector(f"body[data-state={name}]", timeout=20_000)  # noqa: E731
    with serve_review(review, opener=lambda _: image()) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        page.goto(f"{address}?token={review.admit('ada')}")
        state("reviewing")
        page.wait_for_selector('svg[data-view="wide"][data-ready]', timeout=20_000)
        page.wait_for_selector('svg[data-image="1"][data-ready]')  # the other year beside it
        assert "<b>slump</b>" in page.inner_text("header")
        assert page.locator("figcaption").all_inner_texts() == [
            "2024, close: 250 m",
            "2024, wide: 1500 m",
            "2019, close: 250 m",
        ]
        assert page.locator("#panels .outline").count() == 3
        page.keyboard.press("o")
        assert page.locator("#panels .outline").count() == 0
        page.keyboard.press("o")
        page.keyboard.press("1")
        page.set_viewport_size({"width": 390, "height": 800})  # of a telephone, which has no keys
        page.locator('button[data-key="2"]').click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.set_viewport_size({"width": 1400, "height": 800})
        page.keyboard.press("Backspace")
        page.keyboard.press("3")
        page.keyboard.press("c")
        page.keyboard.type("a lake & <more>")
        page.keyboard.press("Enter")
        # A missed one, drawn in the wide picture.
        page.keyboard.press("a")
        frame = page.locator('svg[data-view="wide"]').bounding_box()
        middle = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
        for dx, dy in ((-60, -60), (60, -60), (60, 60), (-60, 60)):
            page.mouse.click(middle[0] + dx, middle[1] + dy)
        page.keyboard.press("Enter")
        assert page.locator("#panels .added").count() == 3
        page.screenshot(path=str(tmp_path / "review.png"))
        page.reload()
        state("reviewing")
        assert "2 reviewed here" in page.inner_text("#progress")
    # The server is gone: work goes on, and what is sent waits.
    page.keyboard.press("2")
    page.keyboard.press("2")
    state("complete")
    page.keyboard.press("Enter")
    state("offline")
    assert review.verdicts() == ()
    with serve_review(review, opener=lambda _: image(), port=port):
        state("done")
    page.close()
    (sent,) = review.verdicts()
    order = review.rounds()[0].batches[0].outlines
    assert [(one.outline, one.verdict) for one in sent.answers] == list(
        zip(order, ("target", "unsure", "other", "other"), strict=True)
    )
    assert sent.answers[2].comment == "a lake & <more>"
    merged = merge_review(review)
    assert merged.status.is_complete
    (added,) = merged.added.geometry
    scale = 1500 / min(frame["width"], frame["height"])
    assert added.area == pytest.approx((120 * scale) ** 2, rel=0.03)


def test_neither_a_full_browser_nor_a_refused_batch_nor_a_claim_that_fails_loses_verdicts(
    tmp_path: Path, browser: Any
) -> None:
    place = str(tmp_path / "review")
    review = create_review(
        outlines_of(4), place, cubes={"2024": "now"}, opener=lambda _: image(), batch_size=2, repeats=1.0
    )
    (theirs,) = review.claim("bob")
    review.submit(answers(review, theirs))
    page = browser.new_page()
    state = lambda name: page.wait_for_selector(f"body[data-state={name}]", timeout=20_000)  # noqa: E731
    full = """() => { const store = localStorage; for (let size = 1 << 22; size; size >>= 1)
        try { for (let n = 0; n < 9; n++) store.setItem(`full ${size} ${n}`, "x".repeat(size)) } catch {} }"""
    with serve_review(review, opener=lambda _: image()) as address:
        page.clock.install()
        page.goto(address)
        page.evaluate(full)
        page.goto(f"{address}?token={review.admit('ada')}")
        state("reviewing")
        assert "storage of this browser is full" in page.inner_text("#message")
        page.evaluate("() => localStorage.clear()")
        page.keyboard.press("1")
        assert "full" not in page.inner_text("#message")
        page.reload()  # verdicts are there, and the batch is asked for again
        state("reviewing")
        assert "1 reviewed here" in page.inner_text("#progress")
        for _ in range(3):
            page.keyboard.press("1")
        state("complete")
        # One of the two batches was sent before from elsewhere.
        first, second = review.claim("ada")
        review.submit(answers(review, first, unsure=1.0))
        page.keyboard.press("Enter")
        state("refused")
        page.route("**/api/claim", lambda route: route.abort())
        page.keyboard.press("Delete")
        state("offline")
        page.unroute("**/api/claim")
        page.clock.fast_forward(6000)
        state("done")
    page.close()
    sent = {(one.batch, one.reviewer): [answer.verdict for answer in one.answers] for one in review.verdicts()}
    assert sent[second.batch, "ada"] == ["target", "target"]
    assert set(sent[first.batch, "ada"]) == {"unsure"}
