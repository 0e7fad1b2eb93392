"""Proves, in a real browser, that the page labels an image as predict does, gives the same bytes to download, says a mistake as a
sentence, and asks nobody but this machine for anything.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.ports import free_ports
from unet_dist.cli import run
from unet_dist.demo.page import as_share
from unet_dist.models.unet import UNet
from unet_dist.scenes.synthetic import SyntheticScenes

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NAMES = ["road", "sky", "<b>tree</b>", "wall"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed: pip install 'unet_dist[demo]'"),
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, a scene and what predict makes of it, an image of four bands."""
    folder = tmp_path_factory.mktemp("demo")
    torch.manual_seed(3)
    model = UNet(num_classes=5, base_channels=4, depth=2, class_names=[*NAMES, "void"], ignore_index=4)
    model.save_pretrained(folder / "streets")
    Image.fromarray(SyntheticScenes(1, 270, 480, seed=5).render(0)[0]).save(folder / "scene.png")
    np.save(folder / "bands.npy", np.zeros((50, 50, 4), np.uint8))
    run(
        [
            "predict",
            str(folder / "streets"),
            str(folder / "scene.png"),
            "--output",
            str(folder / "out"),
            "--mixed_precision",
            "no",
        ]
    )
    return folder


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    """The page of a server in a process of its own."""
    (port,) = free_ports(1)
    words = [sys.executable, "-u", "-m", "unet_dist", "demo", str(place / "streets"), "--port", str(port)]
    words += ["--max_upload", "1MiB"]
    there = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(words, env=there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        said = ""
        while "Open http://127.0.0.1" not in said:
            line = server.stdout.readline()
            assert line, said
            said += line
        yield f"http://127.0.0.1:{port}/"
        server.send_signal(signal.SIGINT)
        rest = server.stdout.read()
        assert server.wait(60) == 0, rest
        assert "Ended." in rest
        assert "Traceback" not in rest, rest


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", "window-size=1300,900", f"user-data-dir={tmp_path / 'profile'}"),
    ):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def wait(browser: Any, condition: Any, seconds: float = 90) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, ignored_exceptions=webdriver_exceptions()).until(condition)


def webdriver_exceptions() -> Any:
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    return NoSuchElementException, StaleElementReferenceException


def upload(browser: Any, file: Path) -> None:
    field = wait(browser, lambda b: b.find_element("css selector", "#image input[type=file]"))
    field.send_keys(str(file))


def requested_hosts(browser: Any) -> set[str]:
    """The hosts that the page asked for anything, answered or not."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    addresses += [m["params"]["url"] for m in messages if m["method"] == "Network.webSocketCreated"]
    parsed = [urllib.parse.urlsplit(address) for address in addresses]
    return {f"{part.hostname}" for part in parsed if part.scheme not in ("data", "blob", "chrome")}


@pytest.mark.slow
def test_an_image_goes_in_and_its_label_map_comes_out(place: Path, address: str, browser: Any) -> None:
    browser.get(address)
    upload(browser, place / "scene.png")
    words = "4 classes, colour images of any size."  # the ignored one is none
    wait(browser, lambda b: words in b.find_element("css selector", "body").text)
    for kind in ("picture", "colours"):
        view = wait(browser, lambda b, kind=kind: b.find_element("css selector", f"#view img.{kind}"))
        wait(browser, lambda b, view=view: view.get_property("naturalWidth") > 0)
        assert (view.get_property("naturalWidth"), view.get_property("naturalHeight")) == (480, 270)
    slider = browser.find_element("css selector", "#view input[type=range]")
    browser.execute_script("arguments[0].value = 20; arguments[0].dispatchEvent(new Event('input'))", slider)
    assert view.value_of_css_property("opacity") == "0.2"

    labels = np.asarray(Image.open(place / "out/scene.png"))
    legend = wait(browser, lambda b: b.find_element("css selector", "#legend .legend"))
    entries = [" ".join(entry.text.split()) for entry in legend.find_elements("css selector", ".class")]
    counts = np.bincount(labels.ravel(), minlength=4)
    order = np.argsort(-counts, kind="stable")
    assert entries == [f"{NAMES[i]} {as_share(counts[i] / labels.size)}" for i in order if counts[i]]

    webdriver.ActionChains(browser).move_to_element(browser.find_element("css selector", "#view .seen")).perform()
    hovered = wait(browser, lambda b: b.find_element("css selector", "#view output").text)
    middle = set(np.unique(labels[130:140, 235:245]).tolist())  # the browser rounds to its own pixels
    assert hovered in {NAMES[index] for index in middle}

    button = browser.find_element("css selector", "#download")
    wait(browser, lambda b: button.is_enabled())
    button.click()
    downloaded = Path(browser.caps["chrome"]["userDataDir"]).parent / "downloads/scene.png"
    wait(browser, lambda b: downloaded.exists() and downloaded.stat().st_size)
    assert downloaded.read_bytes() == (place / "out/scene.png").read_bytes()
    with Image.open(downloaded) as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), labels)

    assert requested_hosts(browser) == {"127.0.0.1"}
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors


def test_a_wrong_image_is_a_sentence_on_the_page(place: Path, address: str, browser: Any) -> None:
    browser.get(address)
    upload(browser, place / "bands.npy")
    toast = wait(browser, lambda b: b.find_element("css selector", "[data-testid=toast-body]"))
    wait(browser, lambda b: "got 4 channels, expected 3" in toast.text)
    assert "bands.npy: got 4 channels" in toast.text
    assert str(place) not in toast.text
    assert requested_hosts(browser) == {"127.0.0.1"}


@pytest.mark.parametrize(("size", "status"), [(2**19, 200), (2**21, 413)])
def test_a_file_beyond_the_limit_is_refused_while_it_comes_in(address: str, size: int, status: int) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    body = head + b"0" * size + b"\r\n--x--\r\n"
    request = urllib.request.Request(
        f"{address}gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            got = answer.status
    except urllib.error.HTTPError as error:
        got = error.code
    assert got == status


HEAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
UPLOAD = (
    "POST /gradio_api/upload HTTP/1.1\r\nHost: {}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    "Content-Length: {}\r\n\r\n"
)


def status_of(address: str, body: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(address, body, {key.replace("_", "-"): value for key, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_others_are_answered_while_one_sends_slowly(address: str) -> None:
    """One client sends a byte of its image, and waits; another uploads and looks at the page meanwhile."""
    place = urllib.parse.urlsplit(address).netloc
    body = HEAD + b"0" * 50 + b"\r\n--x--\r\n"
    with socket.create_connection(("127.0.0.1", int(place.rpartition(":")[2])), timeout=60) as slow:
        slow.sendall(UPLOAD.format(place, len(body)).encode() + body[:-50])
        for number, byte in enumerate(body[-50:-10]):
            slow.sendall(bytes([byte]))
            if number == 0:
                form = {"Content_Type": "multipart/form-data; boundary=x"}
                assert status_of(f"{address}gradio_api/upload", HEAD + b"0" * 1000 + b"\r\n--x--\r\n", **form) == 200
                assert status_of(address) == 200
        slow.sendall(body[-10:])
        assert slow.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:1"},
    ],
)
@pytest.mark.parametrize("path", ["", "gradio_api/upload", "gradio_api/info", "config"])
def test_another_name_or_site_gets_nothing(address: str, headers: dict[str, str], path: str) -> None:
    """Of the server itself, whatever it is asked for."""
    assert status_of(f"{address}{path}", b"x" if path.endswith("upload") else None, **headers) == 403
