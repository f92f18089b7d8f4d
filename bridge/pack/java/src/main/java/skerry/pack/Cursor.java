package skerry.pack;

import java.util.Arrays;

/** Bytes of a section, from the front. */
final class Cursor {
    final byte[] data;
    final String section;
    int at;

    Cursor(byte[] data, String section) {
        this.data = data;
        this.section = section;
    }

    PackException malformed(String what) {
        return new PackException("malformed " + what + " at byte " + at + " of the " + section);
    }

    int take() {
        if (at >= data.length) {
            throw malformed("end");
        }
        return data[at++] & 0xff;
    }

    byte[] take(int count) {
        if (count > data.length - at) {
            throw malformed("end");
        }
        at += count;
        return Arrays.copyOfRange(data, at - count, at);
    }

    /** Unsigned. */
    long varint() {
        long value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            int next = take();
            if (shift == 63 && next > 1) {
                break;
            }
            value |= (long) (next & 0x7f) << shift;
            if (next < 0x80) {
                return value;
            }
        }
        throw malformed("number");
    }

    int atMost(long most, String what) {
        long value = varint();
        if (Long.compareUnsigned(value, most) > 0) {
            throw new PackException(what + " is " + Long.toUnsignedString(value) + ", a block may have " + most);
        }
        return (int) value;
    }

    boolean isAtEnd() {
        return at == data.length;
    }
}
