"""The report's page in a real, headless Chromium: what it draws, how it answers, and that it asks for nothing else."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright
from report_runs import evaluate, write_run, write_sweep

from ddpm import modes

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
if CHROMIUM is None and not os.environ.get("CI"):
    pytestmark = pytest.mark.skip(reason="no Chromium: apt-get install chromium")

# Texts that are hard to read: less than 4.5 to 1 by WCAG 2.1, against what lies behind them.
LOW_CONTRAST = """() => {
  const rgba = text => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const [r, g, b, a = 1] = rgba(getComputedStyle(element).backgroundColor);
      if (a > 0.5) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const own = element => [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.textContent).join("").trim();
  const seen = [...document.querySelectorAll("body *")].filter(e => own(e) && e.checkVisibility({ checkOpacity: true }) && !e.closest("script, template, .modebar"));
  return [seen.length, seen.map(element => {
    const style = getComputedStyle(element);
    const colours = [rgba(element.ownerSVGElement ? style.fill : style.color), behind(element)].map(luminance).sort((a, b) => a - b);
    return [own(element).slice(0, 30), +((colours[1] + 0.05) / (colours[0] + 0.05)).toFixed(2)];
  }).filter(([, contrast]) => contrast < 4.5)];
}"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Pages of a run, and of a sweep of fifty."""
    folder = tmp_path_factory.mktemp("reports")
    run = write_run(folder / "digits")
    for sampler in ("ddim", "ancestral"):
        for nfe in (5, 20, 100):
            evaluate(run, {"fd": 10 / nfe, "kd": 0.1, "kd_std": 0.01, "precision": 0.5}, sampler=sampler, nfe=nfe)
    evaluate(run, {"fd": 3.0}, step=100, features={"name": "inception", "rule": "299 x 299, bilinear"})
    modes.report([run], folder / "one.html")
    modes.report(write_sweep(folder / "runs", 50), folder / "sweep.html")
    bare = write_run(folder / "some" / "bare")
    shutil.rmtree(bare / "samples")
    broken = write_run(folder / "some" / "broken")
    shutil.rmtree(broken / "checkpoints")
    modes.report([bare, broken, write_run(folder / "some" / "whole")], folder / "some.html")
    return {name: (folder / f"{name}.html").as_uri() for name in ("one", "sweep", "some")}


@pytest.fixture(scope="module")
def browser(reports):  # the pages are there before: beside Playwright's loop Orbax could not run its own
    assert CHROMIUM, "CI has no Chromium, so the page was not tested: .ci/run installs it"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser, reports):
    """Opens a page; at the end nothing may have gone wrong on it, nor been asked for elsewhere."""
    contexts, wrong = [], []

    def open_page(name, width=1200, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on(
            "console", lambda message: "GL Driver" in message.text or wrong.append(f"{message.type}: {message.text}")
        )
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: request.url.startswith(("data:", "blob:", reports[name])) or wrong.append(request.url),
        )
        page.goto(reports[name])
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def column(page, number):
    """The values a table sorts by, from top to bottom."""
    return page.evaluate(
        "n => [...document.querySelector('table').tBodies[0].rows].map(row => row.cells[n].dataset.value)", number
    )


def hidden_lines(page, title):
    """The names of lines that are switched off in a plot."""
    return page.evaluate(
        """title => [...document.querySelectorAll("figure")].find(f => f.querySelector("h3")?.textContent === title)
            .querySelector(".plot").data.filter(line => line.visible === false).map(line => line.name)""",
        title,
    )


@pytest.mark.parametrize("name", ["one", "sweep"])
def test_every_plot_is_drawn(tab, name):
    page = tab(name)
    count = page.locator(".plot").count()
    assert count == {"one": 6, "sweep": 6}[name]
    assert page.locator(".plot.js-plotly-plot svg.main-svg").first.is_visible()
    drawn = page.evaluate(
        """() => [...document.querySelectorAll(".plot")].map(plot =>
            plot.querySelectorAll(".scatterlayer path.js-line, .scatterlayer path.point, .parcoords .axis").length)"""
    )
    assert len(drawn) == count and all(drawn)


def test_a_slider_goes_through_the_steps_and_shows_both_kinds_of_parameters(tab):
    page = tab("one")
    slider, said = page.locator(".slider input"), page.locator(".slider output")
    seen = []
    for step in (300, 200, 100):
        assert said.text_content() == f"step {step}"
        shown = page.locator(".pair:visible img")
        boxes = [image.bounding_box() for image in shown.all()]
        assert len(boxes) == 2 and boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
        assert page.locator(".pair:visible figcaption").all_text_contents() == [
            f"{kind} parameters, step {step}" for kind in ("EMA", "raw")
        ]
        seen += [image.get_attribute("src") for image in shown.all()]
        slider.press("ArrowLeft")
    assert len(set(seen)) == 3  # of each step; the fake run's two kinds are alike
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)")


def test_provenance_by_hovering_by_keyboard_and_gone_by_escape(tab):
    page = tab("one")
    tip, cell = page.locator("#tip"), page.locator("td[data-tip]").first
    assert not tip.is_visible()
    cell.scroll_into_view_if_needed()
    cell.hover()
    assert tip.is_visible()
    assert tip.evaluate("tip => tip.scrollHeight <= tip.clientHeight")  # all of it
    told = tip.inner_text()
    for words in ("generated.sampler", "ancestral", "features.sha256", "reference.num", "1,000", "versions.jax"):
        assert words in told, words
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.locator("th[data-tip]").first.focus()  # a rule's heading; the page scrolls to it
    page.wait_for_timeout(300)
    assert "features.rule" in tip.inner_text() and "generated.sampler" not in tip.inner_text()


