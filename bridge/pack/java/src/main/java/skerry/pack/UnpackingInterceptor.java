package skerry.pack;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerInterceptor;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.record.TimestampType;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Gives a consumer, or a sink of Kafka Connect, the records as they were before they were packed.
 * Others pass as they came.
 *
 * <p>All records of a block have the offset of the record they came in: that is what is committed.
 * Their own is in the header {@code skerry-offset}.
 */
public final class UnpackingInterceptor implements ConsumerInterceptor<byte[], byte[]> {
    private static final Logger LOG = LoggerFactory.getLogger(UnpackingInterceptor.class);

    @Override
    public ConsumerRecords<byte[], byte[]> onConsume(ConsumerRecords<byte[], byte[]> records) {
        Map<TopicPartition, List<ConsumerRecord<byte[], byte[]>>> unpacked = new LinkedHashMap<>();
        for (TopicPartition partition : records.partitions()) {
            List<ConsumerRecord<byte[], byte[]>> all = new ArrayList<>();
            for (ConsumerRecord<byte[], byte[]> record : records.records(partition)) {
                all.addAll(unpack(record));
            }
            unpacked.put(partition, all);
        }
        return new ConsumerRecords<>(unpacked, records.nextOffsets());
    }

    /**
     * The records in a record, or itself if it is not packed. So is one that is damaged: an
     * interceptor cannot stop its consumer, which sees a value that begins with F5 53 4B 50.
     */
    private static List<ConsumerRecord<byte[], byte[]>> unpack(ConsumerRecord<byte[], byte[]> record) {
        if (!Block.isPacked(record.value())) {
            return List.of(record);
        }
        try {
            return records(record);
        } catch (PackException error) {
            LOG.error("{}-{} at offset {} stays packed", record.topic(), record.partition(), record.offset(), error);
            return List.of(record);
        }
    }

    /**
     * The records in a packed record, for consumers that would rather do it themselves.
     *
     * @throws PackException if it is not packed, or damaged
     */
    public static List<ConsumerRecord<byte[], byte[]>> records(ConsumerRecord<byte[], byte[]> packed) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (Row row : Block.unpack(packed.value())) {
            Headers headers = new RecordHeaders();
            for (Row.Header header : row.headers) {
                headers.add(new String(header.name, StandardCharsets.UTF_8), header.value);
            }
            records.add(new ConsumerRecord<>(
                    packed.topic(), packed.partition(), packed.offset(),
                    row.timestampMs, TimestampType.CREATE_TIME,
                    row.key.length, row.value.length, row.key, row.value,
                    headers, packed.leaderEpoch()));
        }
        return records;
    }

    @Override
    public void onCommit(Map<TopicPartition, OffsetAndMetadata> offsets) {}

    @Override
    public void close() {}

    @Override
    public void configure(Map<String, ?> configs) {}
}
