"""An OpenID Connect token endpoint for the client credentials flow: tokens of an hour, unsigned.

Tells of each request whether it was as it has to be, and answers those that are not with an error.
"""

import argparse
import base64
import http.server
import json
import ssl
import threading
import time
import urllib.parse

from lines import Lines, asked_to_stop


def token():
    def part(value):
        text = json.dumps(value).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    now = int(time.time())
    claims = {"sub": "vessel-7", "scope": "kafka", "iat": now, "exp": now + 3600}
    return f"{part({'alg': 'none'})}.{part(claims)}."


def handler(options, lines):
    quoted = urllib.parse.quote_plus(options.secret)
    login = base64.b64encode(f"vessel-7:{quoted}".encode()).decode()
    percent = base64.b64encode(f"vessel-7:{quoted.replace('+', '%20')}".encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers.get("Content-Length", "0"))
            form = urllib.parse.parse_qs(self.rfile.read(length).decode())
            right = (
                self.headers.get("Authorization") in (f"Basic {login}", f"Basic {percent}")
                and form.get("grant_type") == ["client_credentials"]
                and form.get("scope") == ["kafka"]
            )
            lines.write(event="asked", right=right)
            answer = {"access_token": token(), "token_type": "Bearer", "expires_in": 3600}
            if not right:
                answer = {"error": "invalid_client"}
            body = json.dumps(answer).encode()
            self.send_response(200 if right else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

    return Handler


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--secret", required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    lines, stop = Lines(options.out), asked_to_stop()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), handler(options, lines))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lines.write(event="listening")
    stop.wait()


main()
