"""A finished run, and a page in headless Chromium, driven over a pipe by the DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
EXECUTABLE = CHROMIUM if os.name == "posix" else None  # it is driven over inherited pipes

POSIX = os.name != "nt"  # Windows has no such file names
CLASS = '<img src=x onerror=alert(1)> & "$x$" | *and* _more_ # [a](b) 名' if POSIX else "red $x_"
RUN = "<b>my | run_1 #1 & <i>" if POSIX else "my & run_1 #1"


@pytest.fixture(scope="session")
def images(tmp_path_factory, make_image_folder):
    """Three classes, one with the name CLASS."""
    root = make_image_folder(tmp_path_factory.mktemp("data") / "images")
    for split in ("train", "test"):
        (root / split / "red").rename(root / split / CLASS)
    return root


@pytest.fixture(scope="session")
def run(images, tmp_path_factory):
    """A finished run of two epochs named RUN, with its report; nothing in a test may change it."""
    from cifar_cnn import train
    from cifar_cnn.settings import resolve_settings

    values = {"dataset": "folder", "data_dir": images, "epochs": 2, "lr": 1e-6, "seed": 7}
    directory = tmp_path_factory.mktemp("runs") / RUN
    return train(resolve_settings(values | {"precision": "fp32"}), directory).run


class Page:
    """One page of a running browser; `messages` is all that it reported so far."""

    def __init__(self, to_browser, from_browser):
        self.to_browser, self.from_browser = to_browser, from_browser
        self.messages = []
        self.buffer = b""
        self.sent = 0
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer
                return answer["result"]

    def receive(self):
        while b"\0" not in self.buffer:
            chunk = os.read(self.from_browser, 1 << 20)
            assert chunk, "the browser has ended"
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        self.messages.append(json.loads(message))
        return self.messages[-1]

    def show(self, path, width, height=900):
        """Open a file at a width in CSS pixels."""
        mobile = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self.receive().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression):
        """Return the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=f"JSON.stringify({expression})")
        return json.loads(result["result"]["value"])

    def screenshot(self, *, whole=True):
        """Return a PNG of the whole page, or of what the window shows."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(picture["data"])

    def of(self, *methods):
        """Return the parameters of the events of these kinds."""
        return [m["params"] for m in self.messages if m.get("method") in methods]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A Page of a browser that is started for a module, and ended after it."""
    if EXECUTABLE is None:
        pytest.skip("needs Chromium (Debian package chromium)")
    yield from open_page(tmp_path_factory.mktemp("profile"))


def open_page(profile):
    """Yield a Page of a browser that keeps its files in the folder `profile`."""
    to_browser, our_end = os.pipe()
    from_browser, their_end = os.pipe()
    command = (
        f'exec "{EXECUTABLE}" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage '
        f'--no-first-run --user-data-dir="{profile}" --remote-debugging-pipe '
        f"3<&{to_browser} 4>&{their_end}"
    )
    process = subprocess.Popen(
        ["/bin/bash", "-c", command],
        pass_fds=(to_browser, their_end),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(their_end)
    try:
        yield Page(our_end, from_browser)
    finally:
        os.close(our_end)
        os.close(from_browser)
        process.terminate()
        process.wait(timeout=30)
