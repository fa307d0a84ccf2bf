//! An HTTP server on the loopback interface.

use std::{
    convert::Infallible,
    future, io,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinSet},
};

use super::{
    fake_endpoint::{FakeEndpoint, Fault},
    messages::{ResponseBody, body},
};
use crate::sync::{Mutex, lock};

/// The default of hyper is 200. Further requests would wait for the first ones, which a test may
/// hold.
const MAX_CONCURRENT_STREAMS: u32 = 4096;
/// The pause after a connection that could not be accepted, such as for a lack of file handles.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// The behavior of a server without faults.
pub(super) trait Respond: Clone + Send + Sync + 'static {
    fn respond(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send;
}

/// A server for HTTP/1 and HTTP/2 that stops when it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// `None` after the drop. The task ends only when the runtime runs it, but the port must be
    /// free at once.
    listener: Arc<Mutex<Option<TcpListener>>>,
    task: AbortHandle,
}

impl Server {
    /// Starts a server on this port, or on a free one if it is 0.
    pub(super) async fn start(
        port: u16,
        endpoint: FakeEndpoint,
        responder: impl Respond,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let listener = Arc::new(Mutex::new(Some(listener)));
        let task = tokio::spawn(accept(Arc::clone(&listener), endpoint, responder));
        Ok(Self { address, listener, task: task.abort_handle() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        lock(&self.listener).take();
    }
}

/// Serves connections until the future is dropped, which closes all of them.
async fn accept(
    listener: Arc<Mutex<Option<TcpListener>>>,
    endpoint: FakeEndpoint,
    responder: impl Respond,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = future::poll_fn(|context| match &*lock(&listener) {
            Some(listener) => listener.poll_accept(context),
            None => Poll::Pending,
        });
        match accepted.await {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, endpoint.clone(), responder.clone()));
            }
            Err(_) => tokio::time::sleep(PAUSE_AFTER_ERROR).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, endpoint: FakeEndpoint, responder: impl Respond) {
    let disconnect = Arc::new(Notify::new());
    let service = service_fn(|request| {
        let (endpoint, responder) = (endpoint.clone(), responder.clone());
        let disconnect = Arc::clone(&disconnect);
        async move {
            match endpoint.admit().await {
                None => Ok::<_, Infallible>(responder.respond(request).await),
                Some(Fault::Response(response)) => Ok(response.map(body)),
                Some(Fault::Disconnect) => {
                    disconnect.notify_one();
                    future::pending().await
                }
            }
        }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http2().max_concurrent_streams(MAX_CONCURRENT_STREAMS);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut disconnected = pin!(disconnect.notified());
    // An error of the connection is seen by its client.
    future::poll_fn(|context| match disconnected.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => connection.as_mut().poll(context).map(drop),
    })
    .await;
}
