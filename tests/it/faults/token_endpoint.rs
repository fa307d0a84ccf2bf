//! Faults of the token endpoint and of the way to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, advance};
use tokio_rustls::TlsAcceptor;
use tower_oauth::{ClientSecret, TokenEndpoint};

use super::{
    caller::Caller,
    endpoint::{Fault, Port, SECRET, Serving, Then, answer, auth, exchange},
};
use crate::{
    loopback::{Authority, json, serve_counting},
    support::File,
    tls::Authority as Certificates,
};

/// A caller, and a token endpoint to which these faults happen.
async fn facing(faults: impl IntoIterator<Item = Fault, IntoIter: Send + 'static>) -> (Caller, Serving) {
    let (authority, port) = (Authority::default(), Port::new());
    let serving = port.serve(&authority, faults);
    (Caller::new(port.endpoint(SECRET), &authority).await, serving)
}

/// To a client that never had a token, the endpoint gives one such answer.
async fn one_answer(head: &str, body: &str) -> Caller {
    let (mut caller, serving) = facing([Fault::Answer(answer(head, body), Then::Close)]).await;
    caller.get().await;
    caller.recovers().await;
    assert_eq!(serving.requests(), caller.token_requests());
    caller
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_down_at_the_start_is_asked_less_and_less_often_until_it_is_up() {
    let (authority, port) = (Authority::default(), Port::new());
    let mut caller = Caller::new(port.endpoint(SECRET), &authority).await;
    caller.get().await;
    for _ in 1..3 {
        caller.wait().await;
        caller.get().await;
    }
    port.serve(&authority, []);
    caller.recovers().await;
    caller.is_row("endpoint down at the start, for 3 attempts");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_down_for_a_quarter_of_an_hour_while_a_token_is_valid_is_not_missed() {
    const SECOND: Duration = Duration::from_secs(1);
    let (authority, port) = (Authority::default(), Port::new());
    let serving = port.serve(&authority, []);
    let mut caller = Caller::new(port.endpoint(SECRET), &authority).await;
    caller.get().await;
    serving.stop().await;
    while !caller.token().is_stale() {
        advance(SECOND).await;
    }
    let down = Instant::now();
    while down.elapsed() < Duration::from_secs(15 * 60) {
        caller.get().await;
        advance(SECOND).await;
    }
    port.serve(&authority, []);
    caller.fault_is_over();
    while caller.token().is_stale() {
        advance(SECOND).await;
        caller.get().await;
    }
    caller.is_row("endpoint down for 15 minutes, when a renewal is due");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_for_a_minute_and_costs_nothing_meanwhile() {
    for code in ["invalid_grant", "unauthorized_client"] {
        let caller = one_answer("400 Bad Request", &format!(r#"{{"error":"{code}"}}"#)).await;
        caller.is_row("endpoint refuses: `invalid_grant`, `unauthorized_client`");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_before_its_answer_is_given_up() {
    let (mut caller, mut serving) = facing([Fault::Answer(String::new(), Then::Hang)]).await;
    caller.get_until(TokenEndpoint::DEFAULT_TIMEOUT, serving.has_seen_a_request()).await;
    caller.recovers().await;
    assert_eq!(serving.requests(), 2);
    caller.is_row("endpoint hangs before its answer");
}

/// An answer that ends behind its head, and one that ends in its body.
fn halves() -> [String; 2] {
    ["", r#"{"access_token":"T0"#].map(|half| format!("HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n{half}"))
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_in_its_answer_is_given_up() {
    for half in halves() {
        let (mut caller, mut serving) = facing([Fault::Answer(half, Then::Hang)]).await;
        caller.get_until(TokenEndpoint::DEFAULT_TIMEOUT, serving.has_seen_a_request()).await;
        caller.recovers().await;
        assert_eq!(serving.requests(), 2);
        caller.is_row("endpoint hangs after the head of its answer, or within the body");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_within_the_body_is_a_transport_error() {
    for (half, then) in
        halves().into_iter().flat_map(|half| [(half.clone(), Then::Reset), (half, Then::Close)])
    {
        let (mut caller, serving) = facing([Fault::Answer(half, then)]).await;
        caller.get().await;
        assert_eq!(caller.error().status(), Some(http::StatusCode::OK), "its head was there");
        caller.recovers().await;
        assert_eq!(serving.requests(), 2);
        caller.is_row("connection reset or closed within the body");
    }
}

const DATE: &str = "date: Sun, 06 Nov 1994 08:49:37 GMT";
const TWO_MINUTES_LATER: &str = "Sun, 06 Nov 1994 08:51:37 GMT";

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_time_has_it_neither_more_nor_less() {
    let caller = one_answer("429 Too Many Requests\r\nretry-after: 120", "").await;
    caller.is_row("429 with `Retry-After: 120`");
    let caller = one_answer("503 Service Unavailable\r\nretry-after: 120", "").await;
    caller.is_row("503 with `Retry-After: 120`");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_time_by_a_date_has_it_by_its_own_clock() {
    let until = format!("{DATE}\r\nretry-after: {TWO_MINUTES_LATER}");
    let caller = one_answer(&format!("429 Too Many Requests\r\n{until}"), "").await;
    caller.is_row("429 with `Retry-After` as a date, 120 s after its `Date`");
    let caller = one_answer(&format!("503 Service Unavailable\r\n{until}"), "").await;
    caller.is_row("503 with `Retry-After` as a date, 120 s after its `Date`");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_that_is_put_right_needs_no_restart() {
    let (authority, port) = (Authority::default(), Port::new());
    port.serve(&authority, []);
    let file = File::new("faults");
    file.write("wr0ng");
    let mut caller = Caller::new(port.endpoint(ClientSecret::from_file(&file.0)), &authority).await;
    caller.get().await;
    assert_eq!(caller.error().error_code(), Some("invalid_client"));
    file.write(SECRET);
    caller.recovers().await;
    caller.is_row("wrong secret (`invalid_client`), then the right one in its file");
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_answer_is_lost_is_asked_for_once_more() {
    let (authority, port) = (Authority::default(), Port::new());
    port.serve(&authority, [Fault::Lost]);
    let mut caller = Caller::new(port.endpoint(SECRET), &authority).await;
    caller.get().await;
    caller.recovers().await;
    assert_eq!(authority.token_requests(), 2, "one of them for nothing");
    caller.is_row("token issued, its answer lost");
}

#[tokio::test(start_paused = true)]
async fn a_page_of_a_captive_portal_is_no_token() {
    let caller = one_answer("200 OK\r\ncontent-type: text/html", "<html>Accept our terms</html>").await;
    caller.is_row("HTML with status 200 (captive portal)");
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_not_followed_and_its_target_sees_nothing() {
    let connections = Arc::<AtomicUsize>::default();
    let target = |_| std::future::ready(json(200, r#"{"access_token":"T0KEN"}"#));
    let target = serve_counting(target, Arc::clone(&connections)).await;
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let caller = one_answer(&format!("{status}\r\nlocation: http://{target}/token"), "").await;
        caller.is_row("redirect (301, 302, 307, 308)");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0, "the secret went nowhere");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_trusted_is_refused_until_it_is_replaced() {
    let (authority, port) = (Authority::default(), Port::new());
    let (trusted, unknown) = (Certificates::new(), Certificates::new());
    let listener = port.listen();
    let endpoint = TokenEndpoint::new_trusting(port.url("https"), auth(SECRET), &trusted.pem).unwrap();
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
    caller.recovers().await;
    assert_eq!(server.await.unwrap(), [false, true], "nothing is said to the first");
    caller.is_row("certificate not trusted, then replaced");
}
