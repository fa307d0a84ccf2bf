//! The providers of `examples/providers`, each against real server software.

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
    BodyFormat, ClientAuth, ClientCredentials, ClientSecret, Issuer, TokenCache, TokenEndpoint,
    TokenErrorKind,
};

use crate::{
    Api, everything_said_by,
    servers::{Counts, Servers},
    token_error,
};

const ID: &str = "client 100% + more";
const SECRET: &str = r#"s:e%63r+e t&=/?"~"#;
const AUDIENCE: &str = "https://api.saas.test";

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

#[tokio::test(flavor = "multi_thread")]
async fn pex_takes_http_basic() {
    let provider = Provider::start("pex");
    let tokens = provider.tokens(SECRET);
    provider.proves(&tokens, 2 * HOUR).await;
    assert_eq!(tokens.current().unwrap().scope(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn pa_takes_a_form_and_says_the_scope_that_it_granted() {
    let provider = Provider::start("pa");
    let tokens = provider.tokens(SECRET);
    provider.proves(&tokens, 25 * HOUR).await;
    assert_eq!(tokens.current().unwrap().scope(), Some("api:recs api:search"));
}

#[tokio::test(flavor = "multi_thread")]
async fn expertfile_answers_in_an_envelope_with_a_date_and_a_scope_that_is_true() {
    for version in ["", "/v2"] {
        let provider = Provider { path: version, ..Provider::start("expertfile") };
        let tokens = provider.tokens(SECRET);
        provider.proves(&tokens, 30 * DAY).await;
        assert_eq!(tokens.current().unwrap().scope(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_with_a_daily_limit_takes_json_with_an_audience() {
    let provider = Provider::start("saas");
    provider.proves(&provider.tokens(SECRET), DAY).await;
    assert_eq!(provider.servers.tokens_issued().await, 2, "the first one, and the one after the revocation");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_legacy_scheme_needs_no_token_request_and_a_refusal_reaches_the_caller() {
    let provider = Provider::start("legacy");
    let api = provider.api(&provider.tokens(SECRET));
    for _ in 0..20 {
        assert_eq!(api.get("/api").await.unwrap(), StatusCode::OK);
    }
    provider.servers.revoke_all().await;
    assert_eq!(api.get("/api").await.unwrap(), StatusCode::UNAUTHORIZED);
    let expected = Counts { token_requests: 0, api_served: 20, api_refused: 1 };
    assert_eq!(provider.servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_secret_that_is_rotated_in_its_file_is_recovered() {
    let provider = Provider::start("legacy");
    let secret = ClientSecret::from_file(provider.secret_file(SECRET));
    let api = provider.api(&configuration::legacy(ID, secret).unwrap());
    assert_eq!(api.get("/api").await.unwrap(), StatusCode::OK);

    provider.servers.revoke_all().await;
    provider.secret_file(&format!("{SECRET} (rotated)"));
    assert_eq!(api.get("/api").await.unwrap(), StatusCode::OK);
    let expected = Counts { token_requests: 0, api_served: 2, api_refused: 1 };
    assert_eq!(provider.servers.counts().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn success_false_is_a_refusal_with_the_message_of_the_server() {
    let message = "Invalid client: client is invalid";
    for (version, code) in [("", None), ("/v2", Some(message))] {
        let provider = Provider { path: version, ..Provider::start("expertfile") };
        let error = provider.tokens("wr:o%6Eg+ secret").token().await.unwrap_err();
        assert_eq!((error.kind(), error.error_code()), (TokenErrorKind::Refused, code));
        assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST));
        assert!(error.to_string().contains(message), "{error}");
        assert!(!everything_said_by(&error).contains("wr:o"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_request_without_the_audience_is_refused_and_counts_for_no_limit() {
    let provider = Provider::start("saas");
    let url = format!("{}/oauth/token", provider.servers.api_url());
    let endpoint = TokenEndpoint::new(url, ClientAuth::client_secret_post(ID, SECRET)).unwrap();
    let tokens = TokenCache::new(ClientCredentials::new(endpoint.body_format(BodyFormat::Json)));
    let error = token_error(provider.api(&tokens).get("/api").await);
    assert_eq!((error.kind(), error.error_code()), (TokenErrorKind::Refused, Some("invalid_request")));
    assert_eq!(provider.servers.tokens_issued().await, 0);
}

#[tokio::test]
async fn each_token_is_renewed_behind_twenty_minutes_before_its_end_and_that_of_pa_after_a_day() {
    // Less up to two minutes, by chance.
    let window = 20 * 60;
    for (name, renewed_at) in
        [("pex", 2 * HOUR - window), ("pa", DAY), ("expertfile", 30 * DAY - window), ("saas", DAY - window)]
    {
        let provider = Provider::start(name);
        let tokens = provider.tokens(SECRET);
        let first = tokens.token().await.unwrap().generation();
        skip(renewed_at - 30).await;
        assert_eq!(tokens.token().await.unwrap().generation(), first, "{name}");
        skip(30 + 120).await;
        assert_eq!(tokens.token().await.unwrap().generation(), first, "{name}: nobody waits");
        crate::wait_until(async || tokens.current().unwrap().generation() > first).await;
        assert_eq!(provider.servers.counts().await.token_requests, 2, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_of_an_issuer_is_enough_to_find_its_token_endpoint() {
    let provider = Provider::start("pex");
    let tokens = discovered(&provider, ClientAuth::client_secret_basic(ID, SECRET));
    provider.proves(&tokens, 2 * HOUR).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_authentication_that_the_issuer_does_not_support_is_found_before_any_token_request() {
    let provider = Provider::start("pex");
    let tokens = discovered(&provider, ClientAuth::client_secret_post(ID, SECRET));
    let error = token_error(provider.api(&tokens).get("/api").await);
    assert_eq!(error.kind(), TokenErrorKind::Configuration);
    assert!(error.to_string().contains("client_secret_post, but: client_secret_basic"), "{error}");
    let expected = Counts { token_requests: 0, api_served: 0, api_refused: 0 };
    assert_eq!(provider.servers.counts().await, expected);
}

#[test]
fn each_provider_is_ten_lines_of_configuration_at_the_most() {
    let configuration = include_str!("../../examples/providers/configuration.rs");
    let functions: Vec<_> = configuration.split("pub(crate) fn ").skip(1).collect();
    assert_eq!(functions.len(), 5);
    for function in functions {
        let lines = function.lines().position(|line| line == "}").unwrap() + 1;
        assert!(lines <= 10, "{lines} lines: {function}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_gets_a_token_of_every_provider_and_opens_its_api() {
    for (name, lifetime, said) in [
        ("pex", Some(2 * HOUR), &["token type: Bearer", "answer: 200 OK"][..]),
        ("pa", Some(25 * HOUR), &["token type: Bearer", "scope: api:recs api:search", "answer: 200 OK"]),
        ("expertfile", Some(30 * DAY), &["token type: Bearer", "answer: 200 OK"]),
        ("saas", Some(DAY), &["token type: Bearer", "answer: 200 OK"]),
        ("legacy", None, &["token type: Basic", "answer: 200 OK"]),
    ] {
        let provider = Provider::start(name);
        let output = provider.example(SECRET);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{name}");
        let mut lines: Vec<_> = text(&output.stdout).lines().collect();
        if let Some(lifetime) = lifetime {
            let seconds = lines.remove(1).strip_prefix("expires in: ").unwrap().strip_suffix(" s").unwrap();
            assert_about(lifetime, seconds.parse().unwrap());
        }
        assert_eq!(lines, said, "{name}");
        let requests = u64::from(name != "legacy");
        let expected = Counts { token_requests: requests, api_served: 1, api_refused: 0 };
        assert_eq!(provider.servers.counts().await, expected, "{name}");
    }
}

#[test]
fn the_example_says_in_one_line_what_went_wrong() {
    let wrong = "wr:o%6Eg+ secret";
    for (name, said) in [
        ("pex", "invalid_client"),
        ("pa", "invalid_client"),
        ("expertfile", "Invalid client: client is invalid"),
        ("saas", "invalid_client"),
        ("legacy", "401 Unauthorized"),
    ] {
        let provider = Provider::start(name);
        let output = provider.example(wrong);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        assert!(error.starts_with("providers: ") && error.contains(said), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{name}: {error}");
        assert!(!error.contains(wrong), "{error}");
    }
}

#[test]
fn the_example_says_in_one_line_what_is_wrong_with_its_use() {
    for (arguments, said) in [
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
        (
            &["pex", "--base-url=https://a.test", "--client-id=a", "--client-secret-file=/no/such"],
            "/no/such cannot be read",
        ),
        (&["pex", "--client-id"], "--client-id needs a value"),
        (&["pex", "--client-id", "a", "--client-id=b"], "--client-id is given twice"),
        (&["pex", "--base-url", "https://a.test", "--client-id", "a"], "--client-secret-file is missing"),
        (&["pex", "--base-url", "http://a.test", "--client-id", "a", "--client-secret-file", "b"], "https"),
        (
            &["saas", "--base-url", "https://a.test", "--client-id", "a", "--client-secret-file", "b"],
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
        assert!(error.contains(said), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

struct Provider {
    name: &'static str,
    /// Before the path of the token endpoint.
    path: &'static str,
    servers: Servers,
}

impl Provider {
    fn start(name: &'static str) -> Self {
        Self { name, path: "", servers: Servers::start_provider(name) }
    }

    fn tokens(&self, secret: &str) -> TokenCache {
        let (url, secret) = (format!("{}{}", self.servers.api_url(), self.path), ClientSecret::from(secret));
        match self.name {
            "pex" => configuration::pex(&url, ID, secret).unwrap(),
            "pa" => configuration::pa(&url, ID, secret).unwrap(),
            "expertfile" => configuration::expertfile(&url, ID, secret).unwrap(),
            "saas" => configuration::saas(&url, ID, secret, AUDIENCE).unwrap(),
            "legacy" => configuration::legacy(ID, secret).unwrap(),
            other => panic!("{other} is no provider"),
        }
    }

    fn api(&self, tokens: &TokenCache) -> Api {
        Api::new(&self.servers, tokens.clone())
    }

    /// The first token opens the API, is used again and again, and after its revocation another one takes its place.
    async fn proves(&self, tokens: &TokenCache, lifetime: u64) {
        let api = self.api(tokens);
        for _ in 0..100 {
            assert_eq!(api.get("/api").await.unwrap(), StatusCode::OK);
        }
        let expected = Counts { token_requests: 1, api_served: 100, api_refused: 0 };
        assert_eq!(self.servers.counts().await, expected);
        assert_about(lifetime, tokens.current().unwrap().lifetime().unwrap().as_secs());

        self.servers.revoke_all().await;
        assert_eq!(api.get("/api").await.unwrap(), StatusCode::OK);
        let expected = Counts { token_requests: 2, api_served: 101, api_refused: 1 };
        assert_eq!(self.servers.counts().await, expected);
    }

    /// Gets a token and opens the API.
    fn example(&self, secret: &str) -> Output {
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

/// Not by `cargo run`, which would add its own warnings.
fn run_example(arguments: &[&str]) -> Output {
    let this = env::current_exe().unwrap();
    let example = this.ancestors().nth(2).unwrap().join("examples/providers");
    Command::new(example).args(arguments).output().expect("tests/interop/run builds the example")
}

fn discovered(provider: &Provider, auth: ClientAuth) -> TokenCache {
    let issuer = Issuer::try_from(provider.servers.api_url()).unwrap();
    TokenCache::new(ClientCredentials::new(TokenEndpoint::new(issuer, auth).unwrap()))
}

/// The clock of this process alone: the servers do not see it.
async fn skip(seconds: u64) {
    time::pause();
    time::advance(Duration::from_secs(seconds)).await;
    time::resume();
}

/// A server that counts from an instant loses a part of a second; a `Date` header without fractions adds one.
fn assert_about(expected: u64, seconds: u64) {
    assert!(seconds.abs_diff(expected) <= 1, "{seconds} is not {expected}");
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}
