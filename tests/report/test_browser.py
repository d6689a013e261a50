"""The page in a browser, by mouse, keyboard and touch."""

import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import clear_logs, headless_browser, needs_browser, requested_urls, set_size

pytestmark = [pytest.mark.network, needs_browser]


@pytest.fixture(scope="module")
def browser():
    with headless_browser() as driver:
        yield driver


@pytest.fixture
def opened(browser, finished):
    """Opens the page in a given size; at the end, asserts no console message and no request."""

    def open_page(width, height):
        set_size(browser, width, height)
        browser.get(finished.path.as_uri())
        return browser

    clear_logs(browser)
    yield open_page
    assert browser.get_log("browser") == []
    assert requested_urls(browser) == [finished.path.as_uri()]


def visible_lists(browser) -> list[tuple[str, float]]:
    """Group and AP of the lists that are displayed."""
    return [
        (found.get_attribute("data-group"), float(found.get_attribute("data-ap")))
        for found in browser.find_elements("css selector", "article.ranked")
        if found.is_displayed()
    ]


def button(browser, label):
    return browser.find_element("xpath", f"//button[contains(., '{label}')]")


def test_viewer_steps_through_the_lists_by_mouse_and_keyboard(opened, finished):
    browser = opened(1200, 900)
    assert browser.title == "RMGL on synthetic/tiny"
    ap = np.sort(finished.result.plain.ap)
    counter = browser.find_element("css selector", "output")

    def assert_at(number, group):
        ((found, value),) = visible_lists(browser)
        assert found == group
        assert value == pytest.approx(ap[number - 1], abs=1e-6)
        assert counter.text == f"{number} of {len(ap)}"
        pressed = browser.find_elements("css selector", "[aria-pressed=true]")
        assert [element.text.lower() for element in pressed] == [group]

    assert_at(1, "worst")
    assert not button(browser, "Previous").is_enabled()
    for number in range(2, len(ap) + 1):
        button(browser, "Next").click()
        if number in (2, 7, 8, 13, 14, 20):  # groups begin and end here
            assert_at(number, "worst" if number <= 7 else "median" if number <= 13 else "best")
    assert not button(browser, "Next").is_enabled()
    for label, number in (("Median", 8), ("Worst", 1), ("Best", 20)):
        button(browser, label).click()
        assert_at(number, label.lower())
    browser.find_element("css selector", "body").click()
    focus = browser.switch_to.active_element
    for _ in range(30):
        if focus.text == "Worst":
            break
        focus.send_keys(Keys.TAB)
        focus = browser.switch_to.active_element
    for key, number, group in (
        (Keys.ENTER, 1, "worst"),
        (Keys.ARROW_RIGHT, 2, "worst"),
        (Keys.END, 20, "best"),
        (Keys.ARROW_LEFT, 19, "best"),
        (Keys.HOME, 1, "worst"),
    ):
        focus.send_keys(key)
        assert_at(number, group)


def test_page_fits_a_phone_and_its_buttons_can_be_touched(opened):
    browser = opened(360, 740)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    (_,) = visible_lists(browser)
    for element in browser.find_elements("css selector", ".controls button"):
        assert element.size["height"] >= 44
        assert 0 <= element.rect["x"] < element.rect["x"] + element.size["width"] <= 360
    # Numbers of the result table stay in one line.
    assert all(e.size["height"] < 60 for e in browser.find_elements("css selector", "#result td"))
    best = button(browser, "Best")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", best)
    box = browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", best)
    finger = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    for kind, points in (("touchStart", [finger]), ("touchEnd", [])):
        touch = {"type": kind, "touchPoints": points}
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", touch)
    # The tap becomes a click a moment later.
    WebDriverWait(browser, 20).until(lambda _: visible_lists(browser)[0][0] == "best")
    assert len(visible_lists(browser)) == 1
    broken = "return [...document.images].filter(image => !image.naturalWidth).length"
    assert browser.execute_script(broken) == 0
