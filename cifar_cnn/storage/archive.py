"""Read and write `.pt` files: add a digest on write, treat the content as untrusted on read."""

import hashlib
import io
import pickletools
import zipfile
from typing import Final

import torch

_ZIP_START: Final = b"PK\x03\x04"
_OLD_START: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # before torch 1.6
_ZIP_ENTRY: Final = b"PK\x01\x02"
_MARKER: Final = b"cifar-cnn sha256:"
_DIGEST_LENGTH: Final = 64
_MOST_ENTRIES: Final = 20_000
_MOST_OPCODES: Final = 500_000  # of 40 or so a tensor: 12,000 tensors

_ALLOWED: Final = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Bool", "Byte", "Char", "Short", "Int", "Long")),
    *(f"torch {kind}Storage" for kind in ("Half", "BFloat16", "Float", "Double")),
}
"""Names that a pickle of tensors, numbers, strings and containers refers to."""

_PROGRAM_ENTRIES: Final = {"constants.pkl", "archive_format", "serialized_exported_program.json"}
"""Entries that only archives of TorchScript and torch.export have, which hold their own code."""


class UnreadableArchiveError(ValueError):
    """Bytes that are no archive of torch.save, or not a harmless one; the message says why."""


def save_archive(payload: object) -> bytes:
    """Return torch.save's archive; its comment holds a digest of all bytes before the digest."""
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    content = buffer.getvalue()
    comment_length = len(_MARKER) + _DIGEST_LENGTH
    content = content[:-2] + comment_length.to_bytes(2, "little") + _MARKER
    return content + hashlib.sha256(content).hexdigest().encode()


def has_seal(content: bytes) -> bool:
    """Return whether the bytes carry a digest, right or wrong."""
    return content[:-_DIGEST_LENGTH].endswith(_MARKER)


def is_whole(content: bytes) -> bool:
    """Return whether the bytes carry a digest and it is right."""
    body, digest = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
    return has_seal(content) and hashlib.sha256(body).hexdigest().encode() == digest


def load_archive(content: bytes) -> object:
    """Return the content of an archive of torch.save, on the CPU; a digest, if any, must match.

    The archive is untrusted. Only names in `_ALLOWED` are called. Memory stays below a few times
    the archive's size plus a constant: entries are neither compressed nor overlap, tensors lie
    inside their entries, and the number of objects is limited. torch.load gets a new archive of the
    checked entries, as its own reader of zip files may see others.
    """
    if has_seal(content) and not is_whole(content):
        raise UnreadableArchiveError("its digest does not match its content")
    if content.startswith(_OLD_START):
        raise UnreadableArchiveError(
            "it has torch's format of before version 1.6: where it comes from, save it again with "
            "torch.save(torch.load(file, map_location='cpu'), new), or the state_dict() of what is "
            "loaded, if that is a network"
        )
    if not content.startswith(_ZIP_START):
        raise UnreadableArchiveError("not a file of torch.save")
    try:
        entries = _read_entries(content)
        for name, entry in entries.items():
            if name.endswith("/data.pkl"):
                _check_pickle(entry)
        clean = io.BytesIO()
        with zipfile.ZipFile(clean, "w") as archive:
            for name, entry in entries.items():
                archive.writestr(name, entry)
        clean.seek(0)
        return torch.load(clean, map_location="cpu", weights_only=True)
    except UnreadableArchiveError:
        raise
    except Exception as error:  # two parsers, fed by anybody
        raise UnreadableArchiveError("torch.load refuses it") from error


def _read_entries(content: bytes) -> dict[str, bytes]:
    if content.count(_ZIP_ENTRY) > _MOST_ENTRIES:
        raise UnreadableArchiveError(f"it has more than {_MOST_ENTRIES:,} entries")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        if _PROGRAM_ENTRIES & {info.filename.rpartition("/")[2] for info in infos}:
            raise UnreadableArchiveError(
                "it is a program of TorchScript or torch.export: give the weights that it was made "
                "from, as the run's model.pt"
            )
        are_plain = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
        if not are_plain or sum(info.file_size for info in infos) > len(content):
            raise UnreadableArchiveError("its entries are compressed, or larger than the file")
        entries = {info.filename: archive.read(info) for info in infos}
    if len(entries) != len(infos):
        raise UnreadableArchiveError("it has two entries of one name")
    return entries


def _check_pickle(content: bytes) -> None:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if count > _MOST_OPCODES:
            raise UnreadableArchiveError("it holds too many objects")
        if opcode.name == "GLOBAL" and argument not in _ALLOWED:
            raise UnreadableArchiveError(
                f"it refers to {argument!r}, which is not loaded: "
                "where it comes from, save the network's state_dict() alone"
            )
