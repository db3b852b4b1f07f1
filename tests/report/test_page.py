"""report.html in a real browser: it draws, answers to clicks, needs no network, trusts no name."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lrexp as library
from lrexp.report.page import write_page
from lrexp.report.page.facts import page_facts
from lrexp.runs.live_page import LivePage, last_page
from lrexp.runs.reader import load_run
from report.synthetic import write_compare, write_find_lr

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SEEN = "document.querySelectorAll('.chart .main-svg').length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a file; in the end no error was logged, no dialog shown and nothing else asked for."""
    pages, faults = [], []

    def opened(path: Path, **options: Any) -> Any:
        page = browser.new_page(**options)
        pages.append(page)
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on(
            "request",
            lambda r: (
                None if r.url.startswith(("file:", "data:", "blob:")) else faults.append(r.url)
            ),
        )
        page.goto(path.absolute().as_uri())
        return page

    yield opened
    for page in pages:
        page.close()
    assert faults == []


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lrs = {"standard": 0.01, "low": 0.0001, "middle": 0.003}
    return write_compare(tmp_path_factory.mktemp("page") / "run", lrs=lrs, seeds=3)


def test_a_comparison_is_drawn_and_asked(compared: Path, visit: Callable[..., Any]) -> None:
    page = visit(write_page([load_run(compared)]))
    assert page.title() == "digits-lr"
    assert page.locator("h1").inner_text().startswith("Which of 3 learning rates gives the lowest")
    assert "standard" in page.locator(".answer").inner_text()
    loss = page.locator("#loss")
    loss.scroll_into_view_if_needed()
    until(page, "document.querySelectorAll('#loss .chart .main-svg').length > 0")
    # the values under the pointer are those of the files
    box, shown = page.locator("#loss .chart").last, "document.querySelectorAll('#loss .chart')[1]"
    traces = page.evaluate(
        f"{shown}.data.map(t => [t.variant, t.kind, t.visible, t.x && t.x.length])"
    )
    place = next(i for i, t in enumerate(traces) if t[0] == "standard" and t[1] == "loss.median")
    page.evaluate(f"Plotly.Fx.hover({shown}, [{{curveNumber: {place}, pointNumber: 3}}])")
    said = str(box.locator(".hoverlayer").text_content())
    evals = [trial.evals for trial in load_run(compared).trials if trial.variant == "standard"]
    median = sorted(float(one["val_loss"][3]) for one in evals)[1]
    assert any(
        float(number) == pytest.approx(median, rel=1e-2)
        for number in re.findall(r"\d+\.\d+(?:e-?\d+)?", said.replace("−", "-"))
    ), said
    # a legend's entry takes its lines away
    count = f"{shown}.data.filter(t => t.variant === 'low' && t.visible !== false).length"
    assert page.evaluate(count) > 0
    button = loss.locator('[data-by="name"][data-value="low"], [data-by="key"]').first
    entry = loss.get_by_role("button", name=re.compile("low")).first
    (entry if entry.count() else button).click()
    assert page.evaluate(count) == 0
    # a column sorts
    table = page.locator("table.sortable").first
    names = [row.split("\n")[0] for row in table.locator("tbody th").all_inner_texts()]
    table.get_by_role("button", name=re.compile("^variant")).click()
    again = [row.split("\n")[0] for row in table.locator("tbody th").all_inner_texts()]
    assert again == sorted(names)
    assert table.locator('th[aria-sort="ascending"]').count() == 1


@pytest.mark.parametrize(
    "options", [{"viewport": {"width": 380, "height": 800}}, {"color_scheme": "dark"}]
)
def test_it_fits_a_phone_and_the_dark(
    options: dict[str, Any], compared: Path, visit: Callable[..., Any]
) -> None:
    page = visit(write_page([load_run(compared)]), **options)
    until(page, f"{SEEN} > 0")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    is_dark = sum(map(int, re.findall(r"\d+", background)[:3])) < 200
    assert is_dark == ("color_scheme" in options)


def test_a_range_test_and_several_runs(
    compared: Path, tmp_path: Path, visit: Callable[..., Any]
) -> None:
    found = write_find_lr(tmp_path / "found")
    page = visit(library.write_report(found))
    assert "0.047" in page.locator(".answer").inner_text()
    assert page.locator("#range_test").count() == 1
    until(page, f"{SEEN} > 0")
    both = visit(
        library.write_report([compared, library.load_run(compared)], out=tmp_path / "two.html")
    )
    assert both.locator("h1").inner_text() == "How do 2 runs compare?"
    until(both, f"{SEEN} > 0")


