"""The README's pictures, from a run on the drawn images: no image of any data set is in them.

    python tests/readme/pictures.py

trains for five epochs in a temporary folder and needs Chromium and the extra `test`. It writes
.github/assets/run.png, the terminal in the middle of the run, and .github/assets/report.png.
"""

import html
import importlib.util
import io
import os
import pty
import select
import subprocess
import sys
import tempfile
from pathlib import Path

import pyte
from PIL import Image

ASSETS = Path(__file__).parents[2] / ".github" / "assets"
COLUMNS, LINES = 80, 14
COMMAND = ["train", "--dataset", "synthetic", "--epochs", "5", "--name", "quick"]
TERMINAL = """<meta charset="utf-8"><body style="margin:0;background:#fff"><pre style="margin:0;
padding:16px 20px;background:#f5f7f9;color:#1b2733;border-radius:8px;display:inline-block;
font:15px/1.35 'DejaVu Sans Mono',monospace"><b>$ cifar-cnn {command}</b>
{screen}</pre>"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        screen = terminal(Path(folder))
        page_file = Path(folder) / "terminal.html"
        page_file.write_text(
            TERMINAL.format(command=" ".join(COMMAND), screen=screen),
            encoding="utf-8",
        )
        for page in browser(Path(folder) / "profile"):
            page.show(page_file, 790, 265)
            save(page.screenshot(whole=False), "run.png")
            page.show(Path(folder) / "runs" / "quick" / "report.html", 1100, 1600)
            save(page.screenshot(whole=False), "report.png")


def terminal(folder: Path) -> str:
    """Run the command in a terminal; return its screen in the fourth epoch, as HTML."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    environment = os.environ | {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm"}
    shown = ""
    with subprocess.Popen(
        [sys.executable, "-m", "cifar_cnn", *COMMAND],
        cwd=folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
    ) as process:
        os.close(slave)
        while process.poll() is None:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    stream.feed(os.read(master, 65536))
                except OSError:
                    break
                lines = [line.rstrip() for line in screen.display]
                if any(line.startswith("epoch 3 ") for line in lines) and "    3 " not in {
                    line[:6] for line in lines
                }:
                    rows = range(LINES)
                    shown = "\n".join("".join(map(cell, screen.buffer[y].values())) for y in rows)
    os.close(master)
    return shown.rstrip()


def cell(character) -> str:
    """Return a character as HTML; what is left of the progress bar is pale."""
    said = html.escape(character.data)
    return f'<span style="color:#c3ccd5">{said}</span>' if "brightblack" in character.fg else said


def browser(profile: Path):
    """Yield a page of Chromium, as the tests drive it."""
    path = Path(__file__).parents[1] / "report" / "conftest.py"
    spec = importlib.util.spec_from_file_location("report_conftest", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    profile.mkdir()
    yield from module.open_page(profile)


def save(content: bytes, name: str) -> None:
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").quantize(128).save(ASSETS / name, optimize=True)


if __name__ == "__main__":
    main()
