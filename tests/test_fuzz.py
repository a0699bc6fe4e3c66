"""Fuzzing of what reads untrusted files: checkpoints and images.

Each example is a file made by Hypothesis: a pickle program of random instructions in an archive
with random faults, or a real checkpoint or image with bytes changed, cut out or repeated. Reading
it gives a checkpoint (or pixels) or a one-line error. Meanwhile nothing is imported, executed,
connected, started or written, which an audit hook checks, and memory is limited to 64 MiB and five
times the file's size; for an image, to what the largest accepted number of pixels takes.

`CIFAR_CNN_FUZZ_EXAMPLES=10000 pytest tests/test_fuzz.py` tries 10,000 files of a kind, not 300.
"""

import codecs
import io
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from cifar_cnn.data.images import FORMATS, MAX_PIXELS, read_image
from cifar_cnn.errors import CheckpointError, DataError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.checkpoint import Checkpoint, pack, read_checkpoint

EXAMPLES = int(os.environ.get("CIFAR_CNN_FUZZ_EXAMPLES", "300"))
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

guarded = []  # the file that is being read


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and setrlimit")
def test_fuzzed_checkpoints_and_images_are_read_or_refused():
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class ForbiddenError(Exception):
    """Reading a file did what it has no need of; torch's own assertions are only refusals."""


def watch(event, arguments):
    """Refuse, while a file is read, whatever reading it has no need of."""
    if not guarded or event in HARMLESS:
        return
    is_other = event == "open" and (str(arguments[0]) != guarded[-1] or "w" in str(arguments[1]))
    if is_other or event.startswith(FORBIDDEN):
        guarded.clear()
        raise ForbiddenError(f"{event}{arguments}")


@contextmanager
def guard(path, headroom):
    """Have the audit hook watch, and the memory limited to what the file may take."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + headroom + 5 * path.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (most, -1))
    guarded.append(str(path))
    try:
        yield
    finally:
        guarded.clear()
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))


def check_reading(path, reader, refusal, headroom):
    cause = None
    try:
        with guard(path, headroom):
            reader(path)
    except refusal as error:
        cause = error
    assert "\n" not in str(cause)
    assert len(str(cause)) < 600
    while cause is not None:
        assert not isinstance(cause, MemoryError | ForbiddenError), repr(cause)
        assert "allocate" not in str(cause)[:1000], cause
        cause = cause.__cause__ or cause.__context__


@st.composite
def programs(draw):
    """A pickle program: random instructions, some with arguments."""
    number = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1))
    texts = ["storage", "format", "cifar-cnn/1", "settings", "0", "cpu", "weight"]
    values = st.one_of(st.integers(-(2**2000), 2**2000), st.floats(), st.sampled_from(texts))
    with_arguments = st.one_of(
        st.sampled_from(NAMES).map(lambda name: b"c" + name.replace(" ", "\n").encode() + b"\n"),
        values.map(lambda value: pickle.dumps(value, 2)[2:-1]),
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


@st.composite
def spoiled(draw, originals):
    """One of the contents with bytes changed, cut out or repeated."""
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


def checkpoints():
    """Return the contents of a checkpoint, with and without its digest, and of a state dict."""
    content = pack(
        Checkpoint(
            model="baseline",
            classes=("a", "b"),
            settings=resolve_settings(),
            metrics={"epoch": 1},
            state_dict={"weight": torch.arange(6.0)},
            training={"epoch": 1, "history": []},
        )
    )
    bare = io.BytesIO()
    torch.save({"weight": torch.arange(6.0)}, bare)
    return [content, content[:-64] + b"0" * 64, content[:-81], bare.getvalue()]


def images():
    """Return the contents of an image in each format that is read."""
    noise = np.random.RandomState(0).randint(0, 256, (16, 16, 3), dtype=np.uint8)
    files = [io.BytesIO() for _ in FORMATS]
    for file, kind in zip(files, FORMATS, strict=True):
        Image.fromarray(noise).save(file, kind)
    return [file.getvalue() for file in files]


def fuzz(strategy, path, *kind):
    @seed(0)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(strategy)
    def example(content):
        path.write_bytes(content)
        check_reading(path, *kind)

    example()


def main(path):
    decoded = 8 * MAX_PIXELS  # bytes: as it was decoded, and as RGB, 4 bytes a pixel each
    checkpoint = read_checkpoint, CheckpointError, 64 << 20
    image = lambda file: read_image(file, (32, 32)), DataError, decoded
    for content in [*checkpoints()[3:], *images()]:  # what is imported on first use
        path.write_bytes(content)
        for reader, refusal, _ in (checkpoint, image):
            with suppress(refusal):
                reader(path)
    for codec in ("cp437", "raw_unicode_escape"):  # of zip's names and pickle's texts
        codecs.lookup(codec)
    sys.addaudithook(watch)
    fuzz(archives(), path, *checkpoint)
    fuzz(spoiled(checkpoints()), path, *checkpoint)
    fuzz(spoiled(images()), path, *image)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder) / "file")
