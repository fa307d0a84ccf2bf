//! The servers of `servers.mjs` and `providers.mjs` in child processes.

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

/// Servers in one child process, which is killed on drop.
pub(crate) struct Servers {
    process: Process,
    urls: Value,
    /// All control requests share one client: under load, node is slow to accept a connection.
    control: Client<HttpConnector, Empty<Bytes>>,
}

/// The requests that the servers received since their start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) token_requests: u64,
    pub(crate) api_accepted: u64,
    pub(crate) api_rejected: u64,
}

impl Servers {
    pub(crate) fn start() -> Self {
        Self::start_with("servers.mjs", &[])
    }

    /// Starts the token endpoint and the API of one provider.
    pub(crate) fn start_provider(name: &str) -> Self {
        Self::start_with("providers.mjs", &[name.to_owned()])
    }

    /// Starts the servers again on the same ports, without their previous state.
    pub(crate) fn restart(&mut self) {
        let ports = [self.token_url(), self.api_url()]
            .map(|url| url.parse::<Uri>().unwrap().port().unwrap().to_string());
        *self = Self::start_with("servers.mjs", &ports);
    }

    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    fn start_with(name: &str, arguments: &[String]) -> Self {
        let mut command = Command::new("node");
        let (process, urls) = Process::start(command.arg(script(name)).args(arguments), "");
        Self { process, urls, control: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub(crate) fn token_url(&self) -> &str {
        self.urls["token_url"].as_str().unwrap()
    }

    pub(crate) fn introspection_url(&self) -> &str {
        self.urls["introspection_url"].as_str().unwrap()
    }

    /// Returns the URL of the API. For a provider, it is also the base URL of the token endpoint.
    pub(crate) fn api_url(&self) -> &str {
        self.urls["api_url"].as_str().unwrap()
    }

    pub(crate) async fn counts(&self) -> Counts {
        let counts = self.call(Method::GET, "counts").await;
        let count = |name: &str| counts[name].as_u64().unwrap();
        Counts {
            token_requests: count("token_requests"),
            api_accepted: count("api_accepted"),
            api_rejected: count("api_rejected"),
        }
    }

    /// Returns the number of issued tokens, which a daily limit counts.
    pub(crate) async fn tokens_issued(&self) -> u64 {
        self.call(Method::GET, "counts").await["tokens_issued"].as_u64().unwrap()
    }

    /// Revokes all opaque tokens that were issued so far.
    pub(crate) async fn revoke_all(&self) {
        self.call(Method::POST, "revoke-all").await;
    }

    async fn call(&self, method: Method, action: &str) -> Value {
        let uri = format!("{}/control/{action}", self.api_url());
        let request = Request::builder().method(method).uri(uri).body(Empty::new()).unwrap();
        let response = self.control.request(request).await.unwrap();
        assert!(response.status().is_success(), "{action}: {}", response.status());
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }
}