def test_a_drop_down_chooses_the_figure_that_is_drawn(tab):
    page = tab("one")
    plot = page.locator("figure", has_text="Quality against network evaluations")
    assert plot.locator(".ytitle").text_content() == "fd ↓"
    assert plot.locator("path.point").count() == 6
    assert plot.locator(".legendtext").all_text_contents() == ["ddim", "ancestral"]
    plot.locator("select").select_option(index=2)
    assert plot.locator(".ytitle").text_content() == "precision ↑"


def test_a_click_on_a_heading_sorts_and_another_turns_it_round(tab):
    page = tab("sweep")
    heads = page.locator("table").first.locator("th button").all_text_contents()
    number = heads.index("optimizer.learning_rate")
    head = page.locator("table").first.locator("th button").nth(number)
    before = list(map(float, column(page, number)))
    head.click()
    assert list(map(float, column(page, number))) == sorted(before) != before
    head.click()
    assert list(map(float, column(page, number))) == sorted(before, reverse=True)
    page.locator("table").first.locator("th button").nth(heads.index("schedule.name")).click()
    assert column(page, heads.index("schedule.name")) == ["cosine"] * 25 + ["linear"] * 25
    assert page.locator("th[aria-sort]").count() == 1


def test_a_sweep_is_drawn_against_its_keys_and_its_runs_are_switched_on_and_off(tab):
    page = tab("sweep")
    assert page.locator("#runs tbody tr").count() == 50
    axes = page.locator(".parcoords .axis-title")
    assert axes.all_text_contents() == ["optimizer.learning_rate", "schedule.name", "fd ↓"]
    scatter = page.locator("figure", has_text="A figure against a key")
    assert scatter.locator("path.point").count() == 50
    scatter.locator("select").first.select_option(label="schedule.name")
    assert scatter.locator(".xtick").all_text_contents() == ["cosine", "linear"] or scatter.locator(
        ".xtick"
    ).all_text_contents() == ["linear", "cosine"]

    assert hidden_lines(page, "Loss") == []
    page.locator(".legend button", has_text="run07").click()
    assert hidden_lines(page, "Loss") == ["run07"]
    page.locator(".legend button", has_text="none").click()
    assert len(hidden_lines(page, "Gradient norm")) == 50
    page.locator(".legend button", has_text="all").click()
    assert hidden_lines(page, "Loss") == []

    page.locator("#samples select.run").select_option(label="run33")
    assert page.locator("#samples .of-run:visible").get_attribute("data-run") == "33"
    assert page.locator("#setup .of-run:visible").get_attribute("data-run") == "33"


def test_all_sections_show_the_run_that_one_of_them_chose(tab):
    page = tab("some")

    def shown():
        chosen = page.locator("select.run").evaluate_all("all => all.map(select => select.selectedOptions[0]?.label)")
        parts = [page.locator(f"#{section} .of-run:visible") for section in ("samples", "setup")]
        return chosen, [part.get_attribute("data-run") for part in parts], [part.inner_text() for part in parts]

    chosen, runs, told = shown()
    assert chosen == ["bare"] * 2 and runs == ["0"] * 2
    assert told[0] == "This run has no samples to show." and "Environment" in told[1]
    page.locator("#setup select.run").select_option(label="whole")
    chosen, runs, told = shown()
    assert chosen == ["whole"] * 2 and runs == ["2"] * 2 and "EMA parameters" in told[0]
    page.locator("#samples select.run").select_option(label="broken")
    chosen, runs, told = shown()
    assert chosen == ["broken"] * 2 and runs == ["1"] * 2 and told[1] == "This run has no setup to show."


@pytest.mark.parametrize("name", ["one", "sweep"])
def test_on_a_phone_nothing_is_wider_than_the_screen(tab, name):
    page = tab(name, width=360, height=740, has_touch=True, is_mobile=True, device_scale_factor=2)
    assert page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]") == [360] * 3
    widths = page.evaluate(
        "[...document.querySelectorAll('.plot')].map(plot => plot.parentElement.getBoundingClientRect().right)"
    )
    assert widths and max(widths) <= 360
    cell = page.locator("td[data-tip]").first
    cell.scroll_into_view_if_needed()
    cell.tap()
    box = page.locator("#tip").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360
    tip = page.locator("#tip").evaluate("tip => [getComputedStyle(tip).overflowY, getComputedStyle(tip).pointerEvents]")
    assert tip == ["auto", "auto"]  # what does not fit is scrolled by a finger
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 14


@pytest.mark.parametrize("name", ["one", "sweep"])
def test_in_light_and_in_dark_mode_all_text_can_be_read(tab, name):
    page = tab(name, color_scheme="light")
    backgrounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(500)  # plots are drawn anew
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        count, hard = page.evaluate(LOW_CONTRAST)
        assert count > 50 and hard == [], scheme
    assert backgrounds == ["rgb(255, 255, 255)", "rgb(20, 24, 31)"]
