#!/usr/bin/env python3
"""Unpacks the Kafka records that skerry packs: many records of a log in the value of one.

One file, for Python 3.9 and later; needs `zstandard` (`pip install zstandard`), or Python 3.14,
whose own `compression.zstd` it takes. The format is in `FORMAT.md` beside this folder.

With confluent-kafka:

    from confluent_kafka import Consumer
    import skerry_pack

    consumer = Consumer({
        "bootstrap.servers": "kafka:9092",
        "group.id": "historian",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
    })
    consumer.subscribe(["skerry.telemetry"])
    while True:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        for row in skerry_pack.unpack_message(message):
            print(row.offset, row.key, row.value, row.header("skerry-node"))
        consumer.commit(message)

`unpack_message` gives a record that is not packed as the one row that it is, so that a topic may
hold both. Commit after *all* rows of a message: the cluster only counts messages.

As a program it prints rows as JSON, bytes in base64:

    python3 skerry_pack.py FILE...
"""

import base64
import json
import sys
from typing import List, NamedTuple, Optional, Tuple

try:
    from compression import zstd as _zstd  # Python 3.14
except ImportError:
    _zstd = None
    import zstandard as _zstandard

__all__ = ["Row", "PackError", "is_packed", "summary", "unpack", "unpack_message"]

MAGIC = b"\xf5SKP"
ROWS_MAX = 1 << 16
UNPACKED_BYTES_MAX = 48 << 20
VALUES_MAX = 1 << 19
COLUMN_BYTES_MAX = 64 << 20

Header = Tuple[bytes, Optional[bytes]]


class PackError(ValueError):
    """These bytes are no packed block, or a damaged one."""


class Row(NamedTuple):
    """One record as it was before it was packed."""

    offset: int
    timestamp_ms: int
    key: Optional[bytes]
    value: Optional[bytes]
    headers: List[Header]

    def header(self, name: str) -> Optional[bytes]:
        """The value of the first header of that name."""
        wanted = name.encode()
        return next((value for found, value in self.headers if found == wanted), None)


class Summary(NamedTuple):
    """What the head of a block tells."""

    first_offset: int
    last_offset: int
    rows: int
    unpacked_bytes: int


def is_packed(value: Optional[bytes]) -> bool:
    """Whether a record's value is a block."""
    return value is not None and value[:4] == MAGIC


def summary(value: bytes) -> Summary:
    """Reads the head alone."""
    return _head(bytes(value))[0]


def unpack(value: bytes) -> List[Row]:
    """The rows of a block, in the order of their offsets."""
    value = bytes(value)
    head, compressed, sizes, at = _head(value)
    column_bytes, stored_bytes, bit_bytes = sizes
    columns_end = at + stored_bytes
    content = columns_end + bit_bytes
    if len(value) != content + 4:
        raise PackError(f"malformed length of the block: {len(value)} bytes instead of {content + 4}")
    stated = int.from_bytes(value[content:], "little")
    found = _crc32c(value[:content])
    if stated != found:
        raise PackError(f"the block is damaged: its checksum is {found:08x}, it says {stated:08x}")
    section = value[at:columns_end]
    if compressed:
        section = _decompress(section, column_bytes)
    return _Block(head, section, value[columns_end:content]).rows()


def unpack_message(message) -> List[Row]:
    """The rows of a message of confluent-kafka's, packed or not."""
    value = message.value()
    if is_packed(value):
        return unpack(value)
    headers = [(name.encode(), content) for name, content in message.headers() or []]
    offset = next((content for name, content in headers if name == b"skerry-offset"), None)
    offset = int(offset) if offset is not None and offset.isdigit() else message.offset()
    return [Row(offset, message.timestamp()[1], message.key(), value, headers)]


def _head(value):
    if not is_packed(value):
        raise PackError("this is no packed block: it does not begin with F5 53 4B 50")
    cursor = _Cursor(value, "head")
    cursor.take(4)
    version = cursor.byte()
    if version != 1:
        raise PackError(f"this is a block of format version {version}, known is version 1")
    flags = cursor.byte()
    if flags & ~1:
        raise cursor.malformed("flags")
    first, span = cursor.varint(), cursor.varint()
    rows = cursor.at_most(ROWS_MAX, "number of rows")
    if rows == 0 or span < rows - 1 or (rows == 1 and span) or first + span >= 1 << 64:
        raise cursor.malformed("number of rows")
    unpacked_bytes = cursor.at_most(UNPACKED_BYTES_MAX, "number of unpacked bytes")
    sizes = (
        cursor.at_most(COLUMN_BYTES_MAX, "length of the column section"),
        cursor.at_most(len(value), "stored length of the columns"),
        cursor.at_most(len(value), "length of the bit section"),
    )
    if not flags and sizes[0] != sizes[1]:
        raise cursor.malformed("length of the column section")
    return Summary(first, first + span, rows, unpacked_bytes), flags == 1, sizes, cursor.at


