"""Hostile files: nothing in them runs, none takes much memory, each is one line."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from cifar_cnn.errors import CheckpointError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.archive import save_archive
from cifar_cnn.storage.checkpoint import read_checkpoint

MEGABYTE = 1 << 20
SETTINGS = resolve_settings().model_dump(mode="json")


def archive(program, records=None, *, compression=zipfile.ZIP_STORED, extra=()):
    """Return an archive as torch.save writes it, around a pickle program of our own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        entries = {"data.pkl": program, "byteorder": b"little", "version": b"3\n"}
        entries |= {f"data/{key}": value for key, value in (records or {}).items()}
        for name, content in entries.items():
            file.writestr(f"archive/{name}", content)
        for name, content in extra:
            file.writestr(name, content)
    return buffer.getvalue()


def call(name, *arguments, opcode=pickle.REDUCE):
    """Return a program that calls the global of that name."""
    return (
        b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n" + plain(arguments) + opcode + b"."
    )


def tensor(*, numel=4, size=(4,), stride=(1,), offset=0, kind="FloatStorage"):
    """Return a program for {"weight": a tensor over the record `data/0`}."""
    storage = b"(" + plain("storage") + b"ctorch\n" + kind.encode() + b"\n"
    storage += plain("0") + plain("cpu") + plain(numel) + b"tQ"
    view = plain(offset) + plain(size) + plain(stride)
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view
    rebuild += b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}X\x06\x00\x00\x00weight" + rebuild + b"s."


