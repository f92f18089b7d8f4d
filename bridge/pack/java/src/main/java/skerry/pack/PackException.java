package skerry.pack;

/** These bytes are no packed block, or a damaged one. */
public final class PackException extends RuntimeException {
    private static final long serialVersionUID = 1;

    PackException(String message) {
        super(message);
    }

    PackException(String message, Throwable cause) {
        super(message, cause);
    }
}
