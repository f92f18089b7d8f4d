package skerry.pack;

/** Both sections of a block, column by column. */
final class Reader {
    private static final int BY_KEY = 16;
    private static final int SINCE_TIMESTAMP = 32;
    private static final int DECIMALS_MAX = 18;

    final Cursor columns;
    final Bits bits;

    Reader(Cursor columns, Bits bits) {
        this.columns = columns;
        this.bits = bits;
    }

    /** What is known of a column's rows before it is read; null what is not. */
    static final class Rows {
        final int count;
        final int[] byKey;
        final long[] timestamps;

        Rows(int count, int[] byKey, long[] timestamps) {
            this.count = count;
            this.byKey = byKey;
            this.timestamps = timestamps;
        }
    }

    Column column(int kind, Rows rows) {
        switch (kind) {
            case Shape.TEXT:
            case Shape.LIST:
                return texts(rows);
            case Shape.DECIMAL:
                return decimals(rows);
            case Shape.ABSENT:
                return new Column.Absent();
            default:
                return new Column.Times(numbers(rows), kind - Shape.TIME);
        }
    }

    Column.Texts texts(Rows rows) {
        int count = columns.atMost(rows.count, "number of texts");
        int[] lengths = new int[count];
        for (int number = 0; number < count; number++) {
            lengths[number] = columns.atMost(columns.data.length, "length of a text");
        }
        byte[][] texts = new byte[count][];
        for (int number = 0; number < count; number++) {
            texts[number] = columns.take(lengths[number]);
        }
        long[] ids = count == 1 ? new long[rows.count] : numbers(rows);
        for (long id : ids) {
            if (id < 0 || id >= count) {
                throw columns.malformed("number of a text");
            }
        }
        return new Column.Texts(texts, ids);
    }

    private Column decimals(Rows rows) {
        int head = columns.take();
        int most = head >> 2;
        if (most > DECIMALS_MAX) {
            throw columns.malformed("decimals of a column");
        }
        switch (head & 3) {
            case 0:
                return new Column.Decimals(numbers(rows), most, most, null);
            case 1:
                int least = columns.take();
                return new Column.Decimals(numbers(rows), most, least, null);
            case 2:
                long[] each = numbers(rows);
                for (long decimals : each) {
                    if (decimals < 0 || decimals > most) {
                        throw columns.malformed("decimals of a column");
                    }
                }
                return new Column.Decimals(numbers(rows), most, 0, each);
            default:
                throw columns.malformed("decimals of a column");
        }
    }

    long[] numbers(Rows rows) {
        int head = columns.take();
        int differences = head >> 2 & 3;
        if (head >> 6 != 0 || differences > 2 || differences > rows.count) {
            throw columns.malformed("coding of a column");
        }
        long[] first = new long[differences];
        for (int number = 0; number < differences; number++) {
            first[number] = unzigzag(columns.varint());
        }
        long[] values = new long[rows.count];
        code(head & 3, values, differences);
        sumUp(values, first);
        if ((head & BY_KEY) != 0) {
            if (rows.byKey == null) {
                throw columns.malformed("order of a column");
            }
            long[] ordered = values;
            values = new long[rows.count];
            for (int number = 0; number < ordered.length; number++) {
                values[rows.byKey[number]] = ordered[number];
            }
        }
        if ((head & SINCE_TIMESTAMP) != 0) {
            if (rows.timestamps == null) {
                throw columns.malformed("relation of a column to timestamps");
            }
            for (int row = 0; row < values.length; row++) {
                values[row] += rows.timestamps[row];
            }
        }
        return values;
    }

    private void code(int code, long[] values, int from) {
        switch (code) {
            case 0:
                long same = unzigzag(columns.varint());
                for (int number = from; number < values.length; number++) {
                    values[number] = same;
                }
                break;
            case 1:
                for (int number = from; number < values.length; number++) {
                    values[number] = unzigzag(columns.varint());
                }
                break;
            case 2:
                int parameter = columns.take();
                if (parameter > 63) {
                    throw columns.malformed("parameter of a column");
                }
                for (int number = from; number < values.length; number++) {
                    values[number] = unzigzag(bits.rice(parameter));
                }
                break;
            default:
                throw columns.malformed("coding of a column");
        }
    }

    private static void sumUp(long[] values, long[] first) {
        if (first.length == 0) {
            return;
        }
        values[0] = first[0];
        long step = 0;
        if (first.length == 2) {
            step = first[1];
            values[1] = values[0] + step;
        }
        for (int number = first.length; number < values.length; number++) {
            step = first.length == 2 ? step + values[number] : values[number];
            values[number] = values[number - 1] + step;
        }
    }

    private static long unzigzag(long value) {
        return value >>> 1 ^ -(value & 1);
    }
}
