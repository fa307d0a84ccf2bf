use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    sync::{mpsc::unbounded_channel, watch},
    task::JoinHandle,
    time::advance,
};
use tower::ServiceBuilder;
use tower_oauth::{BoxError, ClientAuth, DefaultTransport, Secret, TokenEndpoint};

use crate::loopback::Authority;

/// The resolution of time measurements.
pub(super) const TICK: Duration = Duration::from_millis(1);

pub(super) const SECRET: &str = "S3CRET";
const CREDENTIAL: &str = "authorization: Basic aWQ6UzNDUkVU\r\n";

pub(super) fn auth(secret: impl Into<Secret>) -> ClientAuth {
    ClientAuth::client_secret_basic("id", secret)
}

/// The fault that happens to one token request after it has been read.
pub(super) enum Fault {
    /// Sends this response or the beginning of one, and then handles the connection like this.
    Answer(String, Then),
    /// Issues a token and closes the connection without a response.
    Lost,
}

/// The handling of the connection after the response.
#[derive(Clone, Copy)]
pub(super) enum Then {
    Close,
    Reset,
    Hang,
}

/// Returns a complete response. `head` begins with the status.
pub(super) fn answer(head: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// A port on the loopback interface. The value reserves the port while no server listens on it, so
/// that connections to it are refused.
pub(super) struct Port {
    address: SocketAddr,
    _bound: TcpSocket,
}

impl Port {
    pub(super) fn new() -> Self {
        let bound = bind(([127, 0, 0, 1], 0).into());
        Self { address: bound.local_addr().unwrap(), _bound: bound }
    }

    pub(super) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/token", self.address)
    }

    /// Returns the endpoint at this port. Its clock moves while it waits to connect again.
    pub(super) fn endpoint(&self, secret: impl Into<Secret>) -> TokenEndpoint {
        self.endpoint_with(secret, |_| ())
    }

    /// Like [`endpoint`](Self::endpoint), and calls `on_failure` with the number of each attempt to
    /// connect that fails.
    pub(super) fn endpoint_with(
        &self,
        secret: impl Into<Secret>,
        on_failure: impl Fn(usize) + Send + 'static,
    ) -> TokenEndpoint {
        let (failed, mut failures) = unbounded_channel();
        let transport = ServiceBuilder::new().map_err(move |error: BoxError| {
            if error.downcast_ref::<hyper_util::client::legacy::Error>().unwrap().is_connect() {
                failed.send(()).ok();
            }
            error
        });
        tokio::spawn(async move {
            let delays = TokenEndpoint::CONNECT_RETRY_DELAYS.map(Some).into_iter().chain([None]);
            for (attempt, delay) in (1..).zip(delays.cycle()) {
                failures.recv().await?;
                on_failure(attempt);
                if let Some(delay) = delay {
                    // Timers fire at the end of their millisecond.
                    advance(delay + TICK).await;
                }
            }
            Some(())
        });
        let transport = transport.service(DefaultTransport::new().unwrap());
        TokenEndpoint::with_transport(self.url("http"), auth(secret), transport).unwrap()
    }

    pub(super) fn listen(&self) -> TcpListener {
        bind(self.address).listen(64).unwrap()
    }

    /// Starts a token endpoint. One of the faults happens to each of the first requests. All later
    /// requests get a token.
    pub(super) fn serve(
        &self,
        authority: &Authority,
        faults: impl IntoIterator<Item = Fault, IntoIter: Send + 'static>,
    ) -> RunningServer {
        let (listener, authority) = (self.listen(), authority.clone());
        let mut faults = faults.into_iter();
        let (request_count, requests) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut hanging = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let then = exchange(&mut stream, &authority, faults.next()).await;
                match then {
                    Then::Close => {}
                    Then::Reset => stream.set_zero_linger().unwrap(),
                    Then::Hang => hanging.push(stream),
                }
                request_count.send_modify(|requests| *requests += 1);
            }
        });
        RunningServer { requests, task }
    }
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

pub(super) struct RunningServer {
    requests: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl RunningServer {
    /// Waits until the server has read a request and sent the response that its fault allows.
    pub(super) async fn wait_for_request(&mut self) {
        self.requests.wait_for(|requests| *requests > 0).await.unwrap();
    }

    pub(super) fn requests(&self) -> usize {
        *self.requests.borrow()
    }

    /// Stops the server, so that later connections are refused.
    pub(super) async fn stop(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Reads one request and answers it.
pub(super) async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    authority: &Authority,
    fault: Option<Fault>,
) -> Then {
    let request = read_request(stream).await;
    let (answer, then) = match fault {
        _ if !request.contains(CREDENTIAL) => {
            (answer("401 Unauthorized", r#"{"error":"invalid_client"}"#), Then::Close)
        }
        Some(Fault::Answer(answer, then)) => (answer, then),
        Some(Fault::Lost) => {
            authority.issue_as_json();
            (String::new(), Then::Close)
        }
        None => (answer("200 OK", &authority.issue_as_json()), Then::Close),
    };
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    then
}

/// Reads the head and the form of a token request.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut request = String::new();
    while !request.ends_with("\r\n\r\ngrant_type=client_credentials") {
        let mut buffer = [0; 1024];
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "the connection ended within a request: {request}");
        request.push_str(str::from_utf8(&buffer[..length]).unwrap());
    }
    request
}
