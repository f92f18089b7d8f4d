package skerry.pack;

import java.util.Arrays;

/** What payloads of a kind, or headers, have in common, and columns of what varies. */
final class Shape {
    static final int TEXT = 0;
    static final int DECIMAL = 1;
    static final int ABSENT = 2;
    static final int LIST = 3;
    static final int TIME = 16;
    private static final int TIME_LAST = TIME + 9;

    /** One more than kinds. */
    final byte[][] literals;
    final byte[] kinds;
    final Column[] columns;
    int rows;

    private Shape(byte[][] literals, byte[] kinds) {
        this.literals = literals;
        this.kinds = kinds;
        this.columns = new Column[kinds.length];
    }

    /** All shapes of a block, and which of them each row has. */
    static final class All {
        final Shape[] shapes;
        final long[] ids;
        /** Of each row, which of its shape's rows it is. */
        final int[] places;

        All(Reader reader, Reader.Rows rows) {
            Cursor cursor = reader.columns;
            shapes = new Shape[cursor.atMost(rows.count, "number of shapes")];
            int piecesLeft = Block.VALUES_MAX;
            for (int number = 0; number < shapes.length; number++) {
                shapes[number] = read(cursor, piecesLeft);
                piecesLeft -= shapes[number].kinds.length;
            }
            ids = shapes.length == 1 ? new long[rows.count] : reader.numbers(rows);
            places = new int[rows.count];
            for (int row = 0; row < rows.count; row++) {
                if (ids[row] < 0 || ids[row] >= shapes.length) {
                    throw cursor.malformed("number of a shape");
                }
                places[row] = of(row).rows++;
            }
            for (Shape shape : shapes) {
                if (shape.rows == 0) {
                    throw cursor.malformed("shape without rows");
                }
            }
        }

        Shape of(int row) {
            return shapes[(int) ids[row]];
        }

        long values() {
            return Arrays.stream(shapes).mapToLong(shape -> (long) shape.rows * shape.kinds.length).sum();
        }

        /** {@code byKey} and {@code timestamps} are those of all rows. */
        void readColumns(Reader reader, int[] byKey, long[] timestamps) {
            int[][] orders = new int[shapes.length][];
            long[][] times = new long[shapes.length][];
            int[] next = new int[shapes.length];
            for (int number = 0; number < shapes.length; number++) {
                orders[number] = new int[shapes[number].rows];
                times[number] = timestamps == null ? null : new long[shapes[number].rows];
            }
            for (int row : byKey) {
                int shape = (int) ids[row];
                orders[shape][next[shape]++] = places[row];
                if (timestamps != null) {
                    times[shape][places[row]] = timestamps[row];
                }
            }
            for (int number = 0; number < shapes.length; number++) {
                Shape shape = shapes[number];
                Reader.Rows rows = new Reader.Rows(shape.rows, orders[number], times[number]);
                for (int piece = 0; piece < shape.kinds.length; piece++) {
                    shape.columns[piece] = reader.column(shape.kinds[piece], rows);
                }
            }
        }
    }

    private static Shape read(Cursor cursor, int piecesLeft) {
        int pieces = cursor.atMost(piecesLeft, "number of pieces");
        byte[] kinds = cursor.take(pieces);
        for (byte kind : kinds) {
            boolean isTime = kind >= TIME && kind <= TIME_LAST;
            if ((kind < 0 || kind > LIST) && !isTime) {
                throw cursor.malformed("kind of a piece");
            }
        }
        int[] lengths = new int[pieces + 1];
        for (int number = 0; number <= pieces; number++) {
            lengths[number] = cursor.atMost(cursor.data.length, "length of a literal");
        }
        byte[][] literals = new byte[pieces + 1][];
        for (int number = 0; number <= pieces; number++) {
            literals[number] = cursor.take(lengths[number]);
        }
        return new Shape(literals, kinds);
    }
}
