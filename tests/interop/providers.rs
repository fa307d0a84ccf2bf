//! The providers of `examples/providers`, tested against real server software.

#[path = "../../examples/providers/configuration.rs"]
mod configuration;

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use http::StatusCode;
use tokio::time;
use tower_oauth::{
    ClientAuth, ClientCredentials, Issuer, RequestFormat, Secret, TokenCache, TokenEndpoint,
    TokenErrorKind,
};

use crate::{
    Api, display_and_debug_of_chain,
    servers::{Counts, Servers},
    token_error,
};

const ID: &str = "client 100% + more";
const SECRET: &str = r#"s:e%63r+e t&=/?"~"#;
const AUDIENCE: &str = "https://api.saas.test";

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

#[tokio::test(flavor = "multi_thread")]
async fn pex_accepts_http_basic() {
    let provider = Provider::start("pex");
    let cache = provider.token_cache(SECRET);
    provider.check_use_and_revocation(&cache, 2 * HOUR).await;
    assert_eq!(cache.current().unwrap().scope(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn pa_accepts_a_form_and_returns_the_granted_scope() {
    let provider = Provider::start("pa");
    let cache = provider.token_cache(SECRET);
    provider.check_use_and_revocation(&cache, 25 * HOUR).await;
    assert_eq!(cache.current().unwrap().scope(), Some("api:recs api:search"));
}

#[tokio::test(flavor = "multi_thread")]
async fn expertfile_response_is_an_envelope_with_an_expiry_date() {
    for version in ["", "/v2"] {
        let provider = Provider { path: version, ..Provider::start("expertfile") };
        let cache = provider.token_cache(SECRET);
        provider.check_use_and_revocation(&cache, 30 * DAY).await;
        assert_eq!(cache.current().unwrap().scope(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn saas_accepts_json_with_an_audience() {
    let provider = Provider::start("saas");
    provider.check_use_and_revocation(&provider.token_cache(SECRET), DAY).await;
    let issued = provider.servers.tokens_issued().await;
    assert_eq!(issued, 2, "one token at first and one after the revocation");
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_scheme_needs_no_token_request() {
    let provider = Provider::start("legacy");
    let api = provider.api(&provider.token_cache(SECRET));
    for _ in 0..20 {
        assert_eq!(api.get("/api").await.unwrap(), StatusCode::OK);
    }
    provider.servers.revoke_all().await;
    assert_eq!(api.get("/api").await.unwrap(), StatusCode::UNAUTHORIZED);
    let expected = Counts { token_requests: 0, api_accepted: 20, api_rejected: 1 };
    assert_eq!(provider.servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_secret_is_read_again_after_a_rotation() {
    let provider = Provider::start("legacy");
    let secret = Secret::from_file(provider.secret_file(SECRET));
    let api = provider.api(&configuration::legacy(ID, secret).unwrap());
    assert_eq!(api.get("/api").await.unwrap(), StatusCode::OK);

    provider.servers.revoke_all().await;
    provider.secret_file(&format!("{SECRET} (rotated)"));
    assert_eq!(api.get("/api").await.unwrap(), StatusCode::OK);
    let expected = Counts { token_requests: 0, api_accepted: 2, api_rejected: 1 };
    assert_eq!(provider.servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn success_false_is_an_error_with_the_server_message() {
    let message = "Invalid client: client is invalid";
    for (version, code) in [("", None), ("/v2", Some(message))] {
        let provider = Provider { path: version, ..Provider::start("expertfile") };
        let error = provider.token_cache("wr:o%6Eg+ secret").token().await.unwrap_err();
        assert_eq!((error.kind(), error.error_code()), (TokenErrorKind::Rejected, code));
        assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
        assert!(error.to_string().contains(message), "{error}");
        assert!(!display_and_debug_of_chain(&error).contains("wr:o"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_request_without_audience_issues_no_token() {
    let provider = Provider::start("saas");
    let url = format!("{}/oauth/token", provider.servers.api_url());
    let endpoint = TokenEndpoint::new(url, ClientAuth::client_secret_post(ID, SECRET)).unwrap();
    let cache =
        TokenCache::new(ClientCredentials::new(endpoint.request_format(RequestFormat::Json)));
    let error = token_error(provider.api(&cache).get("/api").await);
    assert_eq!(
        (error.kind(), error.error_code()),
        (TokenErrorKind::Rejected, Some("invalid_request"))
    );
    assert_eq!(provider.servers.tokens_issued().await, 0);
}

#[tokio::test]
async fn stale_tokens_are_refreshed_in_the_background() {
    // A token is stale 20 minutes before its expiry, and that of pa after a day. Jitter shortens
    // the 20 minutes by up to two minutes.
    let window = 20 * 60;
    for (name, stale_after) in [
        ("pex", 2 * HOUR - window),
        ("pa", DAY),
        ("expertfile", 30 * DAY - window),
        ("saas", DAY - window),
    ] {
        let provider = Provider::start(name);
        let cache = provider.token_cache(SECRET);
        let first = cache.token().await.unwrap().generation();
        advance_clock(stale_after - 30).await;
        assert_eq!(cache.token().await.unwrap().generation(), first, "{name}");
        advance_clock(30 + 120).await;
        assert_eq!(cache.token().await.unwrap().generation(), first, "{name}: the caller waited");
        crate::wait_until(async || cache.current().unwrap().generation() > first).await;
        assert_eq!(provider.servers.counts().await.token_requests, 2, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_metadata_provides_the_token_endpoint() {
    let provider = Provider::start("pex");
    let cache = cache_with_discovery(&provider, ClientAuth::client_secret_basic(ID, SECRET));
    provider.check_use_and_revocation(&cache, 2 * HOUR).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unsupported_client_authentication_sends_no_token_request() {
    let provider = Provider::start("pex");
    let cache = cache_with_discovery(&provider, ClientAuth::client_secret_post(ID, SECRET));
    let error = token_error(provider.api(&cache).get("/api").await);
    assert_eq!(error.kind(), TokenErrorKind::Configuration);
    assert!(error.to_string().contains("client_secret_post, but: client_secret_basic"), "{error}");
    let expected = Counts { token_requests: 0, api_accepted: 0, api_rejected: 0 };
    assert_eq!(provider.servers.counts().await, expected);
}

#[test]
fn each_provider_has_at_most_ten_lines_of_configuration() {
    let configuration = include_str!("../../examples/providers/configuration.rs");
    let functions: Vec<_> = configuration.split("pub(crate) fn ").skip(1).collect();
    assert_eq!(functions.len(), 5);
    for function in functions {
        let lines = function.lines().position(|line| line == "}").unwrap() + 1;
        assert!(lines <= 10, "{lines} lines: {function}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn example_gets_tokens_that_every_api_accepts() {
    for (name, lifetime, expected_lines) in [
        ("pex", Some(2 * HOUR), &["token type: Bearer", "answer: 200 OK"][..]),
        (
            "pa",
            Some(25 * HOUR),
            &["token type: Bearer", "scope: api:recs api:search", "answer: 200 OK"],
        ),
        ("expertfile", Some(30 * DAY), &["token type: Bearer", "answer: 200 OK"]),
        ("saas", Some(DAY), &["token type: Bearer", "answer: 200 OK"]),
        ("legacy", None, &["token type: Basic", "answer: 200 OK"]),
    ] {
        let provider = Provider::start(name);
        let output = provider.run_example(SECRET);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{name}");
        let mut lines: Vec<_> = text(&output.stdout).lines().collect();
        if let Some(lifetime) = lifetime {
            let line = lines.remove(1);
            let seconds = line.strip_prefix("expires in: ").unwrap().strip_suffix(" s").unwrap();
            assert_within_a_second(lifetime, seconds.parse().unwrap());
        }
        assert_eq!(lines, expected_lines, "{name}");
        let requests = u64::from(name != "legacy");
        let expected = Counts { token_requests: requests, api_accepted: 1, api_rejected: 0 };
        assert_eq!(provider.servers.counts().await, expected, "{name}");
    }
}

#[test]
fn example_reports_an_error_in_one_line() {
    let wrong = "wr:o%6Eg+ secret";
    for (name, expected) in [
        ("pex", "invalid_client"),
        ("pa", "invalid_client"),
        ("expertfile", "Invalid client: client is invalid"),
        ("saas", "invalid_client"),
        ("legacy", "401 Unauthorized"),
    ] {
        let provider = Provider::start(name);
        let output = provider.run_example(wrong);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        assert!(error.starts_with("providers: ") && error.contains(expected), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{name}: {error}");
        assert!(!error.contains(wrong), "{error}");
    }
}

/// The file may be written later, so that this is no wrong usage.
#[test]
fn example_reports_a_missing_secret_file_in_one_line() {
    let file = "--client-secret-file=/no/such";
    let output = run_example(&["pex", "--base-url=https://a.test", "--client-id=a", file]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("/no/such cannot be read"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn example_reports_wrong_usage_in_one_line() {
    for (arguments, expected) in [
        (&[][..], "PROVIDER is missing"),
        (&["amazon"], "no provider \"amazon\""),
        (&["pex", "--client-secret", "hunter2"], "no option \"--client-secret\""),
        (
            &[
                "pex",
                "--audience",
                "a",
                "--base-url=https://a.test",
                "--client-id=a",
                "--client-secret-file=b",
            ],
            "--audience is not for this provider",
        ),
        (&["pex", "--client-id"], "--client-id needs a value"),
        (&["pex", "--client-id", "a", "--client-id=b"], "--client-id is given twice"),
        (
            &["pex", "--base-url", "https://a.test", "--client-id", "a"],
            "--client-secret-file is missing",
        ),
        (
            &[
                "pex",
                "--base-url",
                "http://a.test",
                "--client-id",
                "a",
                "--client-secret-file",
                "b",
            ],
            "https",
        ),
        (
            &[
                "saas",
                "--base-url",
                "https://a.test",
                "--client-id",
                "a",
                "--client-secret-file",
                "b",
            ],
            "--audience is missing",
        ),
        (
            &[
                "pex",
                "--base-url=https://a.test",
                "--client-id=a",
                "--client-secret-file=b",
                "http://api.test/hunter2",
            ],
            "GET-URL",
        ),
    ] {
        let output = run_example(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

struct Provider {
    name: &'static str,
    /// The prefix of the path of the token endpoint.
    path: &'static str,
    servers: Servers,
}

impl Provider {
    fn start(name: &'static str) -> Self {
        Self { name, path: "", servers: Servers::start_provider(name) }
    }

    fn token_cache(&self, secret: &str) -> TokenCache {
        let url = format!("{}{}", self.servers.api_url(), self.path);
        let secret = Secret::from(secret);
        match self.name {
            "pex" => configuration::pex(&url, ID, secret).unwrap(),
            "pa" => configuration::pa(&url, ID, secret).unwrap(),
            "expertfile" => configuration::expertfile(&url, ID, secret).unwrap(),
            "saas" => configuration::saas(&url, ID, secret, AUDIENCE).unwrap(),
            "legacy" => configuration::legacy(ID, secret).unwrap(),
            other => panic!("unknown provider {other}"),
        }
    }

    fn api(&self, cache: &TokenCache) -> Api {
        Api::new(&self.servers, cache.clone())
    }

    /// Checks that the API accepts the first token, that the token is reused, and that it is
    /// replaced after a revocation.
    async fn check_use_and_revocation(&self, cache: &TokenCache, lifetime: u64) {
        let api = self.api(cache);
        for _ in 0..100 {
            assert_eq!(api.get("/api").await.unwrap(), StatusCode::OK);
        }
        let expected = Counts { token_requests: 1, api_accepted: 100, api_rejected: 0 };
        assert_eq!(self.servers.counts().await, expected);
        assert_within_a_second(lifetime, cache.current().unwrap().lifetime().unwrap().as_secs());

        self.servers.revoke_all().await;
        assert_eq!(api.get("/api").await.unwrap(), StatusCode::OK);
        let expected = Counts { token_requests: 2, api_accepted: 101, api_rejected: 1 };
        assert_eq!(self.servers.counts().await, expected);
    }

    /// Runs the example. It gets a token and sends a request to the API.
    fn run_example(&self, secret: &str) -> Output {
        let url = self.servers.api_url();
        let (api_url, secret_file) = (format!("{url}/api"), self.secret_file(secret));
        let mut arguments = vec![self.name, "--client-id", ID];
        arguments.extend(["--client-secret-file", secret_file.to_str().unwrap(), &api_url]);
        if self.name != "legacy" {
            arguments.extend(["--base-url", url]);
        }
        if self.name == "saas" {
            arguments.extend(["--audience", AUDIENCE]);
        }
        run_example(&arguments)
    }

    fn secret_file(&self, secret: &str) -> PathBuf {
        let port = self.servers.api_url().rsplit(':').next().unwrap();
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("secret-of-{port}"));
        fs::write(&file, format!("{secret}\n")).unwrap();
        file
    }
}

/// Starts the example without `cargo run`, which could print warnings of its own.
fn run_example(arguments: &[&str]) -> Output {
    let this = env::current_exe().unwrap();
    let example = this.ancestors().nth(2).unwrap().join("examples/providers");
    Command::new(example)
        .args(arguments)
        .output()
        .expect("start this test with tests/interop/run, which builds the example")
}

fn cache_with_discovery(provider: &Provider, auth: ClientAuth) -> TokenCache {
    let issuer = Issuer::try_from(provider.servers.api_url()).unwrap();
    TokenCache::new(ClientCredentials::new(TokenEndpoint::new(issuer, auth).unwrap()))
}

/// Moves the clock of this process. The clocks of the servers do not change.
async fn advance_clock(seconds: u64) {
    time::pause();
    time::advance(Duration::from_secs(seconds)).await;
    time::resume();
}

/// Checks a lifetime with a tolerance of one second. A server that rounds down loses a part of a
/// second, and a `Date` header without fractions adds one.
fn assert_within_a_second(expected: u64, seconds: u64) {
    assert!(seconds.abs_diff(expected) <= 1, "{seconds} s instead of {expected} s");
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}
