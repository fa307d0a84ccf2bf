//! The servers of `servers.mjs` and `providers.mjs`, as child processes.

use std::process::Command;

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::process::{Process, script};

/// Stopped on drop.
pub(crate) struct Servers {
    process: Process,
    urls: Value,
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
        Self::start_with("servers.mjs", &[])
    }

    /// Token endpoint and API of one provider.
    pub(crate) fn start_provider(name: &str) -> Self {
        Self::start_with("providers.mjs", &[name.to_owned()])
    }

    /// The same ports, and nothing else of what was before.
    pub(crate) fn start_again(&mut self) {
        let ports = [self.token_url(), self.api_url()]
            .map(|url| url.parse::<Uri>().unwrap().port().unwrap().to_string());
        *self = Self::start_with("servers.mjs", &ports);
    }

    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    fn start_with(name: &str, arguments: &[String]) -> Self {
        let (process, urls) = Process::start(Command::new("node").arg(script(name)).args(arguments), "");
        Self { process, urls, control: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub(crate) fn token_url(&self) -> &str {
        self.urls["token_url"].as_str().unwrap()
    }

    pub(crate) fn introspection_url(&self) -> &str {
        self.urls["introspection_url"].as_str().unwrap()
    }

    /// Of a provider, it is also what the path of its token endpoint is appended to.
    pub(crate) fn api_url(&self) -> &str {
        self.urls["api_url"].as_str().unwrap()
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

    /// What a daily limit counts.
    pub(crate) async fn tokens_issued(&self) -> u64 {
        self.call(Method::GET, "counts").await["tokens_issued"].as_u64().unwrap()
    }

    /// Destroys every opaque token that was issued so far.
    pub(crate) async fn revoke_all(&self) {
        self.call(Method::POST, "revoke-all").await;
    }

    async fn call(&self, method: Method, what: &str) -> Value {
        let uri = format!("{}/control/{what}", self.api_url());
        let request = Request::builder().method(method).uri(uri).body(Empty::new()).unwrap();
        let response = self.control.request(request).await.unwrap();
        assert!(response.status().is_success(), "{what}: {}", response.status());
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }
}