def plain(value):
    """Return the opcodes that make a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def overlapping(count):
    """Return an archive whose directory lists one record of a megabyte many times."""
    content = archive(b"\x80\x02}.", {"0": bytes(MEGABYTE)})
    end = content.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", content[end + 16 : end + 20])[0]
    directory = content[start:end]
    last = directory[directory.rindex(b"PK\x01\x02") :]
    more = b"".join(last.replace(b"data/0", b"dat%03d" % index) for index in range(count))
    entries = struct.unpack("<H", content[end + 10 : end + 12])[0] + count
    tail = struct.pack("<HHII", entries, entries, len(directory) + len(more), start)
    return content[:end] + more + content[end : end + 8] + tail + b"\0\0"


def legacy():
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def checkpoint(**changes):
    payload = {
        "format": "cifar-cnn/1",
        "model": "baseline",
        "classes": ("a", "b"),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "settings": SETTINGS,
        "metrics": {},
        "state_dict": {"weight": torch.ones(1)},
        "training": None,
    }
    return save_archive(payload | changes)


def laughs(depth=60):
    """Return nested lists that are small in a file, and larger than the universe when shown."""
    nested = ["ha"]
    for _ in range(depth):
        nested = [nested, nested]
    return nested


def endless():
    nested = []
    nested.append(nested)
    return nested


CODE = {
    "os.system": call("posix system", "touch executed"),
    "eval": call("builtins eval", "open('executed', 'w')"),
    "eval by its old name": call("__builtin__ eval", "open('executed', 'w')"),
    "nested global": call("torch.serialization os.system", "touch executed"),
    "unicode as module": call("\u043es system", "touch executed"),
    "getattr": call("builtins getattr", "x", "y"),
    "newobj": call("subprocess Popen", "touch executed", opcode=pickle.NEWOBJ),
    "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0etouch executed\x85R.",
    "inst": b"(S'touch executed'\niposix\nsystem\n.",
    "obj": b"(cposix\nsystem\nS'touch executed'\no.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Pos.system\n.",
    "build": b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.",
    "bytearray": call("builtins bytearray", 10**13),
    "tensor class": call("torch Tensor", 10**12),
    "untyped storage": call("torch.storage UntypedStorage", 10**13),
    "memo": b"\x80\x02}r\xff\xff\xff\xff.",
    "long string": b"\x80\x02X\xff\xff\xff\xff.",
    "long bytes": b"\x80\x02\x8e" + b"\xff" * 7 + b"\x7f.",
    "frame": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f.",
    "nothing": b"",
    "no stop": b"\x80\x02}",
    "empty stack": b"\x80\x02.",
    "many objects": b"\x80\x02" + b"]" * 600_000 + b".",
    "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "unhashable": b"\x80\x02}]K\x01s.",
}
TENSORS = {
    "storage larger than its record": tensor(numel=1 << 40, size=(1 << 40,)),
    "tensor larger than its storage": tensor(size=(1 << 40,)),
    "offset outside": tensor(offset=1 << 40),
    "negative size": tensor(size=(-4,)),
    "negative stride": tensor(stride=(-1,)),
    "negative storage": tensor(numel=-1),
    "overflow": tensor(size=(1 << 62, 1 << 62), stride=(1, 1)),
    "storage of objects": tensor(kind="ObjectStorage"),
    "storage on a GPU": tensor(kind="cuda.FloatStorage"),
}
ARCHIVES = {
    "compressed code": archive(b"\x80\x02}.", compression=zipfile.ZIP_DEFLATED),
    "zip bomb": archive(
        tensor(numel=10 * MEGABYTE, size=(10 * MEGABYTE,)),
        {"0": bytes(40 * MEGABYTE)},
        compression=zipfile.ZIP_DEFLATED,
    ),
    "overlapping": overlapping(500),
    "many entries": archive(b"\x80\x02}.", extra=[(f"archive/{i}", b"") for i in range(20_001)]),
    "torchscript": archive(
        b"\x80\x02}.", extra=[("archive/constants.pkl", b"\x80\x02)."), ("archive/code/a.py", b"")]
    ),
    "two roots": archive(b"\x80\x02}.", extra=[("other/data.pkl", call("posix system", "id"))]),
    "no pickle": archive(b"\x80\x02}.").replace(b"data.pkl", b"data.pkx"),
    "path out": archive(b"\x80\x02}.", extra=[("../../evil", b"")]),
    "before zip": legacy(),
    "plain pickle": pickle.dumps({"weight": 1}),
    "text": b"hello",
    "empty": b"",
    "list": save_archive([1, 2]),
    "numbers": save_archive({"weight": 3}),
    "a whole network": save_archive(torch.nn.Linear(2, 2)),
    "a future format": save_archive({"format": "cifar-cnn/9"}),
    "only the end": b"PK\x05\x06" + bytes(18),
    "only the start": b"PK\x03\x04",
}
CHECKPOINTS = {
    "settings a list": checkpoint(settings=[1]),
    "settings a tensor": checkpoint(settings=torch.ones(3)),
    "settings nested": checkpoint(settings={"lr": laughs()}),
    "settings named by laughs": checkpoint(settings={"lr": 0.1, "x" * 10**6: 3}),
    "settings a huge number": checkpoint(settings=SETTINGS | {"epochs": 1 << 2000}),
    "settings not a number": checkpoint(settings=SETTINGS | {"lr": float("nan")}),
    "format nested": checkpoint(format=laughs()),
    "format a tensor": checkpoint(format=torch.ones(2)),
    "format with escapes": checkpoint(format="\x1b[31m\nred"),
    "classes a number": checkpoint(classes=7),
    "classes nested": checkpoint(classes=laughs()),
    "metrics nested": checkpoint(metrics={"epoch": laughs()}),
    "metrics endless": checkpoint(metrics=endless()),
    "model a list": checkpoint(model=["os:system"]),
    "weights numbers": checkpoint(state_dict={"weight": 3}),
    "weights endless": checkpoint(state_dict=endless()),
    "surplus": checkpoint(surplus=laughs()),
}
CORPUS = (
    {name: archive(program) for name, program in CODE.items()}
    | {name: archive(program, {"0": bytes(16)}) for name, program in TENSORS.items()}
    | ARCHIVES
    | CHECKPOINTS
)


def test_the_programs_here_are_read_where_they_are_harmless(tmp_path):
    (tmp_path / "x.pt").write_bytes(archive(tensor(), {"0": struct.pack("<4f", 1, 2, 3, 4)}))
    assert read_checkpoint(tmp_path / "x.pt")["weight"].tolist() == [1, 2, 3, 4]
    (tmp_path / "y.pt").write_bytes(checkpoint())
    assert read_checkpoint(tmp_path / "y.pt").classes == ("a", "b")


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_file_is_one_line_and_runs_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("bad.pt").write_bytes(CORPUS[name])
    with pytest.raises(CheckpointError, match=r"bad\.pt") as caught:
        read_checkpoint(Path("bad.pt"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and setrlimit")
def test_no_hostile_file_takes_more_memory_than_a_few_times_its_size(tmp_path):
    for index, content in enumerate(CORPUS.values()):
        (tmp_path / f"{index}.pt").write_bytes(content)
    large = {"weight": torch.ones(5 * MEGABYTE)}
    torch.save(large, tmp_path / "harmless.pt")
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from cifar_cnn.errors import CheckpointError\n"
        "from cifar_cnn.storage.checkpoint import read_checkpoint\n"
        "folder = Path(sys.argv[1])\n"
        "read_checkpoint(folder / 'harmless.pt')\n"
        "constant = 160 << 20\n"
        "for path in folder.iterdir():\n"
        "    pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "    most = pages * resource.getpagesize() + constant + 5 * path.stat().st_size\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (most, -1))\n"
        "    try:\n"
        "        read_checkpoint(path)\n"
        "    except CheckpointError as error:\n"
        "        assert path.name != 'harmless.pt'\n"
        "        while error:\n"
        "            assert not isinstance(error, MemoryError), path\n"
        "            assert 'allocate' not in str(error), (path, error)\n"
        "            error = error.__cause__ or error.__context__\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs /dev")
@pytest.mark.parametrize("name", ["/dev/zero", "."])
def test_what_is_no_file_is_not_read(name):
    with pytest.raises(CheckpointError, match="not a file"):
        read_checkpoint(Path(name))
