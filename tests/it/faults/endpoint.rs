use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinHandle,
};
use tower_oauth::{ClientAuth, ClientSecret, TokenEndpoint};

use crate::loopback::Authority;

pub(super) const SECRET: &str = "S3CRET";
const CREDENTIAL: &str = "authorization: Basic aWQ6UzNDUkVU\r\n";

pub(super) fn auth(secret: impl Into<ClientSecret>) -> ClientAuth {
    ClientAuth::client_secret_basic("id", secret)
}

/// What becomes of one token request that was read to its end.
pub(super) enum Fault {
    /// This is the answer, or its beginning.
    Answer(String, Then),
    /// A token is issued, its answer lost.
    Lost,
}

#[derive(Clone, Copy)]
pub(super) enum Then {
    Close,
    Reset,
    Hang,
}

/// A whole answer. `head` begins with the status.
pub(super) fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A port of loopback that stays ours while nothing listens on it, so that connections to it are refused.
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

    pub(super) fn endpoint(&self, secret: impl Into<ClientSecret>) -> TokenEndpoint {
        TokenEndpoint::new(self.url("http"), auth(secret)).unwrap()
    }

    pub(super) fn listen(&self) -> TcpListener {
        bind(self.address).listen(64).unwrap()
    }

    /// A token endpoint that these faults happen to, one for each request. Then it issues tokens.
    pub(super) fn serve(
        &self,
        authority: &Authority,
        faults: impl IntoIterator<Item = Fault, IntoIter: Send + 'static>,
    ) -> Serving {
        let (listener, authority, mut faults) = (self.listen(), authority.clone(), faults.into_iter());
        let (seen, requests) = watch::channel(0);
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
                seen.send_modify(|requests| *requests += 1);
            }
        });
        Serving { requests, task }
    }
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

pub(super) struct Serving {
    requests: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Serving {
    /// A request has been read, and whatever is said to it has been said.
    pub(super) async fn has_seen_a_request(&mut self) {
        self.requests.wait_for(|requests| *requests > 0).await.unwrap();
    }

    pub(super) fn requests(&self) -> usize {
        *self.requests.borrow()
    }

    /// From now on connections are refused.
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
    let request = read(stream).await;
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

/// Head and form of a token request.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut request = String::new();
    while !request.ends_with("\r\n\r\ngrant_type=client_credentials") {
        let mut buffer = [0; 1024];
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "half a request: {request}");
        request.push_str(str::from_utf8(&buffer[..length]).unwrap());
    }
    request
}
