"""The search page in a browser, at the sizes of a phone and of a desktop, by keyboard and mouse."""

import socket
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.browser import (
    clear_logs,
    headless_browser,
    needs_browser,
    new_page,
    requested_urls,
    set_size,
)
from tests.gallery_stand_in import ColorGallery, color_entry, stand_in_model

pytest.importorskip("uvicorn", reason="the extra `gallery` is not installed")
pytest.importorskip("python_multipart", reason="the extra `gallery` is not installed")

import uvicorn

from rmgl_jax.gallery.page import make_app
from rmgl_jax.gallery.serve_command import listen

pytestmark = [pytest.mark.network, needs_browser]
LONG = "a-label-without-any-place-to-break-it-" * 4
SIZES = [(360, 740), (1280, 900)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tmp_path_factory.mktemp("crops")


@pytest.fixture(scope="module")
def address(files):
    """Address of a server of 60 crops of six cameras, with a threshold."""
    random = np.random.default_rng(0)
    entries = []
    for number in range(60):
        rgb = tuple(map(int, random.integers(0, 256, 3)))
        known = {"camera": str(number % 6 + 1), "time": 1.7e9 + 600.0 * number}
        known["labels"] = ("red", LONG) if number % 7 == 0 else ()
        entries.append(color_entry(files, rgb, f"{number}.png", **known))
    Image.new("RGB", (32, 64), (200, 40, 40)).save(files / "query.png")
    app = make_app(ColorGallery(entries, stand_in_model(0.9)))
    listener: socket.socket = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def driver():
    with headless_browser() as browser:
        yield browser


@pytest.fixture
def browser(driver, address):
    """The browser; at the end, asserts no console message and no request elsewhere."""
    clear_logs(driver)
    yield driver
    assert driver.get_log("browser") == []
    urls = requested_urls(driver)
    assert urls
    assert [url for url in urls if not url.startswith(address)] == []


def all_of(browser, selector):
    return browser.find_elements("css selector", selector)


def one(browser, selector):
    (found,) = all_of(browser, selector)
    return found


def assert_fits(browser, width):
    """No page is wider than the window, every picture is there, and targets are large enough."""
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for image in all_of(browser, "img"):
        browser.execute_script("arguments[0].scrollIntoView()", image)
    deadline = time.monotonic() + 20
    missing = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    while browser.execute_script(missing):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for element in all_of(browser, "button, .button, summary, select, .choice, .crops a"):
        if element.is_displayed():
            assert element.size["height"] >= 44
            assert 0 <= element.rect["x"] <= element.rect["x"] + element.size["width"] <= width


def assert_is_accessible(browser):
    """Every field has a label, every picture a text, and headings go down step by step."""
    for field in all_of(browser, "input:not([type=hidden]), select"):
        assert field.accessible_name or not field.is_displayed()
    for image in all_of(browser, "img"):
        assert image.get_attribute("alt")
    for link in all_of(browser, "a, button"):
        assert link.accessible_name or not link.is_displayed()
    levels = [int(heading.tag_name[1]) for heading in all_of(browser, "h1, h2, h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [element.get_attribute("id") for element in all_of(browser, "[id]")]
    assert len(ids) == len(set(ids))
    assert len(all_of(browser, "main")) == 1


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_upload_filters_and_next_query_by_mouse(browser, address, files, width, height):
    set_size(browser, width, height)
    browser.get(address)
    assert_fits(browser, width)
    assert_is_accessible(browser)
    assert len(all_of(browser, ".crops li")) == 48

    one(browser, "input[type=file]").send_keys(str(files / "query.png"))
    with new_page(browser):
        one(browser, "button.primary").click()
    assert "Results" in browser.title
    assert_fits(browser, width)
    assert_is_accessible(browser)
    scores = [float(found.text) for found in all_of(browser, ".score b")]
    assert len(scores) == 20
    assert scores == sorted(scores, reverse=True)
    same = all_of(browser, "section.same li")
    assert len(same) == sum(score > 0.9 for score in scores)
    assert 0 < len(same) < 20
    # The line between lies below the last result of one list and above the first of the other.
    line = one(browser, "section.below h2").rect["y"]
    assert same[-1].rect["y"] + same[-1].size["height"] <= line
    assert line < all_of(browser, "section.below li")[0].rect["y"]

    summary = one(browser, "summary")
    summary.click()
    assert_fits(browser, width)
    assert_is_accessible(browser)
    one(browser, "input[name=camera][value='2']").click()
    one(browser, "input[name=rerank]").click()
    with new_page(browser):
        one(browser, "form button").click()
    assert_fits(browser, width)
    facts = [found.text for found in all_of(browser, ".crops .facts span:first-child")]
    assert len(facts) == 10
    assert set(facts) == {"Camera 2"}
    assert one(browser, "input[name=rerank]").is_selected()

    link = all_of(browser, ".crops a")[0]
    target = link.get_attribute("href")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", link)
    with new_page(browser):
        link.click()
    assert browser.current_url == target
    assert one(browser, ".query strong").text == "Query from the gallery"
    assert len(all_of(browser, ".crops li")) == 9
    with new_page(browser):
        browser.back()
    assert len(all_of(browser, ".crops li")) == 10


def test_everything_is_reached_by_keyboard(browser, address):
    set_size(browser, 1280, 900)
    browser.get(address)

    def send(key):
        ActionChains(browser).send_keys(key).perform()

    def press(key):
        send(key)
        return browser.switch_to.active_element

    def press_until(selector):
        for _ in range(40):
            focus = press(Keys.TAB)
            # A visible focus: a ring, whose color differs from the page.
            assert focus.value_of_css_property("outline-style") != "none", focus.get_attribute(
                "outerHTML"
            )[:300]
            if focus in all_of(browser, selector):
                return focus
        raise AssertionError(f"{selector} is not reached")

    press(Keys.TAB)
    assert browser.switch_to.active_element.accessible_name == "Skip to the content"
    assert browser.switch_to.active_element.rect["x"] >= 0
    press_until("input[type=file]")
    press_until("button.primary")
    press_until("summary")
    press(Keys.ENTER)
    assert press_until("input[name=camera]").is_displayed()
    press(Keys.SPACE)
    assert one(browser, "input[name=camera][value='1']").is_selected()
    press_until("button[formmethod=get]")
    with new_page(browser):
        send(Keys.ENTER)
    assert len(all_of(browser, ".crops li")) == 10
    press_until(".crops a")
    with new_page(browser):
        send(Keys.ENTER)
    assert "Results" in browser.title
    assert len(all_of(browser, ".crops li")) == 9


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(browser, address, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(f"{address}/?camera=1")
    link = all_of(browser, ".crops a")[0].get_attribute("href")
    for url in (f"{address}/?camera=1", link, f"{address}/?camera=nothing"):
        browser.get(url)
        for selector in (
            "h1",
            "h2",
            ".quiet",
            ".facts",
            ".field",
            "summary",
            "button",
            ".sign",
            ".note",
        ):
            for element in all_of(browser, selector):
                back = next(
                    color
                    for color in (rgba(found, "background-color") for found in ancestors(element))
                    if color[3] == 1
                )
                assert contrast(rgba(element, "color"), back) >= 4.5, (url, selector)
    clear = browser.get_log("browser")  # Chromium logs the page of an error, which is asked for.
    assert all("400" in entry["message"] for entry in clear)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def ancestors(element):
    yield element
    while element.tag_name != "html":
        element = element.find_element("xpath", "..")
        yield element


def rgba(element, name):
    text = element.value_of_css_property(name)
    numbers = [float(part) for part in text[text.index("(") + 1 : -1].split(",")]
    return (*numbers, 1.0)[:4]


def contrast(one_color, other_color):
    """Contrast ratio of WCAG 2."""

    def luminance(color):
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in (channel / 255 for channel in color[:3])
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one_color), luminance(other_color)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_missing_files_and_errors_fit_a_phone(browser, address, files):
    set_size(browser, 360, 740)
    browser.get(f"{address}/?labels=red")
    path = files / "0.png"
    hidden = path.rename(files / "hidden.png")
    try:
        browser.get(f"{address}/?labels=red")
        assert one(browser, ".missing").is_displayed()
        assert_fits(browser, 360)
    finally:
        hidden.rename(path)
    browser.get(f"{address}/{LONG}")
    assert one(browser, "[role=alert]").text.endswith(".")
    assert_fits(browser, 360)
    assert all("404" in entry["message"] for entry in browser.get_log("browser"))
