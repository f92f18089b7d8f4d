package skerry.pack;

import java.nio.charset.StandardCharsets;

/** A column that was read: what each row says, as text. */
abstract class Column {
    /** Null where a header has no value. */
    abstract byte[] text(int row);

    /** Numbers without a point, or null if these are none. */
    long[] wholeNumbers() {
        return null;
    }

    static final class Absent extends Column {
        @Override
        byte[] text(int row) {
            return null;
        }
    }

    static final class Texts extends Column {
        final byte[][] texts;
        final long[] ids;

        Texts(byte[][] texts, long[] ids) {
            this.texts = texts;
            this.ids = ids;
        }

        @Override
        byte[] text(int row) {
            return texts[(int) ids[row]];
        }
    }

    static final class Decimals extends Column {
        private final long[] values;
        private final int most;
        private final int least;
        private final long[] each;

        /** Without {@code each}, as many decimals as needed, but no fewer than {@code least}. */
        Decimals(long[] values, int most, int least, long[] each) {
            this.values = values;
            this.most = most;
            this.least = least;
            this.each = each;
        }

        @Override
        byte[] text(int row) {
            long value = values[row];
            int decimals = each == null ? most : (int) each[row];
            while (each == null && decimals > least && value % 10 == 0) {
                value /= 10;
                decimals--;
            }
            // Without its sign, as the smallest number has no opposite.
            StringBuilder text = new StringBuilder(Long.toString(value));
            int sign = value < 0 ? 1 : 0;
            while (text.length() - sign <= decimals) {
                text.insert(sign, '0');
            }
            if (decimals > 0) {
                text.insert(text.length() - decimals, '.');
            }
            return text.toString().getBytes(StandardCharsets.ISO_8859_1);
        }

        @Override
        long[] wholeNumbers() {
            return most == 0 && least == 0 && each == null ? values : null;
        }
    }

    static final class Times extends Column {
        private static final long SECONDS_A_DAY = 86_400;

        private final long[] values;
        private final int digits;

        Times(long[] values, int digits) {
            this.values = values;
            this.digits = digits;
        }

        @Override
        byte[] text(int row) {
            long parts = (long) Math.pow(10, digits);
            long seconds = Math.floorDiv(values[row], parts);
            long second = Math.floorMod(seconds, SECONDS_A_DAY);
            // Years begin in March here: the leap day is then their last.
            long shifted = Math.floorDiv(seconds, SECONDS_A_DAY) + 719_468;
            long era = Math.floorDiv(shifted, 146_097);
            long day = Math.floorMod(shifted, 146_097);
            long year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
            day -= 365 * year + year / 4 - year / 100;
            long month = (5 * day + 2) / 153;
            day -= (153 * month + 2) / 5 - 1;
            month = (month + 2) % 12 + 1;
            year += era * 400 + (month < 3 ? 1 : 0);
            if (year < 0 || year > 9_999) {
                throw new PackException("malformed time");
            }
            StringBuilder text = new StringBuilder();
            put(text, year, 4, '-');
            put(text, month, 2, '-');
            put(text, day, 2, 'T');
            put(text, second / 3_600, 2, ':');
            put(text, second / 60 % 60, 2, ':');
            put(text, second % 60, 2, '.');
            put(text, Math.floorMod(values[row], parts), digits, ' ');
            // Without digits the point goes too.
            text.setLength(digits == 0 ? 19 : 20 + digits);
            return text.toString().getBytes(StandardCharsets.ISO_8859_1);
        }

        private static void put(StringBuilder text, long number, int width, char after) {
            String digits = Long.toString(number);
            text.append("0".repeat(Math.max(0, width - digits.length()))).append(digits).append(after);
        }
    }
}
