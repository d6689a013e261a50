"""Headless Chromium for the tests of pages."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="no Chromium with its driver; on Debian: apt-get install chromium chromium-driver",
)


@contextmanager
def headless_browser() -> Iterator[webdriver.Chrome]:
    """A headless Chromium that records its console and its requests."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # No sandbox, as tests may run as root, and none of Chromium's own traffic.
    for argument in [
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
    ]:
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def set_size(browser: webdriver.Chrome, width: int, height: int) -> None:
    """Gives the browser a window size; narrow ones are those of a phone."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 600})


@contextmanager
def new_page(browser: webdriver.Chrome) -> Iterator[None]:
    """Waits, at the end, until what the block did has led to another page, and that page is loaded.

    A click returns before its navigation starts, so what follows would still see the old page.
    """
    # Each document has its own origin of time, also one that the way back brings up again.
    script = "return [performance.timeOrigin, document.readyState]"
    before, _ = browser.execute_script(script)
    yield

    def loaded(browser: webdriver.Chrome) -> bool:
        origin, state = browser.execute_script(script)
        return origin != before and state == "complete"

    # A script that runs while pages change fails, and is tried again.
    WebDriverWait(browser, 30, 0.05, ignored_exceptions=[WebDriverException]).until(loaded)


def requested_urls(browser: webdriver.Chrome) -> list[str]:
    """Addresses that were asked for since the last call, without those of data."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if not url.startswith("data:")]


def clear_logs(browser: webdriver.Chrome) -> None:
    """Forgets console messages and requests so far."""
    for kind in ("performance", "browser"):
        browser.get_log(kind)
