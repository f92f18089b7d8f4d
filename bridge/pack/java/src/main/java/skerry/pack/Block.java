package skerry.pack;

import com.github.luben.zstd.ZstdDecompressCtx;
import com.github.luben.zstd.ZstdException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.zip.CRC32C;

/** A packed block: many records as the value of one. The format is in {@code FORMAT.md}. */
public final class Block {
    static final int VALUES_MAX = 1 << 19;
    private static final int ROWS_MAX = 1 << 16;
    private static final int UNPACKED_BYTES_MAX = 48 << 20;
    private static final int COLUMN_BYTES_MAX = 64 << 20;

    private static final byte[] MAGIC = {(byte) 0xf5, 'S', 'K', 'P'};
    private static final byte[] PRESET = preset();

    /** Of the first row, unsigned, like all offsets. */
    public final long firstOffset;
    public final long lastOffset;
    public final int rows;

    private final byte[] block;
    private final boolean compressed;
    private final int columnBytes;
    private final int columnsAt;
    private final int bitsAt;
    private final int contentBytes;
    /** Of what the head says, bytes that are not put together yet. */
    private int bytesLeft;

    /** Whether a record's value is a block. */
    public static boolean isPacked(byte[] value) {
        return value != null && value.length >= MAGIC.length && Arrays.equals(value, 0, MAGIC.length, MAGIC, 0, MAGIC.length);
    }

    /**
     * The rows of a block, in the order of their offsets.
     *
     * @throws PackException if this is no block, or a damaged one
     */
    public static List<Row> unpack(byte[] block) {
        return new Block(block).rows();
    }

    /** Reads the head alone. */
    public Block(byte[] block) {
        if (!isPacked(block)) {
            throw new PackException("this is no packed block: it does not begin with F5 53 4B 50");
        }
        Cursor head = new Cursor(block, "head");
        head.at = MAGIC.length;
        int version = head.take();
        if (version != 1) {
            throw new PackException("this is a block of format version " + version + ", known is version 1");
        }
        int flags = head.take();
        if (flags > 1) {
            throw head.malformed("flags");
        }
        long span;
        this.block = block;
        compressed = flags == 1;
        firstOffset = head.varint();
        span = head.varint();
        lastOffset = firstOffset + span;
        rows = head.atMost(ROWS_MAX, "number of rows");
        boolean hasRoom = Long.compareUnsigned(span, rows - 1) >= 0 && (rows > 1 || span == 0);
        if (rows == 0 || !hasRoom || Long.compareUnsigned(lastOffset, firstOffset) < 0) {
            throw head.malformed("number of rows");
        }
        bytesLeft = head.atMost(UNPACKED_BYTES_MAX, "number of unpacked bytes");
        columnBytes = head.atMost(COLUMN_BYTES_MAX, "length of the column section");
        int stored = head.atMost(block.length, "stored length of the columns");
        int bits = head.atMost(block.length, "length of the bit section");
        if (!compressed && columnBytes != stored) {
            throw head.malformed("length of the column section");
        }
        columnsAt = head.at;
        bitsAt = columnsAt + stored;
        contentBytes = bitsAt + bits;
    }

    private List<Row> rows() {
        check();
        Cursor columns = new Cursor(columnSection(), "column section");
        Reader reader = new Reader(columns, new Bits(Arrays.copyOfRange(block, bitsAt, contentBytes)));
        Column.Texts keys = reader.texts(new Reader.Rows(rows, null, null));
        int[] byKey = order(keys.ids, keys.texts.length);
        Reader.Rows all = new Reader.Rows(rows, byKey, null);
        Shape.All headers = new Shape.All(reader, all);
        Shape.All payloads = new Shape.All(reader, all);
        long values = headers.values() + payloads.values();
        if (values > VALUES_MAX) {
            throw new PackException("number of values is " + values + ", a block may have " + VALUES_MAX);
        }
        long[] offsets = reader.numbers(all);
        headers.readColumns(reader, byKey, null);
        long[] timestamps = timestamps(reader, all, headers);
        payloads.readColumns(reader, byKey, timestamps);
        if (!columns.isAtEnd()) {
            throw columns.malformed("end");
        }
        reader.bits.end();
        return putTogether(keys, offsets, timestamps, headers, payloads);
    }

    private void check() {
        if (block.length - 4L != contentBytes) {
            throw new PackException("malformed length of the block: " + block.length + " bytes");
        }
        CRC32C checksum = new CRC32C();
        checksum.update(block, 0, contentBytes);
        long stated = 0;
        for (int number = 0; number < 4; number++) {
            stated |= (block[contentBytes + number] & 0xffL) << 8 * number;
        }
        if (checksum.getValue() != stated) {
            throw new PackException(String.format("the block is damaged: its checksum is %08x, it says %08x", checksum.getValue(), stated));
        }
    }

