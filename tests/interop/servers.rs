//! The servers of `servers.mjs`, as a child process.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Stopped on drop.
pub(crate) struct Servers {
    process: Child,
    token_url: String,
    api_url: String,
    /// One for all calls: under load, node is slow to accept a connection.
    control: Client<HttpConnector, Empty<Bytes>>,
}

/// What the servers have seen since they were started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) token_requests: u64,
    pub(crate) api_served: u64,
    pub(crate) api_refused: u64,
}

impl Servers {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same ports, and nothing else of what was before.
    pub(crate) fn start_again(&mut self) {
        let ports = [&self.token_url, &self.api_url]
            .map(|url| url.parse::<Uri>().unwrap().port().unwrap().to_string());
        *self = Self::start_with(&ports);
    }

    pub(crate) fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_with(ports: &[String]) -> Self {
        let mut process = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/servers.mjs"))
            .args(ports)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is there");
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let Ok(line) = ready.recv_timeout(START_TIMEOUT) else {
            let _ = process.kill();
            panic!("servers.mjs did not start; tests/interop/run installs what it needs");
        };
        let ready = serde_json::from_str::<Value>(&line).unwrap();
        let url = |name: &str| ready[name].as_str().unwrap().to_owned();
        let control = Client::builder(TokioExecutor::new()).build_http();
        Self { process, token_url: url("token_url"), api_url: url("api_url"), control }
    }

    pub(crate) fn token_url(&self) -> &str {
        &self.token_url
    }

    pub(crate) fn api_url(&self) -> &str {
        &self.api_url
    }

    pub(crate) async fn counts(&self) -> Counts {
        let counts = self.call(Method::GET, "counts").await;
        let count = |name: &str| counts[name].as_u64().unwrap();
        Counts {
            token_requests: count("token_requests"),
            api_served: count("api_served"),
            api_refused: count("api_refused"),
        }
    }

    /// Destroys every opaque token that was issued so far.
    pub(crate) async fn revoke_all(&self) {
        self.call(Method::POST, "revoke-all").await;
    }

    async fn call(&self, method: Method, what: &str) -> Value {
        let uri = format!("{}/control/{what}", self.api_url);
        let request = Request::builder().method(method).uri(uri).body(Empty::new()).unwrap();
        let response = self.control.request(request).await.unwrap();
        assert!(response.status().is_success(), "{what}: {}", response.status());
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
