"""A grpcio server that introspects the token of each call at the authorization server.

It reads its settings from stdin as one line of JSON: the introspection endpoint and, for TLS, a
certificate with its key. When it is ready, it prints its port as one line of JSON.
"""

import base64
import concurrent.futures
import json
import sys
import threading
import urllib.parse
import urllib.request

import grpc

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def main():
    settings = json.loads(sys.stdin.readline())
    tokens = Tokens(settings)
    threads = concurrent.futures.ThreadPoolExecutor(32)
    server = grpc.server(threads, interceptors=[TokenInterceptor(tokens)])
    server.add_generic_rpc_handlers([service(tokens)])
    port = listen(server, settings)
    server.start()
    print(json.dumps({"port": port}), flush=True)
    sys.stdin.read()  # Returns when stdin is closed, which happens when the parent process ends.
    server.stop(None)


def listen(server, settings):
    if "key" not in settings:
        return server.add_insecure_port("127.0.0.1:0")
    pair = (settings["key"].encode(), settings["certificate"].encode())
    return server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))


class Tokens:
    """Introspects tokens, and counts the calls that were accepted or rejected at their start."""

    def __init__(self, settings):
        self._url = settings["introspection_url"]
        self._credentials = base64.b64encode(settings["credentials"].encode()).decode()
        self._lock = threading.Lock()
        self.counts = {"accepted": 0, "rejected": 0}

    def check_and_count(self, metadata):
        active = self.is_active(metadata)
        with self._lock:
            self.counts["accepted" if active else "rejected"] += 1
        return active

    def is_active(self, metadata):
        scheme, _, token = dict(metadata).get("authorization", "").partition(" ")
        return scheme == "Bearer" and self._introspect(token)

    def _introspect(self, token):
        body = urllib.parse.urlencode({"token": token}).encode()
        headers = {"authorization": f"Basic {self._credentials}"}
        with urllib.request.urlopen(urllib.request.Request(self._url, body, headers)) as response:
            return json.load(response)["active"]


class TokenInterceptor(grpc.ServerInterceptor):
    """Rejects a call with an inactive token before any message of it is read."""

    def __init__(self, tokens):
        self._tokens = tokens
        self._rejection = grpc.stream_stream_rpc_method_handler(reject)

    def intercept_service(self, continuation, details):
        if details.method == "/test.Control/Counts":
            return continuation(details)
        if self._tokens.check_and_count(details.invocation_metadata):
            return continuation(details)
        return self._rejection


def reject(_requests, context):
    context.abort(UNAUTHENTICATED, "the token is not active")


def service(tokens):
    """Returns a service of untyped bytes with one method per kind of call."""

    def echo(request, _context):
        return request

    def repeat(request, _context):
        for _ in range(3):
            yield request

    def concatenate(requests, _context):
        return b"".join(requests)

    def echo_each(requests, context):
        """Echoes each message after another check of the token."""
        for request in requests:
            if not tokens.is_active(context.invocation_metadata()):
                context.abort(UNAUTHENTICATED, "the token is no longer active")
            yield request

    def headers_then_reject(_request, context):
        context.send_initial_metadata([("x-custom", "value")])
        context.abort(UNAUTHENTICATED, "the token is not sufficient")

    def time_left(_request, context):
        return str(context.time_remaining()).encode()

    def never_respond(_request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait()
        return b"too late"

    def counts(_request, _context):
        return json.dumps(tokens.counts).encode()

    handlers = {
        "/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(echo),
        "/test.Echo/ServerStream": grpc.unary_stream_rpc_method_handler(repeat),
        "/test.Echo/ClientStream": grpc.stream_unary_rpc_method_handler(concatenate),
        "/test.Echo/Both": grpc.stream_stream_rpc_method_handler(echo_each),
        "/test.Echo/HeadersThenReject": grpc.unary_unary_rpc_method_handler(headers_then_reject),
        "/test.Deadline/TimeLeft": grpc.unary_unary_rpc_method_handler(time_left),
        "/test.Deadline/Never": grpc.unary_unary_rpc_method_handler(never_respond),
        "/test.Control/Counts": grpc.unary_unary_rpc_method_handler(counts),
    }
    return Service(handlers)


class Service(grpc.GenericRpcHandler):
    def __init__(self, handlers):
        self._handlers = handlers

    def service(self, details):
        return self._handlers.get(details.method)


if __name__ == "__main__":
    main()
