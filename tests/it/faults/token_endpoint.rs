//! Faults of the token endpoint and of the connection to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, advance};
use tokio_rustls::TlsAcceptor;
use tower_oauth::{Secret, TokenEndpoint};

use super::{
    caller::Caller,
    endpoint::{Fault, Port, RunningServer, SECRET, Then, answer, auth, exchange},
};
use crate::{
    loopback::{Authority, json, serve_counting},
    support::TempFile,
    tls::Authority as CertificateAuthority,
};

/// Starts a token endpoint with these faults, and returns a caller and the server.
async fn caller_with_faults(
    faults: impl IntoIterator<Item = Fault, IntoIter: Send + 'static>,
) -> (Caller, RunningServer) {
    let (authority, port) = (Authority::default(), Port::new());
    let server = port.serve(&authority, faults);
    (Caller::new(port.endpoint(SECRET), &authority).await, server)
}

/// Answers the first token request with this response, and lets the caller recover.
async fn recover_from_response(head: &str, body: &str) -> Caller {
    let faults = [Fault::Answer(answer(head, body), Then::Close)];
    let (mut caller, server) = caller_with_faults(faults).await;
    caller.get().await;
    caller.recover().await;
    assert_eq!(server.requests(), caller.token_requests());
    caller
}

#[tokio::test(start_paused = true)]
async fn endpoint_down_at_the_start_is_retried_with_backoff() {
    let (authority, port) = (Authority::default(), Port::new());
    let mut caller = Caller::new(port.endpoint(SECRET), &authority).await;
    caller.get().await;
    for _ in 1..3 {
        caller.wait().await;
        caller.get().await;
    }
    port.serve(&authority, []);
    caller.recover().await;
    caller.assert_row("endpoint down at the start, for 3 token requests");
}

#[tokio::test(start_paused = true)]
async fn short_outage_at_the_start_fails_no_request() {
    let (authority, port) = (Authority::default(), Arc::new(Port::new()));
    let (down, issuer) = (Arc::clone(&port), authority.clone());
    let endpoint = port.endpoint_with(SECRET, move |attempt| {
        if attempt == 2 {
            down.serve(&issuer, []);
        }
    });
    let mut caller = Caller::new(endpoint, &authority).await;
    caller.get().await;
    caller.end_fault();
    caller.assert_row("endpoint down for less than half a second, at the start");
}

#[tokio::test(start_paused = true)]
async fn endpoint_outage_is_bridged_by_a_valid_token() {
    const SECOND: Duration = Duration::from_secs(1);
    let (authority, port) = (Authority::default(), Port::new());
    let server = port.serve(&authority, []);
    let mut caller = Caller::new(port.endpoint(SECRET), &authority).await;
    caller.get().await;
    server.stop().await;
    while !caller.token().is_stale() {
        advance(SECOND).await;
    }
    let down_since = Instant::now();
    while down_since.elapsed() < Duration::from_secs(15 * 60) {
        caller.get().await;
        advance(SECOND).await;
    }
    port.serve(&authority, []);
    caller.end_fault();
    while caller.token().is_stale() {
        advance(SECOND).await;
        caller.get().await;
    }
    caller.assert_row("endpoint down for 15 minutes, when a refresh is due");
}

