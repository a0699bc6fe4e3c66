"""Fuzzes what reads foreign files: checkpoints and images.

Each example is a file made by Hypothesis: a pickle program of random instructions in an archive
with random faults, a real checkpoint or image with bytes changed, cut out or repeated. Reading it
must give a checkpoint (or pixels) or one line, and meanwhile nothing may be imported, executed,
connected, started or written (an audit hook says so), and no more memory be taken than 64 MiB and a
few times the file's size; of an image, than its pixels take where they are as many as are accepted.
Prints JSON; a failing example ends with Hypothesis' report of it.

    python tests/benchmarks/fuzz_files.py [--minutes 2] [--seed 0]
"""

import argparse
import codecs
import io
import json
import pickle
import resource
import sys
import tempfile
import time
import zipfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from cifar_cnn.data.images import FORMATS, MAX_PIXELS, read_image
from cifar_cnn.errors import CheckpointError, DataError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.checkpoint import Checkpoint, pack, read_checkpoint

EXAMPLES = 200  # between two looks at the clock
HEADROOM = 64 << 20
LARGEST_IMAGE = 8 * MAX_PIXELS  # bytes: as it was decoded, and as RGB, 4 bytes a pixel each
FORBIDDEN = (
    *("exec", "compile", "import", "os.", "subprocess.", "socket.", "shutil.", "ctypes."),
    *("pickle.find_class", "marshal.", "urllib.", "webbrowser.", "tempfile."),
)
HARMLESS = {"os.scandir", "os.listdir"}
NAMES = [
    *("posix system", "builtins eval", "builtins exec", "builtins getattr", "builtins bytearray"),
    *("torch Tensor", "torch FloatStorage", "torch.storage UntypedStorage", "torch Size"),
    *("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch BFloat16Storage"),
    *("torch._utils _rebuild_parameter", "torch.serialization os.system", "../../evil x"),
    *("_codecs encode", "copyreg _reconstructor", "numpy dtype", "torch.nn.modules.linear Linear"),
]
INSTRUCTIONS = [
    bytes([getattr(pickle, name)[0]])
    for name in (
        *("MARK", "STOP", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "EMPTY_DICT", "EMPTY_LIST"),
        *("EMPTY_TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "TUPLE", "TUPLE1", "TUPLE2"),
        *("TUPLE3", "REDUCE", "BUILD", "NEWOBJ", "BINPERSID", "OBJ", "STACK_GLOBAL", "MEMOIZE"),
    )
]

guarded = []


class ForbiddenError(Exception):
    """Reading a file did what it has no need of; torch's own assertions are only refusals."""


def watch(event, arguments):
    """Refuse, while a file is read, whatever reading it has no need of."""
    if not guarded or event in HARMLESS:
        return
    if event == "open":
        if str(arguments[0]) != guarded[-1] or "w" in str(arguments[1]):
            raise ForbiddenError(f"{event}{arguments}")
    elif event.startswith(FORBIDDEN):
        guarded.clear()
        raise ForbiddenError(f"{event}{arguments}")


@contextmanager
def guard(path, headroom):
    """Have the audit hook watch, and the memory limited to what the file may take."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + headroom + 5 * path.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (most, -1))
    guarded.append(str(path))
    try:
        yield
    finally:
        guarded.clear()
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))


def read(path, reader, refusal, headroom):
    """Return how the reading ended: `read` or `refused`."""
    refused = None
    with guard(path, headroom):
        try:
            reader(path)
        except refusal as error:
            refused = error
    if refused is None:
        return "read"
    assert "\n" not in str(refused), refused
    assert len(str(refused)) < 600, refused
    cause = refused
    while cause is not None:
        assert not isinstance(cause, MemoryError | ForbiddenError), repr(cause)
        assert "allocate" not in str(cause)[:1000], cause
        cause = cause.__cause__ or cause.__context__
    return "refused"


@st.composite
def programs(draw):
    """A pickle program: random instructions, some with arguments."""
    number = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1))
    with_arguments = st.one_of(
        st.sampled_from(NAMES).map(lambda name: b"c" + name.replace(" ", "\n").encode() + b"\n"),
        st.integers(-(2**2000), 2**2000).map(lambda n: pickle.dumps(n, 2)[2:-1]),
        st.floats().map(lambda x: pickle.dumps(x, 2)[2:-1]),
        st.sampled_from(["storage", "format", "cifar-cnn/1", "settings", "0", "cpu", "weight"]).map(
            lambda text: pickle.dumps(text, 2)[2:-1]
        ),
        number.map(lambda n: b"r" + n.to_bytes(4, "little")),
        number.map(lambda n: b"j" + n.to_bytes(4, "little")),
        number.map(lambda n: b"X" + n.to_bytes(4, "little") + b"ab"),
        st.binary(max_size=4),
    )
    parts = draw(st.lists(st.one_of(st.sampled_from(INSTRUCTIONS), with_arguments), max_size=40))
    return b"\x80\x02" + b"".join(parts) + b"."


@st.composite
def archives(draw):
    """An archive as torch.save writes it, or nearly, around a random program."""
    buffer = io.BytesIO()
    compression = draw(st.sampled_from([zipfile.ZIP_STORED] * 4 + [zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", draw(programs()))
        for key in range(draw(st.integers(0, 2))):
            file.writestr(f"archive/data/{key}", bytes(draw(st.integers(0, 64))))
        if draw(st.booleans()):
            file.writestr("archive/byteorder", draw(st.sampled_from([b"little", b"big", b"?"])))
        file.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def spoiled(originals):
    """One of the contents with bytes changed, cut out or repeated."""

    @st.composite
    def spoil(draw):
        content = bytearray(draw(st.sampled_from(originals)))
        for _ in range(draw(st.integers(1, 5))):
            at = draw(st.integers(0, len(content)))
            length = draw(st.integers(0, 40))
            kind = draw(st.sampled_from(["change", "cut", "repeat", "end"]))
            if kind == "change":
                content[at : at + 4] = draw(st.binary(min_size=4, max_size=4))
            elif kind == "cut":
                del content[at : at + length]
            elif kind == "repeat":
                content[at:at] = content[at : at + length]
            else:
                del content[at:]
        return bytes(content)

    return spoil()


def checkpoints(folder):
    """Return the contents of a checkpoint, sealed and not, and of a state dict."""
    whole = Checkpoint(
        model="baseline",
        classes=("a", "b"),
        settings=resolve_settings(),
        metrics={"epoch": 1},
        state_dict={"weight": torch.arange(6.0)},
        training={"epoch": 1, "history": []},
    )
    (folder / "whole.pt").write_bytes(pack(whole))
    torch.save({"weight": torch.arange(6.0)}, folder / "bare.pt")
    content = (folder / "whole.pt").read_bytes()
    return [content, content[:-64] + b"0" * 64, content[:-81], (folder / "bare.pt").read_bytes()]


def images():
    """Return the contents of an image in each format that is read."""
    noise = np.random.RandomState(0).randint(0, 256, (16, 16, 3), dtype=np.uint8)
    contents = []
    for kind in FORMATS:
        file = io.BytesIO()
        Image.fromarray(noise).save(file, kind)
        contents.append(file.getvalue())
    return contents


def fuzz(strategy, path, reader, refusal, counts, deadline, first_seed):
    """Try examples until the deadline."""

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(strategy)
    def example(content):
        path.write_bytes(content)
        headroom = LARGEST_IMAGE if path.name == "images" else HEADROOM
        counts[read(path, reader, refusal, headroom)] += 1

    number = first_seed
    while time.monotonic() < deadline:
        seed(number)(example)()
        number += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report = {"seconds": 60 * arguments.minutes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = {
            "programs": (archives(), read_checkpoint, CheckpointError),
            "checkpoints": (spoiled(checkpoints(folder)), read_checkpoint, CheckpointError),
            "images": (spoiled(images()), lambda path: read_image(path, (32, 32)), DataError),
        }
        for content in [*checkpoints(folder)[3:], *images()]:  # what is imported on first use
            (folder / "warm").write_bytes(content)
            for _, reader, refusal in kinds.values():
                try:
                    reader(folder / "warm")
                except refusal:
                    continue
        for codec in ("cp437", "raw_unicode_escape"):  # of zip's names and pickle's texts
            codecs.lookup(codec)
        sys.addaudithook(watch)
        for kind, (strategy, reader, refusal) in kinds.items():
            counts = Counter()
            deadline = time.monotonic() + 60 * arguments.minutes / len(kinds)
            fuzz(strategy, folder / kind, reader, refusal, counts, deadline, arguments.seed)
            report[kind] = dict(counts)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
