package skerry.pack;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.stream.Collectors;

/** Prints the rows of blocks in files, a line of JSON for each file, with bytes in base64. */
public final class Print {
    private Print() {}

    public static void main(String[] files) throws IOException {
        for (String file : files) {
            byte[] block = Files.readAllBytes(Path.of(file));
            try {
                String rows = Block.unpack(block).stream().map(Print::json).collect(Collectors.joining(","));
                System.out.println("{\"rows\":[" + rows + "]}");
            } catch (PackException error) {
                System.out.println("{\"refused\":\"" + error.getMessage().replace("\"", "\\\"") + "\"}");
            }
        }
    }

    private static String json(Row row) {
        String headers = row.headers.stream()
                .map(header -> "[" + text(header.name) + "," + text(header.value) + "]")
                .collect(Collectors.joining(","));
        return "{\"offset\":\"" + Long.toUnsignedString(row.offset)
                + "\",\"timestamp_ms\":\"" + row.timestampMs
                + "\",\"key\":" + text(row.key)
                + ",\"value\":" + text(row.value)
                + ",\"headers\":[" + headers + "]}";
    }

    private static String text(byte[] bytes) {
        return bytes == null ? "null" : "\"" + Base64.getEncoder().encodeToString(bytes) + "\"";
    }
}