def test_names_are_text_and_tables_need_no_script(
    compared: Path, tmp_path: Path, visit: Callable[..., Any]
) -> None:
    shutil.copytree(compared, tmp_path / "run")
    bad = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    for name in ("summary.json", "status.json"):
        file = tmp_path / "run" / name
        text = file.read_text().replace('"standard"', json.dumps(bad))
        file.write_text(text.replace('"digits-lr"', json.dumps(bad)))
    path = write_page([load_run(tmp_path / "run")])
    page = visit(path)
    page.wait_for_timeout(300)
    assert page.locator("img").count() == 0
    assert "onerror" in page.locator(".variants").inner_text()
    plain = visit(path, java_script_enabled=False)
    assert "converging well" in plain.locator("table").first.inner_text()


def test_a_page_of_a_run_that_goes_on_comes_again(
    tmp_path: Path, visit: Callable[..., Any]
) -> None:
    run = write_compare(
        tmp_path / "run", summary=False, status="running", num_trials=15, pid=os.getpid()
    )
    page = visit(write_page([load_run(run)], reload=0.8))
    assert page.locator("progress").count() == 4
    page.evaluate("window.before = true")
    until(page, "!window.before && document.readyState === 'complete'")
    write_page([load_run(run)])  # the last one does not reload itself
    data = "document.getElementById('data')?.textContent"
    until(page, f"document.readyState === 'complete' && !JSON.parse({data}).reload")
    page.evaluate("window.before = true")
    page.wait_for_timeout(1_200)
    assert page.evaluate("window.before")


