package skerry.tests;

import static org.eclipse.milo.opcua.sdk.server.api.config.OpcUaServerConfig.USER_TOKEN_POLICY_ANONYMOUS;
import static org.eclipse.milo.opcua.sdk.server.api.config.OpcUaServerConfig.USER_TOKEN_POLICY_USERNAME;
import static org.eclipse.milo.opcua.sdk.server.api.config.OpcUaServerConfig.USER_TOKEN_POLICY_X509;

import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.StandardOpenOption;
import java.security.KeyPair;
import java.security.Security;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.eclipse.milo.opcua.sdk.server.OpcUaServer;
import org.eclipse.milo.opcua.sdk.server.api.config.OpcUaServerConfig;
import org.eclipse.milo.opcua.sdk.server.identity.CompositeValidator;
import org.eclipse.milo.opcua.sdk.server.identity.UsernameIdentityValidator;
import org.eclipse.milo.opcua.sdk.server.identity.X509IdentityValidator;
import org.eclipse.milo.opcua.sdk.server.nodes.UaVariableNode;
import org.eclipse.milo.opcua.stack.core.StatusCodes;
import org.eclipse.milo.opcua.stack.core.UaException;
import org.eclipse.milo.opcua.stack.core.security.DefaultCertificateManager;
import org.eclipse.milo.opcua.stack.core.security.DefaultTrustListManager;
import org.eclipse.milo.opcua.stack.core.security.SecurityPolicy;
import org.eclipse.milo.opcua.stack.core.types.builtin.DataValue;
import org.eclipse.milo.opcua.stack.core.types.builtin.LocalizedText;
import org.eclipse.milo.opcua.stack.core.types.builtin.Variant;
import org.eclipse.milo.opcua.stack.core.types.enumerated.MessageSecurityMode;
import org.eclipse.milo.opcua.stack.core.types.enumerated.UserTokenType;
import org.eclipse.milo.opcua.stack.core.types.structured.UserTokenPolicy;
import org.eclipse.milo.opcua.stack.server.EndpointConfiguration;
import org.eclipse.milo.opcua.stack.server.security.ServerCertificateValidator;

/**
 * Counters that go up by one at every tick. Writes what each was set to as a JSON line and ends
 * when its standard input closes. The options are some of those of opcua-js/server.mjs.
 */
public final class Server {
    private static final String APPLICATION = "urn:skerry:tests:milo";

    /** On an endpoint without security, where a certificate needs a policy to sign with. */
    private static final UserTokenPolicy X509_WITHOUT_SECURITY =
            new UserTokenPolicy(
                    "x509-signed",
                    UserTokenType.Certificate,
                    null,
                    null,
                    SecurityPolicy.Basic256Sha256.getUri());

    public static void main(String[] arguments) throws Exception {
        // Aes256_Sha256_RsaPss needs it.
        Security.addProvider(new BouncyCastleProvider());
        Options options = new Options(arguments);
        CountDownLatch ended = new CountDownLatch(1);
        Thread input =
                new Thread(
                        () -> {
                            try {
                                System.in.readAllBytes();
                            } catch (java.io.IOException e) {
                                // As good as its end.
                            }
                            ended.countDown();
                        });
        input.setDaemon(true);
        input.start();

        OpcUaServer server = new OpcUaServer(config(options));
        Counters counters = new Counters(server, Integer.parseInt(options.text("counters", "3")));
        counters.startup();
        server.startup().get();
        try (Writer out = Files.newBufferedWriter(
                options.path("out"), StandardOpenOption.CREATE, StandardOpenOption.APPEND)) {
            out.write("{\"event\":\"serving\"}\n");
            out.flush();
            long interval = (long) (1000 * Double.parseDouble(options.text("interval", "0.1")));
            for (long value = 1; !ended.await(interval, TimeUnit.MILLISECONDS); value++) {
                for (UaVariableNode node : counters.nodes()) {
                    node.setValue(new DataValue(new Variant(value)));
                    out.write(String.format(
                            "{\"event\":\"set\",\"name\":\"%s\",\"value\":%d,\"status\":0}%n",
                            node.getBrowseName().getName(), value));
                }
                out.flush();
            }
        }
        server.shutdown().get(2, TimeUnit.SECONDS);
        System.exit(0);
    }

    private static OpcUaServerConfig config(Options options) throws Exception {
        X509Certificate certificate = options.certificate("certificate");
        KeyPair keys = new KeyPair(certificate.getPublicKey(), options.key("private-key"));
        X509Certificate user = options.certificate("user-certificate");
        return OpcUaServerConfig.builder()
                .setApplicationUri(APPLICATION)
                .setProductUri(APPLICATION)
                .setApplicationName(LocalizedText.english("milo"))
                .setEndpoints(endpoints(options, certificate))
                .setCertificateManager(new DefaultCertificateManager(keys, certificate))
                .setTrustListManager(new DefaultTrustListManager(options.path("pki").toFile()))
                .setCertificateValidator(new Clients(options.has("trust-all")))
                .setIdentityValidator(new CompositeValidator<>(List.of(
                        new UsernameIdentityValidator(true, login ->
                                login.getUsername().equals(options.text("user", null))
                                        && login.getPassword().equals(options.text("password", null))),
                        new X509IdentityValidator(user::equals))))
                .build();
    }

    private static Set<EndpointConfiguration> endpoints(Options options, X509Certificate certificate) {
        List<SecurityPolicy> policies = new ArrayList<>(List.of(
                SecurityPolicy.Basic256Sha256,
                SecurityPolicy.Aes128_Sha256_RsaOaep,
                SecurityPolicy.Aes256_Sha256_RsaPss));
        if (options.has("deprecated")) {
            policies.addAll(List.of(SecurityPolicy.Basic128Rsa15, SecurityPolicy.Basic256));
        }
        EndpointConfiguration.Builder base = EndpointConfiguration.newBuilder()
                .setBindAddress("127.0.0.1")
                .setHostname("127.0.0.1")
                .setBindPort(Integer.parseInt(options.text("port", "4840")))
                .setPath("/tests")
                .setCertificate(certificate);
        Set<EndpointConfiguration> endpoints = new LinkedHashSet<>();
        endpoints.add(base.copy()
                .setSecurityPolicy(SecurityPolicy.None)
                .setSecurityMode(MessageSecurityMode.None)
                .addTokenPolicies(
                        USER_TOKEN_POLICY_ANONYMOUS, USER_TOKEN_POLICY_USERNAME, X509_WITHOUT_SECURITY)
                .build());
        for (SecurityPolicy policy : policies) {
            for (MessageSecurityMode mode :
                    List.of(MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt)) {
                endpoints.add(base.copy()
                        .setSecurityPolicy(policy)
                        .setSecurityMode(mode)
                        .addTokenPolicies(
                                USER_TOKEN_POLICY_ANONYMOUS,
                                USER_TOKEN_POLICY_USERNAME,
                                USER_TOKEN_POLICY_X509)
                        .build());
            }
        }
        return endpoints;
    }

    /** Trusts all clients, or none. */
    private static final class Clients implements ServerCertificateValidator {
        private final boolean all;

        Clients(boolean all) {
            this.all = all;
        }

        @Override
        public void validateCertificateChain(List<X509Certificate> chain) throws UaException {
            if (!all) {
                throw new UaException(StatusCodes.Bad_CertificateUntrusted);
            }
        }

        @Override
        public void validateCertificateChain(List<X509Certificate> chain, String uri)
                throws UaException {
            validateCertificateChain(chain);
        }
    }
}
