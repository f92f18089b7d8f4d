package skerry.pack;

/** The bit section, the low bits of a byte first. */
final class Bits {
    private static final int ESCAPE = 12;

    private final byte[] data;
    private long at;

    Bits(byte[] data) {
        this.data = data;
    }

    private long bit() {
        if (at >>> 3 >= data.length) {
            throw new PackException("malformed end of the bit section");
        }
        long bit = data[(int) (at >>> 3)] >> (at & 7) & 1;
        at++;
        return bit;
    }

    private long take(int count) {
        long value = 0;
        for (int number = 0; number < count; ) {
            if ((at & 7) == 0 && count - number >= 8 && at >>> 3 < data.length) {
                value |= (data[(int) (at >>> 3)] & 0xffL) << number;
                at += 8;
                number += 8;
            } else {
                value |= bit() << number;
                number++;
            }
        }
        return value;
    }

    long rice(int parameter) {
        int ones = 0;
        while (ones < ESCAPE && bit() == 1) {
            ones++;
        }
        if (ones < ESCAPE) {
            return (long) ones << parameter | take(parameter);
        }
        return take((int) take(6) + 1);
    }

    /** Nothing may be left but the zeros of the last byte. */
    void end() {
        long left = data.length * 8L - at;
        if (left >= 8 || take((int) left) != 0) {
            throw new PackException("malformed end of the bit section");
        }
    }
}
