"""Bytes of data files: decompressed by their suffix, text re-encoded as UTF-8 by its mark or by request."""

from __future__ import annotations

import codecs
import io
from pathlib import Path

import pyarrow as pa

from sst2_ray.errors import InputError

_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bz2"))
"""First bytes of compressed files."""
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHUNK_BYTES = 2**20


def open_bytes(path: Path) -> pa.NativeFile:
    """Open a file for reading, decompressed where its suffix or its first bytes say so. Raises InputError with one line."""
    try:
        compression = COMPRESSIONS.get(path.suffix.lower()) or _compression_of(path)
        return pa.input_stream(str(path), compression=compression)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None


def _compression_of(path: Path) -> str | None:
    with path.open("rb") as file:
        first = file.read(4)
    return next((name for magic, name in _MAGIC if first.startswith(magic)), None)


def open_text(path: Path, encoding: str | None = None) -> io.BufferedReader:
    """Open a text file as a stream of UTF-8 bytes without a byte order mark.

    Raises:
        InputError: Here or while reading: the bytes are not text of the encoding; names the line.
    """
    return io.BufferedReader(_Utf8Stream(path, encoding), _CHUNK_BYTES)


def read_sample(path: Path, encoding: str | None, num_bytes: int) -> str:
    """Read the first whole lines of a text file, about `num_bytes` of them."""
    with open_text(path, encoding) as file:
        content = file.read(num_bytes)
        if len(content) == num_bytes:
            content = content[: content.rfind(b"\n") + 1] or content
    return content.decode("utf-8", errors="ignore")


class _Utf8Stream(io.RawIOBase):
    """The text of a file as UTF-8 bytes; undecodable bytes raise an InputError that says what to do."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        self._path, self._source = path, open_bytes(path)
        self._first = self._read()
        self._given = encoding is not None
        found = next((name for mark, name in _MARKS if self._first.startswith(mark)), None)
        self.encoding = (found if _is_utf8(encoding) else encoding) or "utf-8"
        if encoding is None and found is None and b"\0" in self._first:
            raise InputError(f"{path}: holds zero bytes; if it is UTF-16 without its mark, pass --encoding utf-16-le")
        try:
            self._decoder = codecs.getincrementaldecoder(self.encoding)()
        except LookupError:
            raise InputError(f"--encoding {encoding}: Python knows no such encoding; e.g. cp1252, latin-1") from None
        self._num_lines, self._ready, self._ended = 0, b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready and not self._ended:
            self._ready = self._decode()
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _read(self) -> bytes:
        try:
            return bytes(self._source.read(_CHUNK_BYTES))
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{self._path}: cannot be read ({one_line(error)})") from None

    def _decode(self) -> bytes:
        chunk, self._first = self._first or self._read(), b""
        self._ended = not chunk
        try:
            text = self._decoder.decode(chunk, final=self._ended)
            content = text.encode()
        except UnicodeError as error:
            raise self._refusal(error) from None
        self._num_lines += content.count(b"\n")
        return content

    def _refusal(self, error: UnicodeError) -> InputError:
        if not isinstance(error, UnicodeDecodeError):  # half of a surrogate pair, or a missing mark
            return InputError(f"{self._path}: is not {self.encoding} ({one_line(error)})")
        rest = bytes(error.object)  # the bytes that the decoder was looking at
        line = self._num_lines + rest.count(b"\n", 0, error.start) + 1
        remedy = (
            "choose another --encoding" if self._given else f"pass --encoding {_likely_encoding(rest)} if it is that"
        )
        name = "UTF-8" if _is_utf8(self.encoding) else self.encoding
        return InputError(f"{self._path}: line {line} is not {name} (byte 0x{rest[error.start]:02x}); {remedy}")


def _is_utf8(encoding: str | None) -> bool:
    return encoding is None or encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")


def _likely_encoding(content: bytes) -> str:
    """Guess a single-byte encoding: Windows' cp1252 unless the bytes mean nothing there."""
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def one_line(error: BaseException) -> str:
    """Shorten an exception's message to its first line of at most 160 characters; its class where it has none."""
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].split())[:160] if lines else type(error).__name__
