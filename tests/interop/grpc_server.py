"""A gRPC server of grpcio, whose interceptor asks the authorization server about the token of each call.

It gets one line of JSON: where to ask, and a certificate with its key for TLS. When it is ready, one line of JSON says where.
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
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), interceptors=[TokenInterceptor(tokens)])
    server.add_generic_rpc_handlers([service(tokens)])
    port = listen(server, settings)
    server.start()
    print(json.dumps({"port": port}), flush=True)
    sys.stdin.read()  # The server ends with its stdin, and so with whoever started it.
    server.stop(None)


def listen(server, settings):
    if "key" not in settings:
        return server.add_insecure_port("127.0.0.1:0")
    pair = (settings["key"].encode(), settings["certificate"].encode())
    return server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))


class Tokens:
    """What the authorization server says of them, and how often it was yes or no at the beginning of a call."""

    def __init__(self, settings):
        self._url = settings["introspection_url"]
        self._credentials = base64.b64encode(settings["credentials"].encode()).decode()
        self._lock = threading.Lock()
        self.counts = {"served": 0, "refused": 0}

    def admit(self, metadata):
        active = self.are_active(metadata)
        with self._lock:
            self.counts["served" if active else "refused"] += 1
        return active

    def are_active(self, metadata):
        scheme, _, token = dict(metadata).get("authorization", "").partition(" ")
        return scheme == "Bearer" and self._introspect(token)

    def _introspect(self, token):
        body = urllib.parse.urlencode({"token": token}).encode()
        headers = {"authorization": f"Basic {self._credentials}"}
        with urllib.request.urlopen(urllib.request.Request(self._url, body, headers)) as answer:
            return json.load(answer)["active"]


class TokenInterceptor(grpc.ServerInterceptor):
    """Refuses a call before anything of it is read."""

    def __init__(self, tokens):
        self._tokens = tokens
        self._refusal = grpc.stream_stream_rpc_method_handler(refuse)

    def intercept_service(self, continuation, details):
        if details.method == "/test.Control/Counts" or self._tokens.admit(details.invocation_metadata):
            return continuation(details)
        return self._refusal


def refuse(_requests, context):
    context.abort(UNAUTHENTICATED, "the token is not active")


def service(tokens):
    """Bytes in and out, of each kind."""

    def echo(request, _context):
        return request

    def repeat(request, _context):
        for _ in range(3):
            yield request

    def join(requests, _context):
        return b"".join(requests)

    def converse(requests, context):
        """Looks at the token again with each message."""
        for request in requests:
            if not tokens.are_active(context.invocation_metadata()):
                context.abort(UNAUTHENTICATED, "the token is not active any more")
            yield request

    def head_then_refuse(_request, context):
        context.send_initial_metadata([("x-head", "of its own")])
        context.abort(UNAUTHENTICATED, "the token is not good enough")

    def time_left(_request, context):
        return str(context.time_remaining()).encode()

    def never(_request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait()
        return b"too late"

    def counts(_request, _context):
        return json.dumps(tokens.counts).encode()

    handlers = {
        "/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(echo),
        "/test.Echo/ServerStream": grpc.unary_stream_rpc_method_handler(repeat),
        "/test.Echo/ClientStream": grpc.stream_unary_rpc_method_handler(join),
        "/test.Echo/Both": grpc.stream_stream_rpc_method_handler(converse),
        "/test.Echo/HeadThenRefuse": grpc.unary_unary_rpc_method_handler(head_then_refuse),
        "/test.Deadline/TimeLeft": grpc.unary_unary_rpc_method_handler(time_left),
        "/test.Deadline/Never": grpc.unary_unary_rpc_method_handler(never),
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
