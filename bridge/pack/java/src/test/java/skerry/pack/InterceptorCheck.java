package skerry.pack;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;

/** Gives every block of a folder to the interceptor, between records that are not packed. */
public final class InterceptorCheck {
    private static final TopicPartition PARTITION = new TopicPartition("skerry.telemetry", 3);

    private InterceptorCheck() {}

    public static void main(String[] arguments) throws IOException {
        int unpacked = 0;
        int refused = 0;
        try (DirectoryStream<Path> files = Files.newDirectoryStream(Path.of(arguments[0]), "*.bin")) {
            for (Path file : files) {
                byte[] block = Files.readAllBytes(file);
                List<Row> rows = rows(block);
                check(file, block, rows);
                if (rows == null) {
                    refused++;
                } else {
                    unpacked++;
                }
            }
        }
        System.out.println("{\"unpacked\":" + unpacked + ",\"refused\":" + refused + "}");
    }

    private static List<Row> rows(byte[] block) {
        try {
            return Block.unpack(block);
        } catch (PackException error) {
            return null;
        }
    }

    private static void check(Path file, byte[] block, List<Row> rows) {
        ConsumerRecord<byte[], byte[]> before = new ConsumerRecord<>(PARTITION.topic(), 3, 4, new byte[] {1}, new byte[] {2});
        ConsumerRecord<byte[], byte[]> packed = new ConsumerRecord<>(PARTITION.topic(), 3, 5, null, block);
        ConsumerRecord<byte[], byte[]> after = new ConsumerRecord<>(PARTITION.topic(), 3, 6, null, null);
        Map<TopicPartition, OffsetAndMetadata> next = Map.of(PARTITION, new OffsetAndMetadata(7));
        ConsumerRecords<byte[], byte[]> polled = new ConsumerRecords<>(Map.of(PARTITION, List.of(before, packed, after)), next);
        ConsumerRecords<byte[], byte[]> given;
        try (UnpackingInterceptor interceptor = new UnpackingInterceptor()) {
            given = interceptor.onConsume(polled);
        }
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>(given.records(PARTITION));
        expect(file, "next offsets", given.nextOffsets().equals(next));
        expect(file, "first", records.remove(0) == before);
        expect(file, "last", records.remove(records.size() - 1) == after);
        if (rows == null) {
            expect(file, "as it came", records.size() == 1 && records.get(0) == packed);
            return;
        }
        expect(file, "count", records.size() == rows.size());
        for (int number = 0; number < rows.size(); number++) {
            Row row = rows.get(number);
            ConsumerRecord<byte[], byte[]> record = records.get(number);
            expect(file, "place", record.partition() == 3 && record.offset() == 5);
            expect(file, "timestamp", record.timestamp() == row.timestampMs);
            expect(file, "key", Arrays.equals(record.key(), row.key));
            expect(file, "value", Arrays.equals(record.value(), row.value));
            Header[] headers = record.headers().toArray();
            expect(file, "headers", headers.length == row.headers.size());
            for (int header = 0; header < headers.length; header++) {
                expect(file, "header", Arrays.equals(headers[header].value(), row.headers.get(header).value));
            }
        }
    }

    private static void expect(Path file, String what, boolean holds) {
        if (!holds) {
            throw new AssertionError(file + ": " + what);
        }
    }
}