class _Cursor:
    """Bytes of a section, from the front."""

    def __init__(self, data, section):
        self.data, self.at, self.section = data, 0, section

    def malformed(self, what):
        return PackError(f"malformed {what} at byte {self.at} of the {self.section}")

    def byte(self):
        if self.at >= len(self.data):
            raise self.malformed("end")
        self.at += 1
        return self.data[self.at - 1]

    def take(self, count):
        start, self.at = self.at, self.at + count
        if self.at > len(self.data):
            raise self.malformed("end")
        return self.data[start : self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64:
                    raise self.malformed("number")
                return value
            shift += 7
            if shift > 63:
                raise self.malformed("number")

    def at_most(self, most, what):
        value = self.varint()
        if value > most:
            raise PackError(f"{what} is {value}, a block may have {most}")
        return value


class _Bits:
    """The bit section, low bits first."""

    def __init__(self, data):
        self.data, self.at, self.held, self.count = data, 0, 0, 0

    def take(self, count):
        while self.count < count:
            chunk = self.data[self.at : self.at + 8]
            if not chunk:
                raise PackError("malformed end of the bit section")
            self.held |= int.from_bytes(chunk, "little") << self.count
            self.at += len(chunk)
            self.count += 8 * len(chunk)
        value = self.held & ((1 << count) - 1)
        self.held >>= count
        self.count -= count
        return value

    def rice(self, parameter):
        ones = 0
        while ones < 12 and self.take(1):
            ones += 1
        if ones < 12:
            return ones << parameter | self.take(parameter)
        return self.take(self.take(6) + 1)

    def end(self):
        if self.at < len(self.data) or self.count >= 8 or self.held:
            raise PackError("malformed end of the bit section")


class _Rows(NamedTuple):
    """What is known of a column's rows before it is read."""

    count: int
    by_key: Optional[List[int]] = None
    timestamps: Optional[List[int]] = None


class _Shape:
    def __init__(self, literals, kinds):
        self.literals, self.kinds = literals, kinds
        self.rows, self.columns = [], []


class _Block:
    def __init__(self, head, section, bits):
        self.head, self.columns, self.bits = head, _Cursor(section, "column section"), _Bits(bits)
        self.bytes_left = head.unpacked_bytes

    def rows(self):
        head = self.head
        key_ids, keys = self.text_ids(_Rows(head.rows))
        by_key = sorted(range(head.rows), key=key_ids.__getitem__)
        everything = _Rows(head.rows, by_key)
        headers, header_ids = self.shapes(everything)
        payloads, payload_ids = self.shapes(everything)
        values = sum(len(s.rows) * len(s.kinds) for s in headers + payloads)
        if values > VALUES_MAX:
            raise PackError(f"number of values is {values}, a block may have {VALUES_MAX}")
        offsets = self.numbers(everything)
        self.read_columns(headers, header_ids, by_key, None)
        timestamps = self.timestamps(everything, headers)
        self.read_columns(payloads, payload_ids, by_key, timestamps)
        if self.columns.at != len(self.columns.data):
            raise self.columns.malformed("end")
        self.bits.end()

        all_headers = self.in_rows(headers, self.header_rows)
        all_payloads = self.in_rows(payloads, self.payload_rows)
        rows, before = [], -1
        for row in range(head.rows):
            offset = (head.first_offset + offsets[row]) & 0xFFFFFFFFFFFFFFFF
            if offset <= before or (row == 0 and offset != head.first_offset):
                raise PackError("malformed offset of a row")
            before, key = offset, keys[key_ids[row]]
            self.count(len(key))
            rows.append(Row(offset, timestamps[row], key, all_payloads[row], all_headers[row]))
        if before != head.last_offset or self.bytes_left:
            raise PackError("malformed last offset or number of unpacked bytes")
        return rows

    def count(self, length):
        """A few bytes may say that something long is repeated without end."""
        self.bytes_left -= length
        if self.bytes_left < 0:
            raise PackError("malformed number of unpacked bytes")

    def shapes(self, rows):
        shapes, pieces_left = [], VALUES_MAX
        columns = self.columns
        for _ in range(columns.at_most(rows.count, "number of shapes")):
            pieces = columns.at_most(pieces_left, "number of pieces")
            pieces_left -= pieces
            kinds = columns.take(pieces)
            if any(kind > 3 and not 16 <= kind <= 25 for kind in kinds):
                raise columns.malformed("kind of a piece")
            lengths = [columns.at_most(len(columns.data), "length of a literal") for _ in range(pieces + 1)]
            shapes.append(_Shape([columns.take(length) for length in lengths], kinds))
        ids = [0] * rows.count if len(shapes) == 1 else self.numbers(rows)
        for row, number in enumerate(ids):
            if not 0 <= number < len(shapes):
                raise columns.malformed("number of a shape")
            shapes[number].rows.append(row)
        if not all(shape.rows for shape in shapes):
            raise columns.malformed("shape without rows")
        return shapes, ids

    def read_columns(self, shapes, ids, by_key, timestamps):
        place = {}
        for shape in shapes:
            place.update((row, number) for number, row in enumerate(shape.rows))
        orders = [[] for _ in shapes]
        for row in by_key:
            orders[ids[row]].append(place[row])
        for shape, order in zip(shapes, orders):
            times = timestamps and [timestamps[row] for row in shape.rows]
            rows = _Rows(len(shape.rows), order, times)
            shape.columns = [self.column(kind, rows) for kind in shape.kinds]

    def column(self, kind, rows):
        """The texts of a column, a function of the row; and its whole numbers, if it has some."""
        if kind in (0, 3):
            ids, texts = self.text_ids(rows)
            return lambda row: texts[ids[row]], None
        if kind == 1:
            return self.decimals(rows)
        if kind == 2:
            return lambda row: None, None
        numbers = self.numbers(rows)
        return lambda row: _time(numbers[row], kind - 16), None

    def decimals(self, rows):
        how = self.columns.byte()
        most, how = how >> 2, how & 3
        if most > 18 or how > 2:
            raise self.columns.malformed("decimals of a column")
        if how == 0:
            values = self.numbers(rows)
            return lambda row: _decimal(values[row], most), None if most else values
        if how == 2:
            each = self.numbers(rows)
            if not all(0 <= decimals <= most for decimals in each):
                raise self.columns.malformed("decimals of a column")
            values = self.numbers(rows)
            return lambda row: _decimal(values[row], each[row]), None
        least = self.columns.byte()
        values = self.numbers(rows)

        def trimmed(row):
            value, decimals = values[row], most
            while decimals > least and value % 10 == 0:
                value //= 10
                decimals -= 1
            return _decimal(value, decimals)

        return trimmed, None

    def text_ids(self, rows):
        columns = self.columns
        count = columns.at_most(rows.count, "number of texts")
        lengths = [columns.at_most(len(columns.data), "length of a text") for _ in range(count)]
        texts = [columns.take(length) for length in lengths]
        ids = [0] * rows.count if count == 1 else self.numbers(rows)
        if not all(0 <= number < count for number in ids):
            raise columns.malformed("number of a text")
        return ids, texts

    def numbers(self, rows):
        columns = self.columns
        head = columns.byte()
        code, differences = head & 3, head >> 2 & 3
        if head >> 6 or code > 2 or differences > 2 or differences > rows.count:
            raise columns.malformed("coding of a column")
        first = [_unzigzag(columns.varint()) for _ in range(differences)]
        left = rows.count - differences
        if code == 0:
            rest = [_unzigzag(columns.varint())] * left
        elif code == 1:
            rest = [_unzigzag(columns.varint()) for _ in range(left)]
        else:
            parameter = columns.byte()
            if parameter > 63:
                raise columns.malformed("parameter of a column")
            rest = [_unzigzag(self.bits.rice(parameter)) for _ in range(left)]
        if differences == 1:
            rest = _sums(first[0], rest)
        elif differences == 2:
            steps = _sums(first[1], rest)
            rest = _sums(first[0], steps)
        if head & 16:
            if rows.by_key is None:
                raise columns.malformed("order of a column")
            ordered, rest = rest, [0] * rows.count
            for row, value in zip(rows.by_key, ordered):
                rest[row] = value
        if head & 32:
            if rows.timestamps is None:
                raise columns.malformed("relation of a column to timestamps")
            rest = [_signed(value + time) for value, time in zip(rest, rows.timestamps)]
        return rest

    def timestamps(self, rows, headers):
        source = self.columns.byte()
        if source == 0:
            return self.numbers(rows)
        if source != 1:
            raise self.columns.malformed("source of timestamps")
        timestamps = [0] * rows.count
        for shape in headers:
            piece = self.columns.varint()
            nanos = shape.columns[piece][1] if piece < len(shape.columns) else None
            if nanos is None:
                raise self.columns.malformed("source of timestamps")
            for row, nano in zip(shape.rows, nanos):
                timestamps[row] = nano // 1_000_000
        return timestamps

    def in_rows(self, shapes, of_shape):
        result = [None] * self.head.rows
        for shape in shapes:
            for number, row in enumerate(shape.rows):
                result[row] = of_shape(shape, number)
        return result

    def header_rows(self, shape, number):
        headers = []
        for name, kind, (text, _) in zip(shape.literals, shape.kinds, shape.columns):
            value = text(number)
            if kind == 3:
                headers.extend(self.list_of_headers(value))
                continue
            self.count(len(name) + len(value or b""))
            headers.append((name, value))
        return headers

    def list_of_headers(self, text):
        cursor = _Cursor(text, "list of headers")
        while cursor.at < len(text):
            name = cursor.take(cursor.varint())
            length = cursor.varint()
            value = cursor.take(length - 1) if length else None
            self.count(len(name) + len(value or b""))
            yield name, value

    def payload_rows(self, shape, number):
        parts = [shape.literals[0]]
        for (text, _), literal in zip(shape.columns, shape.literals[1:]):
            parts += (text(number) or b"", literal)
        self.count(sum(map(len, parts)))
        return b"".join(parts)


def _signed(value):
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _unzigzag(value):
    return value >> 1 ^ -(value & 1)


def _sums(first, steps):
    sums = [first]
    for step in steps:
        first = _signed(first + step)
        sums.append(first)
    return sums


def _decimal(value, decimals):
    digits = str(abs(value)).rjust(decimals + 1, "0")
    sign = "-" if value < 0 else ""
    point = len(digits) - decimals
    fraction = "." + digits[point:] if decimals else ""
    return f"{sign}{digits[:point]}{fraction}".encode()


def _time(value, digits):
    seconds, part = divmod(value, 10**digits)
    days, second = divmod(seconds, 86_400)
    # `datetime` has no year 0, so the date is our own; years begin in March, leap days end them.
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    month = (month + 2) % 12 + 1
    year += era * 400 + (month < 3)
    if not 0 <= year <= 9_999:
        raise PackError("malformed time")
    fraction = f".{part:0{digits}}" if digits else ""
    clock = f"{second // 3_600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f"{year:04}-{month:02}-{day:02}T{clock}{fraction}".encode()


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def _crc32c(data):
    state, table = 0xFFFFFFFF, _CRC_TABLE
    for byte in data:
        state = state >> 8 ^ table[(state ^ byte) & 0xFF]
    return state ^ 0xFFFFFFFF


def _decompress(section, length):
    # One byte more is asked for than there may be, to notice what is longer.
    try:
        if _zstd is not None:
            decompressor = _zstd.ZstdDecompressor(_zstd.ZstdDict(_PRESET, is_raw=True))
            result = decompressor.decompress(section, max_length=length + 1)
        else:
            preset = _zstandard.ZstdCompressionDict(_PRESET, dict_type=_zstandard.DICT_TYPE_RAWCONTENT)
            decompressor = _zstandard.ZstdDecompressor(dict_data=preset)
            result = decompressor.stream_reader(section).read(length + 1)
    except Exception as error:
        raise PackError(f"malformed compressed column section: {error}") from error
    if len(result) != length:
        raise PackError(f"malformed compressed column section: {len(result)} bytes instead of {length}")
    return result


# `preset-1.txt`, which is part of the format.
_PRESET = (
    b'skerry-packfalsetruenullmqtt/opcua/gapscorealertnodecontent-typeapplication/json"}]}],"s'
    b'equence":,"seq":,"id":,"name":"","type":"","state":"","status":"good","quality":192,"ok"'
    b':true,"running":false,"alarm":null,"location":"","device":"","device_id":"","deviceId":"'
    b'","sensor_id":"","sensor":"pump/press/motor/plant/vibration","current":,"voltage":,"powe'
    b'r":,"speed":,"rpm":,"flow":,"level":,"pressure":,"humidity":,"temperature":,"values":[{"'
    b'tag":"","source":"","ts":","t":,"v":,"timestamp":"2026-01-01T00:00:00.000Z","time":,"uni'
    b't":"\xc2\xb0C"},"unit":"mm/s","unit":"bar","unit":"A","unit":"kWh"},{"value":,"unit":"}{"value'
    b'":skerry-status80000000skerry-source-timeskerry-server-timeskerry-nodeskerry-epochskerry'
    b'-streamtelemetryskerry-offsetskerry-kindmqttskerry-ingest-time'
)


def _text(data):
    return None if data is None else base64.b64encode(data).decode()


def _described(row):
    return {
        "offset": str(row.offset),
        "timestamp_ms": str(row.timestamp_ms),
        "key": _text(row.key),
        "value": _text(row.value),
        "headers": [[_text(name), _text(value)] for name, value in row.headers],
    }


def _main(paths):
    for path in paths:
        with open(path, "rb") as file:
            block = file.read()
        try:
            print(json.dumps({"rows": [_described(row) for row in unpack(block)]}))
        except PackError as error:
            print(json.dumps({"refused": str(error)}))


if __name__ == "__main__":
    _main(sys.argv[1:])
