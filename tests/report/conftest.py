"""A page in a real headless Chromium, driven over a pipe by the DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = next(filter(None, map(shutil.which, NAMES)), None)
EXECUTABLE = FOUND if os.name == "posix" else None  # it is driven over inherited pipes

LAYOUT = """JSON.stringify({
    width: innerWidth,
    content: document.documentElement.scrollWidth,
    broken: [...document.images].filter(image => !image.naturalWidth).length,
    images: document.images.length,
    title: document.title,
    text: document.body.innerText,
})"""


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
        """Open a file at a width in CSS pixels and return what LAYOUT measures."""
        mobile = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self.receive().get("method") != "Page.loadEventFired":
            pass
        measured = self.call("Runtime.evaluate", expression=LAYOUT)
        return json.loads(measured["result"]["value"])

    def screenshot(self, *, whole=True):
        """Return a PNG of the whole page, or of what the window shows."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(picture["data"])

    def of(self, *methods):
        """Return the parameters of the events of these kinds."""
        return [m["params"] for m in self.messages if m.get("method") in methods]


@pytest.fixture
def page(tmp_path):
    """A Page of a browser that is started for the test, and ended after it."""
    if EXECUTABLE is None:
        pytest.skip("needs Chromium (Debian package chromium)")
    yield from open_page(tmp_path)


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