    private byte[] columnSection() {
        byte[] stored = Arrays.copyOfRange(block, columnsAt, bitsAt);
        if (!compressed) {
            return stored;
        }
        byte[] section = new byte[columnBytes];
        try (ZstdDecompressCtx context = new ZstdDecompressCtx()) {
            context.loadDict(PRESET);
            // No more memory is taken than this, however much it would unfold to.
            int bytes = context.decompressByteArray(section, 0, columnBytes, stored, 0, stored.length);
            if (bytes != columnBytes) {
                throw new PackException("malformed compressed column section: " + bytes + " bytes");
            }
            return section;
        } catch (ZstdException error) {
            throw new PackException("malformed compressed column section", error);
        }
    }

    /** All rows of the first key, then all of the second, and so on. */
    private static int[] order(long[] ids, int keys) {
        int[] next = new int[keys + 1];
        for (long id : ids) {
            next[(int) id + 1]++;
        }
        for (int key = 0; key < keys; key++) {
            next[key + 1] += next[key];
        }
        int[] order = new int[ids.length];
        for (int row = 0; row < ids.length; row++) {
            order[next[(int) ids[row]]++] = row;
        }
        return order;
    }

    private long[] timestamps(Reader reader, Reader.Rows all, Shape.All headers) {
        int source = reader.columns.take();
        if (source == 0) {
            return reader.numbers(all);
        }
        long[][] nanos = new long[headers.shapes.length][];
        for (int number = 0; number < nanos.length; number++) {
            Column[] columns = headers.shapes[number].columns;
            int piece = reader.columns.atMost(VALUES_MAX, "source of timestamps");
            nanos[number] = piece < columns.length ? columns[piece].wholeNumbers() : null;
            if (source != 1 || nanos[number] == null) {
                throw reader.columns.malformed("source of timestamps");
            }
        }
        long[] timestamps = new long[rows];
        for (int row = 0; row < rows; row++) {
            timestamps[row] = Math.floorDiv(nanos[(int) headers.ids[row]][headers.places[row]], 1_000_000L);
        }
        return timestamps;
    }

    private List<Row> putTogether(Column keys, long[] offsets, long[] timestamps, Shape.All headers, Shape.All payloads) {
        List<Row> result = new ArrayList<>(rows);
        long before = firstOffset;
        for (int row = 0; row < rows; row++) {
            long offset = firstOffset + offsets[row];
            boolean ascends = row == 0 ? offset == firstOffset : Long.compareUnsigned(offset, before) > 0;
            if (!ascends) {
                throw new PackException("malformed offset of a row");
            }
            before = offset;
            byte[] key = counted(keys.text(row));
            byte[] value = payload(payloads.of(row), payloads.places[row]);
            List<Row.Header> own = headers(headers.of(row), headers.places[row]);
            result.add(new Row(offset, timestamps[row], key, value, own));
        }
        if (before != lastOffset || bytesLeft != 0) {
            throw new PackException("malformed last offset or number of unpacked bytes");
        }
        return result;
    }

    /** A few bytes may say that something long is repeated without end. */
    private byte[] counted(byte[] part) {
        bytesLeft -= part == null ? 0 : part.length;
        if (bytesLeft < 0) {
            throw new PackException("malformed number of unpacked bytes");
        }
        return part;
    }

    private byte[] payload(Shape shape, int row) {
        ByteArrayOutputStream payload = new ByteArrayOutputStream();
        payload.writeBytes(counted(shape.literals[0]));
        for (int piece = 0; piece < shape.columns.length; piece++) {
            byte[] text = counted(shape.columns[piece].text(row));
            payload.writeBytes(text == null ? new byte[0] : text);
            payload.writeBytes(counted(shape.literals[piece + 1]));
        }
        return payload.toByteArray();
    }

    private List<Row.Header> headers(Shape shape, int row) {
        List<Row.Header> headers = new ArrayList<>(shape.columns.length);
        for (int piece = 0; piece < shape.columns.length; piece++) {
            byte[] text = shape.columns[piece].text(row);
            if (shape.kinds[piece] == Shape.LIST) {
                list(text, headers);
            } else {
                headers.add(new Row.Header(counted(shape.literals[piece]), counted(text)));
            }
        }
        return headers;
    }

    private void list(byte[] text, List<Row.Header> headers) {
        Cursor cursor = new Cursor(text, "list of headers");
        while (!cursor.isAtEnd()) {
            byte[] name = cursor.take(cursor.atMost(text.length, "length of a name"));
            int length = cursor.atMost(text.length, "length of a value");
            byte[] value = length == 0 ? null : cursor.take(length - 1);
            headers.add(new Row.Header(counted(name), counted(value)));
        }
    }

    private static byte[] preset() {
        try (InputStream preset = Block.class.getResourceAsStream("/preset-1.txt")) {
            return preset.readAllBytes();
        } catch (IOException error) {
            throw new ExceptionInInitializerError(error);
        }
    }
}
