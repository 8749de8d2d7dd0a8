"""The report in a real browser: sort, filter, keyboard, no fetch, no script from a name, dark, phone, print, axe."""

import json
import os
import re
import shutil

import pytest
from render_records import make_baseline, make_run, write_history

from harness.report.html import render_html
from harness.report.model import build_report
from harness.report.standing import Standing
from harness.store.history import load_history

REQUIRED = os.environ.get("HARNESS_REQUIRE_BROWSER") == "1"  # CI sets it: there a missing browser is a failure
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE = {"width": 390, "height": 844}
TIMEOUT_MS = 10_000


def unavailable(reason):
    if REQUIRED:
        pytest.fail(f"HARNESS_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        unavailable("playwright is not installed (pip install 'nn-engine-harness[browser]')")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        unavailable("no Chromium on PATH (apt install chromium, or set CHROMIUM to its path)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """Write three pages: a night with history, a long run, and a small one for the slow checks."""
    folder = tmp_path_factory.mktemp("pages")
    nights = folder / "nights"
    nights.mkdir()
    write_history(nights, n_runs=40, n_cases=6)
    night = render_html(build_report(*make_run(27), previous=make_baseline(27), history=load_history(nights)))
    (folder / "night.html").write_text(night, encoding="utf-8")
    (folder / "small.html").write_text(
        render_html(build_report(*make_run(9), history=load_history(nights))), encoding="utf-8"
    )
    (folder / "long.html").write_text(
        render_html(build_report(*make_run(90, n_images=300), full_cases=20)), encoding="utf-8"
    )
    return folder


@pytest.fixture
def open_page(browser, pages):
    """Return a function that opens a page and fails the test when the page logs, throws or fetches anything."""
    contexts, troubles = [], []

    def open_(name="night.html", fragment="", **options):
        context = browser.new_context(**({"viewport": {"width": 1360, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", lambda message: troubles.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: request.url.startswith(("file://", "data:", "blob:")) or troubles.append(request.url),
        )
        page.goto((pages / name).as_uri() + fragment)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert troubles == []


def column(page, number):
    # Not the inner texts: those of rows off the screen, which are not laid out, are empty.
    return page.locator(f".matrix tbody tr:visible > :nth-child({number})").all_text_contents()


def standings(page):
    return [text.split()[0] for text in column(page, 1)]


def percent(text):
    return float(text.split("%")[0].replace("\u2212", "-")) if "%" in text else None


def test_sorting_by_a_header(open_page):
    page = open_page()
    header = page.locator(".matrix").get_by_role("columnheader", name="Top-1")
    before = column(page, 5)
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    values = [percent(text) for text in column(page, 5)]
    known = [value for value in values if value is not None]
    assert known == sorted(known)
    assert values[: len(known)] == known  # what has no value stays last
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    values = [percent(text) for text in column(page, 5)]
    assert values[: len(known)] == sorted(known, reverse=True)
    page.locator(".matrix").get_by_role("columnheader", name="Verdict").get_by_role("button").click()
    assert column(page, 1)[0].split() == ["regressed", "fp32"]
    assert page.locator(".matrix [aria-sort]").count() == 1
    page.get_by_role("button", name="Clear").click()
    page.locator(".matrix [aria-sort]").wait_for(state="detached")
    assert column(page, 5) == before


def test_times_sort_by_value_not_by_text(open_page):
    page = open_page()
    page.locator(".matrix thead button").nth(9).click()  # batch 100: from µs to ms
    units = {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}
    cells = [found.groups() for text in column(page, 10) if (found := re.match(r"([\d.,]+)\u00a0([nµm]?s)", text))]
    values = [float(number.replace(",", "")) * units[unit] for number, unit in cells]
    assert values == sorted(values)
    assert len(values) > 20
    assert {unit for _, unit in cells} == {"µs", "ms"}


def test_filters_show_what_fits_and_say_how_many(open_page):
    page = open_page()
    shown = page.locator("#shown")
    assert shown.inner_text() == "all 27 cases"
    assert shown.get_attribute("aria-live") == "polite"
    page.locator("#find").fill("LENET5 openvino")
    assert set(column(page, 3)) == {"openvino"}
    assert shown.inner_text() == "3 of 27 cases"
    assert page.locator("details.case:visible").count() == 3
    page.get_by_label("Precision", exact=True).select_option("int8")
    assert shown.inner_text() == "1 of 27 cases"
    page.locator("#find").fill("no such case")
    assert shown.inner_text() == "0 of 27 cases"
    page.get_by_role("button", name="Clear").click()
    page.locator("#shown", has_text="all 27 cases").wait_for()
    page.get_by_label("Outcome", exact=True).select_option("look")
    assert sorted(set(standings(page))) == ["error", "inconclusive", "regressed"]


def test_counts_are_filters(open_page):
    page = open_page()
    button = page.get_by_role("button", name="3 unsupported")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert set(standings(page)) == {"unsupported"}
    button.click()
    assert len(column(page, 1)) == 27


def test_keyboard_alone_sorts_filters_and_opens(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.keyboard.type("mlp int8")
    assert len(column(page, 1)) == 3
    header = page.locator(".matrix").get_by_role("columnheader", name="Model").get_by_role("button")
    header.focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.locator(".matrix").get_by_role("columnheader", name="Model").get_attribute("aria-sort") == "ascending"
    link = page.locator(".matrix tbody tr:visible a").first
    anchor = link.get_attribute("href")
    link.focus()
    page.keyboard.press("Enter")
    page.locator(f"details.case[open]:has({anchor})").wait_for()


def test_a_link_opens_its_case_even_when_filtered_away(open_page):
    page = open_page(fragment="#case-mlp-ort-int8")
    assert page.locator("details:has(#case-mlp-ort-int8)").evaluate("section => section.open")
    page.get_by_label("Backend", exact=True).select_option("trt")
    page.locator("a[href='#case-lenet5-ort-int8']").first.evaluate("link => link.click()")
    page.wait_for_selector("#case-lenet5-ort-int8", state="visible")


def test_sections_of_a_long_run_unfold_when_opened(open_page):
    page = open_page("long.html")
    waiting = page.locator(".body[data-stored]")
    assert waiting.count() == 90 - 12
    anchor = waiting.last.get_attribute("id")
    page.locator(f"details:has(#{anchor.replace('.', chr(92) + '.')}) summary").click()
    section = page.locator(f"[id='{anchor}']")
    section.get_by_role("heading", name="Build").wait_for()
    assert section.get_by_role("button", name="Copy the command").count() == 1
    assert waiting.count() == 90 - 12 - 1
    other = page.locator(".body[data-stored]").first.get_attribute("id")
    page.evaluate("anchor => { location.hash = anchor }", other)
    page.locator(f"[id='{other}']").get_by_role("heading", name="Build").wait_for()


def test_hostile_names_do_not_run(open_page):
    page = open_page("long.html")  # `open_page` fails on any dialog, error or request
    page.evaluate("document.querySelectorAll('details').forEach(section => { section.open = true })")
    page.locator(".body[data-stored]").last.wait_for(state="detached")
    assert page.locator("script").count() == 2
    assert page.locator("img[src='x']").count() == 0
    assert "<script>alert(1)</script>" in page.locator("#case-mlp-trt-int8").text_content()


def test_the_command_is_copied(open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the command").first.click()
    page.get_by_text("Copied").wait_for()
    assert (
        page.evaluate("navigator.clipboard.readText()")
        == "pytest suites/ -k 'lenet5-openvino-int8' --score-images 2000"
    )


def test_it_reads_without_scripts(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("h1").inner_text().startswith("lenet5-openvino-int8 regressed: 14 lost, 0 gained")
    assert page.locator(".matrix tbody tr").count() == 27
    assert not page.locator(".filters").is_visible()
    assert page.locator("#case-lenet5-openvino-int8").is_visible()  # the bad cases stand open
    flips = page.locator("#case-lenet5-openvino-int8 .flips li")
    assert flips.count() > 0
    assert flips.locator("img").count() == flips.count()


def test_pictures_are_crisp_and_shown(open_page):
    page = open_page()
    picture = page.locator("#case-lenet5-openvino-int8 img").first
    picture.scroll_into_view_if_needed()
    assert picture.evaluate(
        "image => [image.complete, image.naturalWidth, getComputedStyle(image).imageRendering]"
    ) == [
        True,
        28,
        "pixelated",
    ]


def luminance(color):
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", color)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_dark_and_light_reach_the_plots(open_page):
    for scheme, is_dark in (("light", False), ("dark", True)):
        page = open_page(color_scheme=scheme)
        assert (luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.2) is is_dark
        ink = page.locator(".plot text").first.evaluate("text => getComputedStyle(text).fill")
        assert (luminance(ink) > 0.6) is is_dark
        grid = page.locator(".rounds .grid").first.evaluate("path => getComputedStyle(path).stroke")
        assert (luminance(grid) < 0.4) is is_dark


@pytest.mark.parametrize("name", ["night.html", "long.html"])
def test_a_phone_does_not_scroll_sideways(open_page, name):
    page = open_page(name, viewport=PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(section => { section.open = true })")
    page.locator(".body[data-stored]").last.wait_for(state="detached")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    first = page.locator(".matrix tbody tr").first
    box = first.bounding_box()
    assert box["width"] <= PHONE["width"]
    assert page.get_by_label("Sort by", exact=True).is_visible()
    page.get_by_label("Sort by", exact=True).select_option(label="Top-1")
    values = [percent(text) for text in column(page, 5) if "%" in text]
    assert values == sorted(values)


def test_print_leaves_controls_out_and_words_in(open_page):
    page = open_page()
    page.emulate_media(media="print")
    assert not page.locator(".filters").is_visible()
    assert not page.locator("nav").is_visible()
    assert not page.get_by_role("button", name="Copy the command").first.is_visible()
    assert page.locator(".matrix tbody tr .tag").first.is_visible()
    shape = page.locator(".matrix .tag.s-regressed").first.evaluate(
        "tag => { const s = getComputedStyle(tag, '::before'); return [s.maskImage.slice(0, 9), s.printColorAdjust] }"
    )
    assert shape == ['url("data', "exact"]
    width = page.evaluate("[document.querySelector('.matrix').scrollWidth, document.documentElement.clientWidth]")
    assert width[0] <= width[1]
    assert len(page.pdf(prefer_css_page_size=True)) > 20_000


def test_filters_are_kept_in_the_address(open_page):
    page = open_page()
    page.locator("#by-backend").select_option("openvino")
    page.locator("#find").fill("lenet5")
    shown = page.locator(".matrix tbody tr:visible").count()
    assert 0 < shown < 27
    assert "backend=openvino" in page.url
    assert "find=lenet5" in page.url
    page.reload()
    assert page.locator(".matrix tbody tr:visible").count() == shown
    assert page.locator("#by-backend").input_value() == "openvino"


def test_verdicts_differ_by_shape_and_word(open_page):
    page = open_page()
    tags = page.locator(".legend .tag")
    looks = [
        (tag.inner_text(), tag.evaluate("tag => getComputedStyle(tag, '::before').maskImage")) for tag in tags.all()
    ]
    assert len(looks) == 11
    assert len({word for word, _ in looks}) == 11
    assert len({shape for _, shape in looks}) == 11


def test_the_matrix_is_a_table_to_assistive_technology(open_page):
    """Rows are laid out as grids; browsers used to drop the roles of such tables."""
    page = open_page()
    table = page.get_by_role("table", name="Every case of the run")
    assert table.count() == 1
    assert table.get_by_role("row").count() == 28
    assert table.get_by_role("rowheader").count() == 27
    assert table.get_by_role("columnheader").count() == 12
    assert page.get_by_role("banner").count() == page.get_by_role("main").count() == 1
    assert [h.inner_text().split("\n")[0] for h in page.get_by_role("heading", level=1).all()]


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, {"viewport": PHONE}], ids=["light", "dark", "phone"])
def test_axe_finds_no_serious_fault(open_page, options):
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ModuleNotFoundError:
        unavailable("axe is not installed (pip install axe-playwright-python)")
    page = open_page("small.html", **options)
    page.evaluate("document.querySelectorAll('details').forEach(section => { section.open = true })")
    style = "*, *::before { content-visibility: visible !important }"  # axe skips what is not laid out
    page.evaluate(
        "text => { const s = document.createElement('style'); s.textContent = text; document.head.append(s) }", style
    )
    response = Axe().run(page).response
    assert len(response["passes"]) > 20  # it looked
    faults = [
        f"{fault['impact']} {fault['id']}: {node['html'][:120]}"
        for fault in response["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"][:3]
    ]
    assert faults == [], json.dumps(faults, indent=1)


def test_the_table_needs_no_sideways_scroll_on_a_desk(open_page):
    page = open_page(viewport={"width": 1280, "height": 800})
    scroller = page.locator(".scroll.cases")
    assert scroller.evaluate("box => box.scrollWidth <= box.clientWidth + 1")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


@pytest.mark.parametrize("standing", Standing)
def test_every_outcome_fits_its_column(open_page, standing):
    page = open_page()
    cell, tag = page.evaluate(
        """([word, name]) => {
            const tag = document.querySelector('.matrix tbody tr .tag');
            tag.className = tag.className.replace(/s-\\S+/, 's-' + name);
            tag.lastChild.textContent = word;
            const range = document.createRange();
            range.selectNodeContents(tag);
            return [tag.closest('td, th').getBoundingClientRect().right, range.getBoundingClientRect().right];
        }""",
        [standing.word, standing.value],
    )
    assert tag <= cell


def test_every_note_fits_its_cell_on_a_small_desk(open_page):
    page = open_page(viewport={"width": 1280, "height": 800})
    wide = page.evaluate(
        """() => [...document.querySelectorAll('.matrix td small')].filter(note => {
            const range = document.createRange();
            range.selectNodeContents(note);
            const [text, cell] = [range, note.closest('td')].map(part => part.getBoundingClientRect());
            return text.right > cell.right + 1 || text.left < cell.left - 1;
        }).map(note => note.textContent)"""
    )
    assert not wide