#[tokio::test(start_paused = true)]
async fn rejected_grant_is_retried_after_a_minute() {
    for code in ["invalid_grant", "unauthorized_client"] {
        let body = format!(r#"{{"error":"{code}"}}"#);
        let caller = recover_from_response("400 Bad Request", &body).await;
        caller.assert_row("endpoint rejects: `invalid_grant`, `unauthorized_client`");
    }
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_hangs_before_its_response_times_out() {
    let faults = [Fault::Answer(String::new(), Then::Hang)];
    let (mut caller, mut server) = caller_with_faults(faults).await;
    caller.get_until(TokenEndpoint::DEFAULT_TIMEOUT, server.wait_for_request()).await;
    caller.recover().await;
    assert_eq!(server.requests(), 2);
    caller.assert_row("endpoint hangs before its response");
}

/// Returns a response that ends after its head, and one that ends within its body.
fn incomplete_responses() -> [String; 2] {
    ["", r#"{"access_token":"T0"#]
        .map(|body| format!("HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n{body}"))
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_hangs_within_its_response_times_out() {
    for response in incomplete_responses() {
        let faults = [Fault::Answer(response, Then::Hang)];
        let (mut caller, mut server) = caller_with_faults(faults).await;
        caller.get_until(TokenEndpoint::DEFAULT_TIMEOUT, server.wait_for_request()).await;
        caller.recover().await;
        assert_eq!(server.requests(), 2);
        caller.assert_row("endpoint hangs after the head of its response, or within the body");
    }
}

#[tokio::test(start_paused = true)]
async fn connection_lost_within_the_body_is_a_transport_error() {
    for (response, then) in incomplete_responses()
        .into_iter()
        .flat_map(|response| [(response.clone(), Then::Reset), (response, Then::Close)])
    {
        let (mut caller, server) = caller_with_faults([Fault::Answer(response, then)]).await;
        caller.get().await;
        let status = caller.error().status();
        assert_eq!(status, Some(http::StatusCode::OK), "the head has been received");
        caller.recover().await;
        assert_eq!(server.requests(), 2);
        caller.assert_row("connection reset or closed within the body");
    }
}

const DATE: &str = "date: Sun, 06 Nov 1994 08:49:37 GMT";
const TWO_MINUTES_LATER: &str = "Sun, 06 Nov 1994 08:51:37 GMT";

#[tokio::test(start_paused = true)]
async fn retry_after_in_seconds_is_honoured_exactly() {
    let caller = recover_from_response("429 Too Many Requests\r\nretry-after: 120", "").await;
    caller.assert_row("429 with `Retry-After: 120`");
    let caller = recover_from_response("503 Service Unavailable\r\nretry-after: 120", "").await;
    caller.assert_row("503 with `Retry-After: 120`");
}

#[tokio::test(start_paused = true)]
async fn rate_limit_without_a_delay_is_retried_after_10_s() {
    let caller = recover_from_response("429 Too Many Requests", "").await;
    caller.assert_row("429 without a delay");
}

#[tokio::test(start_paused = true)]
async fn final_status_is_retried_after_a_minute() {
    for (status, body) in [
        ("400 Bad Request", "<html>Bad request</html>"),
        ("401 Unauthorized", ""),
        ("403 Forbidden", r#"{"status":403,"message":"invalid client secret"}"#),
        ("404 Not Found", ""),
        ("405 Method Not Allowed", ""),
    ] {
        let caller = recover_from_response(status, body).await;
        caller.assert_row("status 400, 401, 403, 404 or 405 without an OAuth error");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_date_is_measured_by_the_servers_clock() {
    let until = format!("{DATE}\r\nretry-after: {TWO_MINUTES_LATER}");
    let caller = recover_from_response(&format!("429 Too Many Requests\r\n{until}"), "").await;
    caller.assert_row("429 with `Retry-After` as a date, 120 s after its `Date`");
    let caller = recover_from_response(&format!("503 Service Unavailable\r\n{until}"), "").await;
    caller.assert_row("503 with `Retry-After` as a date, 120 s after its `Date`");
}

#[tokio::test(start_paused = true)]
async fn corrected_secret_file_is_used_without_a_restart() {
    let (authority, port) = (Authority::default(), Port::new());
    port.serve(&authority, []);
    let file = TempFile::new("faults");
    file.write("wr0ng");
    let endpoint = port.endpoint(Secret::from_file(&file.0));
    let mut caller = Caller::new(endpoint, &authority).await;
    caller.get().await;
    assert_eq!(caller.error().error_code(), Some("invalid_client"));
    file.write(SECRET);
    caller.recover().await;
    caller.assert_row("wrong secret (`invalid_client`), then the right one in its file");
}

#[tokio::test(start_paused = true)]
async fn token_whose_response_is_lost_is_requested_again() {
    let (authority, port) = (Authority::default(), Port::new());
    port.serve(&authority, [Fault::Lost]);
    let mut caller = Caller::new(port.endpoint(SECRET), &authority).await;
    caller.get().await;
    caller.recover().await;
    assert_eq!(authority.token_requests(), 2, "the first token is never used");
    caller.assert_row("token issued, its response lost");
}

#[tokio::test(start_paused = true)]
async fn page_of_a_captive_portal_is_an_invalid_response() {
    let (head, body) = ("200 OK\r\ncontent-type: text/html", "<html>Accept our terms</html>");
    let caller = recover_from_response(head, body).await;
    caller.assert_row("HTML with status 200 (captive portal)");
}

#[tokio::test(start_paused = true)]
async fn compressed_response_is_an_invalid_response() {
    let caller = recover_from_response("200 OK\r\ncontent-encoding: gzip", "compressed").await;
    caller.assert_row("response with `Content-Encoding: gzip`, which was not asked for");
}

#[tokio::test(start_paused = true)]
async fn redirect_is_not_followed() {
    let connections = Arc::<AtomicUsize>::default();
    let target = |_| std::future::ready(json(200, r#"{"access_token":"T0KEN"}"#));
    let target = serve_counting(target, Arc::clone(&connections)).await;
    let statuses =
        ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"];
    for status in statuses {
        let head = format!("{status}\r\nlocation: http://{target}/token");
        let caller = recover_from_response(&head, "").await;
        caller.assert_row("redirect (301, 302, 307, 308)");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0, "the target must not receive the secret");
}

#[tokio::test(start_paused = true)]
async fn untrusted_certificate_fails_until_it_is_replaced() {
    let (authority, port) = (Authority::default(), Port::new());
    let (trusted, unknown) = (CertificateAuthority::new(), CertificateAuthority::new());
    let listener = port.listen();
    let endpoint =
        TokenEndpoint::new_trusting(port.url("https"), auth(SECRET), &trusted.pem).unwrap();
    let mut caller = Caller::new(endpoint, &authority).await;
    let certificates = [unknown, trusted].map(|authority| authority.server("127.0.0.1", |_| ()));
    let server = tokio::spawn(async move {
        let mut handshakes = Vec::new();
        for certificate in certificates {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = TlsAcceptor::from(Arc::new(certificate)).accept(stream).await;
            handshakes.push(stream.is_ok());
            if let Ok(mut stream) = stream {
                exchange(&mut stream, &authority, None).await;
                tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
            }
        }
        handshakes
    });
    caller.get().await;
    caller.recover().await;
    let handshakes = server.await.unwrap();
    assert_eq!(handshakes, [false, true], "only the trusted server gets a request");
    caller.assert_row("certificate not trusted, then replaced");
}
