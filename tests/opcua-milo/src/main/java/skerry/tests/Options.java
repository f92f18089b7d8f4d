package skerry.tests;

import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;

/** {@code --name=value}, {@code --out FILE}, or {@code --name} for what is switched on. */
final class Options {
    private final Map<String, String> values = new HashMap<>();

    Options(String[] arguments) {
        for (int i = 0; i < arguments.length; i++) {
            String[] option = arguments[i].substring("--".length()).split("=", 2);
            boolean apart = option[0].equals("out") && option.length == 1;
            values.put(option[0], apart ? arguments[++i] : option.length == 2 ? option[1] : "");
        }
    }

    boolean has(String name) {
        return values.containsKey(name);
    }

    String text(String name, String fallback) {
        return values.getOrDefault(name, fallback);
    }

    Path path(String name) {
        return Path.of(values.get(name));
    }

    X509Certificate certificate(String name) throws Exception {
        try (InputStream file = Files.newInputStream(path(name))) {
            return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(file);
        }
    }

    PrivateKey key(String name) throws Exception {
        String body = Files.readString(path(name)).replaceAll("-----[A-Z ]+-----|\\s", "");
        byte[] der = Base64.getDecoder().decode(body);
        return KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(der));
    }
}