def test_it_is_written_while_a_run_goes_on_and_at_its_end(
    lrexp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LREXP_PLOTS")
    (tmp_path / "c.yaml").write_text(
        "{model: linear, data: diabetes, loss: mse_loss, optimizer: {name: SGD, lr: 0.1}, "
        "train: {duration: 3}, engine: sequential}"
    )
    assert lrexp("compare", "c.yaml", "--no-plots", "--out", "run").code == 0
    assert '"reload":null' in (tmp_path / "run/report.html").read_text()
    assert lrexp("compare", "c.yaml", "--no-plots", "--no-report", "--out", "other").code == 0
    assert not (tmp_path / "other/report.html").exists()
    assert lrexp("report", "other").code == 0
    assert (tmp_path / "other/report.html").exists()
    written: list[Any] = []
    page = LivePage(lambda run, reload: written.append(reload), tmp_path)
    page(None)  # type: ignore[arg-type]  # at once: a short run has its page in the end
    assert written == []
    page._next = 0.0
    page(None)  # type: ignore[arg-type]
    page(None)  # type: ignore[arg-type]  # not with every record
    assert written == [10.0]


def test_a_page_that_fails_harms_no_run(tmp_path: Path) -> None:
    from lrexp.runs.choosing import RunOptions

    said: list[str] = []

    class Reporter:
        def say(self, text: str, style: str = "") -> None:
            said.append(text)

    def fails(run: Path, reload: float | None) -> None:
        raise OSError("no space left")

    last_page(RunOptions(Reporter(), page=fails), tmp_path)  # type: ignore[arg-type]
    assert said == ["There is no report.html: OSError: no space left"]


def until(page: Any, expression: str) -> None:
    """Wait for something to be true, also of the page that a reload brings.

    Playwright's own wait evaluates text within the page, which the page's policy forbids.
    """
    for _ in range(200):
        with suppress(Exception):  # a page that is being reloaded; what lasts fails below
            if page.evaluate(expression):
                return
        page.wait_for_timeout(50)
    pytest.fail(f"{expression} stays false")


def shown_of(page: Any, section: str, chart: int = 0) -> list[dict[str, Any]]:
    """Return the traces of a chart: whose they are, what they are, their colour and name on hover."""
    page.locator(f"#{section}").scroll_into_view_if_needed()
    box = f"document.querySelectorAll('#{section} .chart')[{chart}]"
    until(page, f"!!{box}.data")
    return page.evaluate(
        f"{box}.data.map(t => ({{variant: t.variant, kind: t.kind, said: t.hovertemplate,"
        " color: t.line && t.line.color}))"
    )


def test_a_band_opens_into_its_seeds_and_goes_with_its_line(
    compared: Path, visit: Callable[..., Any]
) -> None:
    page = visit(write_page([load_run(compared)]))
    of_low = [t["kind"] for t in shown_of(page, "loss") if t["variant"] == "low"]
    assert sorted(of_low) == ["band", "loss.median"]
    # the pointer is told the LR of its step
    chart = "document.querySelector('#loss .chart')"
    place = page.evaluate(
        f"{chart}.data.findIndex(t => t.variant === 'low' && t.kind === 'loss.median')"
    )
    step = page.evaluate(f"{chart}._fullData[{place}].x[20]")
    page.evaluate(f"Plotly.Fx.hover({chart}, [{{curveNumber: {place}, pointNumber: 20}}])")
    said = page.locator("#loss .chart").first.locator(".hoverlayer").text_content()
    [trial, *_] = [t for t in load_run(compared).trials if t.variant == "low"]
    lr = float(trial.steps["lr"][round(step)])
    assert float(re.search(r"LR ([\d.e−-]+)", said)[1].replace("−", "-")) == pytest.approx(
        lr, rel=1e-2
    )
    assert re.search(r"step ([\d.]+)", said)[1] == f"{step:g}"
    loss = page.locator("#loss")
    loss.get_by_role("button", name="lines").click()
    of_low = [t["kind"] for t in shown_of(page, "loss") if t["variant"] == "low"]
    assert sorted(of_low) == ["loss.median", *["loss.seed"] * 3]
    loss.get_by_role("button", name="raw").click()
    of_low = [t["kind"] for t in shown_of(page, "loss") if t["variant"] == "low"]
    assert sorted(of_low) == ["loss.median", *["loss.raw"] * 3]
    loss.get_by_role("button", name="band").click()
    loss.get_by_role("button", name=re.compile("^low")).click()
    assert "low" not in {t["variant"] for t in shown_of(page, "loss")}
    # the choice outlives the reload of a page of a run that goes on
    page.reload()
    assert "low" not in {t["variant"] for t in shown_of(page, "loss")}
    assert (
        loss.get_by_role("button", name=re.compile("^low")).get_attribute("aria-pressed") == "false"
    )


def test_scales_change_and_print_is_light(compared: Path, visit: Callable[..., Any]) -> None:
    page = visit(write_page([load_run(compared)]), color_scheme="dark")

    def colors() -> set[str]:
        return {t["color"] for t in shown_of(page, "loss") if t["kind"] == "loss.median"}

    dark, chart = colors(), "document.querySelector('#loss .chart')"
    kinds = []
    for scale in ("log", "linear"):
        page.locator(f"#loss [data-scale={scale}]").click()
        kinds.append(page.evaluate(f"{chart}._fullLayout.yaxis.type"))
        low, high = page.evaluate(f"{chart}._fullLayout.yaxis.range")
        assert low < high
    assert kinds == ["log", "linear"]
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not colors() & dark
    paper = "getComputedStyle(document.documentElement).getPropertyValue('--paper')"
    assert page.evaluate(paper) == "#ffffff"
    assert page.evaluate("[...document.querySelectorAll('.chart')].every(c => c.data)")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert colors() == dark


def test_odd_names_are_shown_as_they_are(tmp_path: Path, visit: Callable[..., Any]) -> None:
    odd = ["@accent", "%{x}<b>bold</b>", "</script>\u2028", "a" * 5_000, "\U0001f680 é"]
    plain = [f"plain-{i}" for i in range(len(odd))]
    lrs = {name: 0.001 * (i + 1) for i, name in enumerate(plain)}
    run = load_run(write_compare(tmp_path / "run", lrs=lrs, seeds=1, epochs=2))
    named = dict(zip(plain, odd, strict=True))
    text = json.dumps(run.summary)
    for name, other in named.items():
        text = text.replace(json.dumps(name), json.dumps(other))
    trials = tuple(replace(trial, variant=named[trial.variant]) for trial in run.trials)
    status, summary = {**run.status, "variants": odd}, json.loads(text)
    page = visit(write_page([replace(run, trials=trials, summary=summary, status=status)]))
    found = shown_of(page, "loss")
    assert {t["variant"] for t in found} >= set(odd)
    for name in odd:
        page.locator("#loss .legend button").filter(has_text=name[:20].strip()).first.click()
    assert not {t["variant"] for t in shown_of(page, "loss")} & set(odd)
    assert not any(name in t["said"] for t in found for name in odd[1:3])  # no markup, no template
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_colours_follow_a_number_that_alone_differs(tmp_path: Path) -> None:
    lrs = {f"lr {i}": 0.0001 * 1.4**i for i in range(12)}
    run = load_run(write_compare(tmp_path / "run", lrs=lrs, seeds=2, epochs=2))
    facts = page_facts([run])
    traces = facts["charts"]["loss-0"]["data"]
    colors = [t["line"]["color"] for t in traces if t["kind"] == "loss.median"]
    shades = [float(re.fullmatch(r"@v([\d.]+)/1.0", color)[1]) for color in colors]
    assert shades == pytest.approx([i / 11 for i in range(12)], abs=1e-3)
    [loss] = [section for section in facts["sections"] if section["name"] == "loss"]
    assert loss["scale"]["low"] == "1e-4"
    assert loss["seeds"] == "none"  # twelve bands would hide each other


@pytest.mark.long
def test_a_large_run_stays_small_and_quick(tmp_path: Path, visit: Callable[..., Any]) -> None:
    lrs = {f"lr-{i}": 0.0001 * 1.05**i for i in range(100)}
    run = write_compare(tmp_path / "run", lrs=lrs, seeds=10, epochs=435)  # 10,005 steps each
    path = write_page([load_run(run)])
    assert path.stat().st_size < 8e6
    page = visit(path)
    page.locator("#loss").scroll_into_view_if_needed()
    until(page, "document.querySelectorAll('#loss .chart .main-svg').length > 0")
    assert page.evaluate("performance.now()") < 10_000  # 2 s on a machine that does nothing else
