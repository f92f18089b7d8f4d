package skerry.pack;

import java.util.List;

/** One record as it was before it was packed. */
public final class Row {
    /** Its offset in the node's log, unsigned. */
    public final long offset;
    public final long timestampMs;
    public final byte[] key;
    public final byte[] value;
    public final List<Header> headers;

    Row(long offset, long timestampMs, byte[] key, byte[] value, List<Header> headers) {
        this.offset = offset;
        this.timestampMs = timestampMs;
        this.key = key;
        this.value = value;
        this.headers = headers;
    }

    /** A header, of which {@code value} is null where the record has none. */
    public static final class Header {
        public final byte[] name;
        public final byte[] value;

        Header(byte[] name, byte[] value) {
            this.name = name;
            this.value = value;
        }
    }
}
