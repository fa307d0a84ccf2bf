//! Opens a connection to a server: directly, or as a tunnel through a proxy (RFC 9110 §9.3.6).
//!
//! `Tunnel` of hyper-util does the same, but its error does not contain the status of the proxy.
//! The status distinguishes a proxy that forbids the server from one that cannot reach it.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{StatusCode, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tower_service::Service;
use zeroize::Zeroizing;

use super::{
    connect_error::{innermost_message, is_tls_error},
    proxy::{Proxies, Proxy, host_and_port},
    proxy_error::{ProxyError, ProxyProblem},
};
use crate::error::BoxError;

/// The time limit for a TCP connection, and for a tunnel with the connection to its proxy.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of the answer to a `CONNECT` request.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A connection to a server or through a proxy, which may have TLS of its own.
pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A connector to servers, without their TLS.
#[derive(Clone)]
pub(super) struct ProxyConnector {
    tcp: HttpConnector,
    /// The proxies, and the TLS configuration for proxies with an `https` URL.
    proxies: Option<(Proxies, Arc<ClientConfig>)>,
}

impl ProxyConnector {
    pub(super) fn new(proxies: Option<(Proxies, Arc<ClientConfig>)>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        Self { tcp, proxies }
    }
}

impl Service<Uri> for ProxyConnector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let chosen = self.proxies.as_ref().map(|(proxies, tls)| (proxies.of(&url), tls));
        let (proxy, tls) = match chosen {
            None | Some((Ok(None), _)) => {
                let connecting = self.tcp.call(url);
                return Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) });
            }
            Some((Err(error), _)) => {
                let problem = ProxyProblem::Setting(error.clone());
                let error = ProxyError { proxy: String::new(), problem };
                return Box::pin(std::future::ready(Err(error.into())));
            }
            Some((Ok(Some(proxy)), tls)) => (proxy.clone(), Arc::clone(tls)),
        };
        let connecting = HttpsConnector::from((self.tcp.clone(), tls)).call(proxy.url().clone());
        Box::pin(async move {
            let opening = async {
                let stream = connecting.await.map_err(|error| ProxyProblem::Unreachable {
                    cause: innermost_message(&*error),
                    is_tls_error: is_tls_error(&*error),
                })?;
                open_tunnel(stream, &proxy, host_and_port(&url)).await
            };
            let opened = timeout(CONNECT_TIMEOUT, opening).await;
            let opened = opened.unwrap_or(Err(ProxyProblem::Timeout(CONNECT_TIMEOUT)));
            opened.map_err(|problem| ProxyError { proxy: proxy.to_string(), problem }.into())
        })
    }
}

/// Asks the proxy at the other end of `stream` for a tunnel to `target`.
async fn open_tunnel(
    stream: Stream,
    proxy: &Proxy,
    target: String,
) -> Result<Stream, ProxyProblem> {
    let mut stream = TokioIo::new(stream);
    let status = connect(&mut stream, proxy, &target)
        .await
        .map_err(|error| ProxyProblem::InvalidAnswer { cause: error.to_string() })?;
    if status.is_success() {
        return Ok(stream.into_inner());
    }
    let has_credentials = proxy.authorization().is_some();
    Err(ProxyProblem::Refused { status, target, has_credentials })
}

/// Sends a `CONNECT` request and returns the status of the answer.
async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    target: &str,
) -> io::Result<StatusCode> {
    let head = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n");
    // One allocation: a buffer that grows would leave copies of the password in freed memory.
    let request = Zeroizing::new(match proxy.authorization() {
        None => [head.as_bytes(), b"\r\n"].concat(),
        Some(credentials) => {
            let name = b"proxy-authorization: ";
            [head.as_bytes(), name, credentials.as_bytes(), b"\r\n\r\n"].concat()
        }
    });
    stream.write_all(&request).await?;
    stream.flush().await?;

    let invalid = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut answer = Vec::new();
    // The start of the current head, and of the bytes in which its end was not searched yet.
    let (mut start, mut searched) = (0, 0);
    let (status, end) = loop {
        let mut rest = answer[searched..].windows(END_OF_HEAD.len());
        if let Some(position) = rest.position(|bytes| bytes == END_OF_HEAD) {
            let end = searched + position + END_OF_HEAD.len();
            let status = status(&answer[start..]);
            let status = status.ok_or_else(|| invalid("its answer is not HTTP"))?;
            if !status.is_informational() {
                break (status, end);
            }
            // An interim response: the final one follows (RFC 9110 §15.2).
            (start, searched) = (end, end);
            continue;
        }
        if answer.len() > MAX_ANSWER_BYTES {
            return Err(invalid("its answer is too large"));
        }
        // The end of the head may begin with the last bytes that are there.
        searched = start.max(answer.len().saturating_sub(END_OF_HEAD.len() - 1));
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(invalid("it closed the connection"));
        }
    };
    // With TLS and with HTTP, the server sends nothing before the client does.
    if status.is_success() && answer.len() > end {
        return Err(invalid("its answer continues after its head"));
    }
    Ok(status)
}

/// Returns the status in the first line of a response (RFC 9112 §4).
fn status(response: &[u8]) -> Option<StatusCode> {
    let line = response.strip_prefix(b"HTTP/1.")?;
    let status = line.split(|byte| [b' ', b'\r'].contains(byte)).nth(1)?;
    StatusCode::from_bytes(status).ok()
}
