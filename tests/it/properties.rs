//! Property tests with random input: nothing panics, hangs or leaks a secret, and each setting is
//! sent unchanged.

use std::{
    cell::Cell,
    convert::Infallible,
    error::Error,
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri,
    header::{
        AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HOST, RETRY_AFTER, WWW_AUTHENTICATE,
    },
};
use http_body_util::{BodyExt, Full};
use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any},
    prop_oneof, sample,
    test_runner::{Config, TestRunner},
};
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt};
use tower_oauth::{
    AccessToken, CachedToken, ClientAuth, ClientCredentials, FetchContext, OAuthLayer, Origins,
    RequestFormat, ResponseFormat, TokenCache, TokenEndpoint, TokenError, TokenErrorKind,
    source_fn,
};

use crate::support::{Body, lock};

fn for_all<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&strategy, |input| {
        property(input);
        Ok(())
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

fn paused_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Generates text from all of Unicode, with many characters that have a meaning in some syntax.
fn text() -> impl Strategy<Value = String> {
    let special = sample::select(
        ":%+&=*-._~ \"\\/?#@\0\t\r\n\u{7f}\u{85}\u{2028}ü€\u{1F511}".chars().collect::<Vec<_>>(),
    );
    vec(prop_oneof![special, any::<char>()], 0..24).prop_map(String::from_iter)
}

mod responses {
    use super::*;

    const ID: &str = "my:client";
    const SECRET: &str = "S3CR3T + %\"\\ ü~*s3cr3t";
    const QUERY: &str = "tenant=K3Y-0N3&key=K3Y%2FTW0+x";
    const HEADER: &str = "H3AD3R, value";

    /// A part of each secret, in each encoding. No other generated text contains one of them.
    const SECRET_PARTS: [&str; 8] =
        ["S3CR3T", "s3cr3t", "K3Y-0N3", "K3Y%2FTW0", "K3Y/TW0", "H3AD3R", "bXklM0FjbGll", "T0KEN"];

    /// The secrets as they are sent. A server that changes a secret before it repeats it may show
    /// parts of it.
    const WHOLE_SECRETS: [&str; 6] =
        [SECRET, "K3Y-0N3", "K3Y/TW0 x", "K3Y%2FTW0+x", HEADER, "T0KEN"];

    #[derive(Clone, Copy, Debug)]
    enum Client {
        Basic,
        PostForm,
        PostJson,
    }

    #[derive(Clone, Debug)]
    struct ServerResponse {
        status: u16,
        headers: Vec<(HeaderName, Vec<u8>)>,
        body: Bytes,
    }

    fn server_response(
        body: impl Strategy<Value = Bytes>,
    ) -> impl Strategy<Value = ServerResponse> {
        let errors = sample::select(vec![400, 401, 503]);
        let status = prop_oneof![3 => Just(200), 1 => errors, 1 => 100_u16..=999];
        let parts = (status, vec(header(), 0..4), body);
        parts.prop_map(|(status, headers, body)| ServerResponse { status, headers, body })
    }

    fn header() -> impl Strategy<Value = (HeaderName, Vec<u8>)> {
        let name = sample::select(vec![
            DATE,
            RETRY_AFTER,
            CONTENT_TYPE,
            CONTENT_ENCODING,
            HeaderName::from_static("x-other"),
        ]);
        let known = sample::select(vec![
            "Sat, 31 Jan 2026 12:00:00 GMT",
            "Fri, 31 Dec 9999 23:59:60 GMT",
            "Mon, 01 Jan 0000 00:00:00 -2359",
            "31 Jan 99 24:61 PST",
            "18446744073709551615",
            "18446744073709551616",
            "-1",
            "1e9",
            "text/html; charset=\"",
            "application/x-www-form-urlencoded",
            "gzip",
            SECRET_AS_HEADER,
        ]);
        let garbage = vec(
            any::<u8>()
                .prop_filter("not allowed in a header", |byte| *byte >= b' ' && *byte != 0x7f),
            0..40,
        );
        (name, prop_oneof![known.prop_map(|text| text.as_bytes().to_vec()), garbage])
    }

    const SECRET_AS_HEADER: &str = "a/K3Y-0N3";

    /// Generates text in which a server or a proxy repeats a secret, in one of the encodings in
    /// which the secret was sent.
    fn echoed_secret() -> impl Strategy<Value = String> {
        let form =
            |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let percent = |text: &str| form(text).replace('+', "%20");
        let pair = format!("{}:{}", percent(ID), percent(SECRET));
        let encodings = vec![
            SECRET.to_owned(),
            form(SECRET),
            percent(SECRET),
            percent(SECRET).to_ascii_lowercase().replace("s3cr3t", "S3CR3T"),
            BASE64_STANDARD.encode(pair),
            QUERY.to_owned(),
            "K3Y-0N3".to_owned(),
            "K3Y/TW0 x".to_owned(),
            "K3Y%2FTW0+x".to_owned(),
            HEADER.to_owned(),
        ];
        (text(), sample::select(encodings), text())
            .prop_map(|(before, secret, after)| before + &secret + &after)
    }

    fn quoted(text: impl Into<Value>) -> String {
        text.into().to_string()
    }

    fn json() -> impl Strategy<Value = String> {
        let literals = [
            "null",
            "true",
            "false",
            "0",
            "-0.0",
            "-1",
            "1",
            "3600",
            "0.5",
            "1e-300",
            "1e300",
            "1e999",
            "1769864400",
            "9223372036854775807",
            "18446744073709551615",
            "-9223372036854775808",
            "99999999999999999999999",
            "01",
            "\"\\u0000\"",
            "\"\\ud800\"",
            "\"NaN\"",
            "\"-inf\"",
            "\" 3600 \"",
            "\"9e99\"",
            "\"bearer\"",
            "\"dpop\"",
            "\"2026-01-31T12:00:00Z\"",
            "\"9999-12-31T23:59:59.999999999Z\"",
            "\"-009999-01-02T00:00:00+00:00\"",
            "\"2027-02-29T25:00:00+99:99\"",
            "\"2099-01-31T12:00:00+01:00[Europe/Paris]\"",
        ];
        let leaf = prop_oneof![
            3 => sample::select(literals.to_vec()).prop_map(str::to_owned),
            1 => any::<f64>().prop_map(quoted),
            1 => text().prop_map(quoted),
            2 => echoed_secret().prop_map(quoted),
            1 => sample::select(vec![1_usize, 126, 127, 128, 5_000])
                .prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..3).prop_map(|values| format!("[{}]", values.join(","))),
                (text(), inner).prop_map(|(name, value)| format!("{{{}:{value}}}", quoted(name))),
            ]
        })
    }

    /// Generates a member that is valid in most cases, so that the other members are parsed as
    /// well.
    fn member(name: &'static str, valid: &'static str) -> impl Strategy<Value = Option<String>> {
        let echo = echoed_secret().prop_map(quoted);
        let value = prop_oneof![12 => Just(valid.to_owned()), 2 => json(), 1 => echo];
        option::weighted(0.9, value.prop_map(move |value| format!("\"{name}\":{value}")))
    }

    fn rare_member(name: &'static str) -> impl Strategy<Value = Option<String>> {
        option::weighted(
            0.15,
            prop_oneof![json(), echoed_secret().prop_map(quoted)]
                .prop_map(move |value| format!("\"{name}\":{value}")),
        )
    }

    fn object(members: Vec<Option<String>>) -> String {
        format!("{{{}}}", members.into_iter().flatten().collect::<Vec<_>>().join(","))
    }

    fn mutated_token_response() -> impl Strategy<Value = Bytes> {
        let enveloped = (
            member("accessToken", "\"T0KEN\""),
            member("accessTokenExpiresAt", "\"2099-01-31T12:00:00.000Z\""),
            member("scope", "true"),
        )
            .prop_map(|(token, at, scope)| {
                Some(format!("\"data\":{}", object(vec![token, at, scope])))
            });
        let members = (
            member("access_token", "\"T0KEN\""),
            member("token_type", "\"Bearer\""),
            member("expires_in", "3600"),
            member("scope", "\"a b\""),
            member("success", "true"),
            enveloped,
            rare_member("error"),
            rare_member("error_description"),
            rare_member("error_uri"),
            (rare_member("message"), rare_member("access_token")),
        );
        let object = members.prop_flat_map(|(a, b, c, d, e, f, g, h, i, (j, k))| {
            Just(vec![a, b, c, d, e, f, g, h, i, j, k]).prop_shuffle().prop_map(object)
        });
        let whole = object.prop_map(String::into_bytes).boxed();
        let cut = (whole.clone(), any::<sample::Index>(), any::<u8>()).prop_map(
            |(mut body, at, byte)| {
                let at = at.index(body.len());
                body.truncate(at);
                body.push(byte);
                body
            },
        );
        prop_oneof![9 => whole, 1 => cut].prop_map(Bytes::from)
    }

    fn format() -> impl Strategy<Value = ResponseFormat> {
        let enveloped = || {
            let format = ResponseFormat::default()
                .access_token("/data/accessToken")?
                .scope("/data/scope")?;
            format
                .expires_at("/data/accessTokenExpiresAt")?
                .success("/success")?
                .error_description("/message")
        };
        prop_oneof![Just(ResponseFormat::default()), Just(enveloped().unwrap())]
    }

    fn any_format() -> impl Strategy<Value = ResponseFormat> {
        prop_oneof![3 => format(), 1 => Just(ResponseFormat::form()), 1 => Just(ResponseFormat::text())]
    }

    fn client() -> impl Strategy<Value = Client> {
        prop_oneof![Just(Client::Basic), Just(Client::PostForm), Just(Client::PostJson)]
    }

    fn endpoint(client: Client, format: ResponseFormat, answer: ServerResponse) -> TokenEndpoint {
        let transport = tower::service_fn(move |_: Request<Body>| {
            let mut response = Response::new(Body::from(answer.body.clone()));
            *response.status_mut() = answer.status.try_into().unwrap();
            for (name, value) in &answer.headers {
                response.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
            }
            async { Ok::<_, Infallible>(response) }
        });
        let (auth, body) = match client {
            Client::Basic => (ClientAuth::client_secret_basic(ID, SECRET), RequestFormat::Form),
            Client::PostForm => (ClientAuth::client_secret_post(ID, SECRET), RequestFormat::Form),
            Client::PostJson => (ClientAuth::client_secret_post(ID, SECRET), RequestFormat::Json),
        };
        let url = format!("https://as.test/token?{QUERY}");
        let endpoint = TokenEndpoint::with_transport(url, auth, transport).unwrap();
        endpoint.header("x-api-key", HEADER).unwrap().request_format(body).response_format(format)
    }

    /// Returns all text that a program can log about a result.
    fn printed(result: &Result<CachedToken, TokenError>) -> String {
        let error = match result {
            Ok(token) => {
                return format!("{token:?} {token:#?} {:?} {:?}", **token, token.header_value());
            }
            Err(error) => error,
        };
        let mut text = format!(
            "{error} {error:?} {error:#?} {:?} {:?} {:?}",
            error.error_code(),
            error.error_description(),
            error.error_uri()
        );
        let mut source = error.source();
        while let Some(cause) = source {
            write!(text, "{cause} {cause:?} {cause:#?}").unwrap();
            source = cause.source();
        }
        text
    }

    /// Checks that the printed result contains none of the secrets, that a token is a valid header
    /// value, and that an error message is readable.
    fn check(result: &Result<CachedToken, TokenError>, secrets: &[&str]) {
        let printed = printed(result);
        for secret in secrets {
            assert!(!printed.contains(secret), "{secret} in {printed}");
        }
        match result {
            Ok(token) => {
                let value = token.header_value();
                assert!(value.is_sensitive());
                let token =
                    value.to_str().expect("a valid header value").strip_prefix("Bearer ").unwrap();
                assert!(!token.is_empty() && token.trim() == token, "{token:?}");
                assert!(token.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{token:?}");
            }
            Err(error) => {
                let message = error.to_string();
                assert_ne!(error.kind(), TokenErrorKind::Timeout, "{message}");
                assert_ne!(error.kind(), TokenErrorKind::Panicked, "{message}");
                assert!(!message.contains(char::is_control), "{message:?}");
                assert!(message.len() < 8_192, "{message}");
                assert!(
                    message.contains("https://as.test/token") || error.endpoint().is_none(),
                    "{message}"
                );
            }
        }
    }

    /// Checks the results of random responses with such bodies. Returns the numbers of tokens, of
    /// `Rejected` errors and of other errors.
    fn check_responses(
        cases: u32,
        format: impl Strategy<Value = ResponseFormat>,
        body: impl Strategy<Value = Bytes>,
        secrets: &[&str],
    ) -> (u32, u32, u32) {
        let runtime = paused_runtime();
        let _guard = runtime.enter();
        let [granted, rejected, others] = [const { Cell::new(0) }; 3];
        for_all(cases, (client(), format, server_response(body)), |(client, format, answer)| {
            // Only HTTP Basic sends the pair in Base64. The other clients do not know that text.
            let has_base64 = String::from_utf8_lossy(&answer.body).contains("bXklM0FjbGll");
            if has_base64 && !matches!(client, Client::Basic) {
                return;
            }
            let cache = TokenCache::new(ClientCredentials::new(endpoint(client, format, answer)));
            let result = runtime.block_on(cache.token());
            check(&result, secrets);
            let count = match result.map_err(|error| error.kind()) {
                Ok(_) => &granted,
                Err(TokenErrorKind::Rejected) => &rejected,
                Err(_) => &others,
            };
            count.set(count.get() + 1);
        });
        (granted.get(), rejected.get(), others.get())
    }

    fn random_bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..200).prop_map(Bytes::from)
    }

    #[test]
    fn random_bytes_are_an_error() {
        let (granted, ..) = check_responses(500, format(), random_bytes(), &SECRET_PARTS);
        check_responses(500, any_format(), random_bytes(), &SECRET_PARTS);
        assert_eq!(granted, 0);
    }

    #[test]
    fn mutated_token_response_is_a_valid_token_or_an_error() {
        let (granted, rejected, others) =
            check_responses(2_000, format(), mutated_token_response(), &SECRET_PARTS);
        println!("{granted} granted, {rejected} rejected, {others} other errors");
        assert!(granted > 50 && rejected > 50 && others > 50, "each kind of result must occur");
    }

    /// Generates a response with bytes around it and in it that are not text, not JSON, or a byte
    /// order mark.
    fn disturbed_response() -> impl Strategy<Value = Bytes> {
        let odd = sample::select(vec![
            &b"\xef\xbb\xbf"[..],
            b"\xff",
            b"\xfc",
            b"\x80",
            b"\0",
            b"\x1f\x8b",
            b"\xfe\xff",
            b" ",
            b"\n",
            b"\"",
            b"}",
            b"{",
            b"=",
            b"&",
            b"<",
            b"1e999",
            b"\xed\xa0\x80",
        ]);
        let places = vec((any::<sample::Index>(), odd), 1..4);
        (mutated_token_response(), places).prop_map(|(body, places)| {
            let mut body = body.to_vec();
            for (at, odd) in places {
                let at = at.index(body.len() + 1);
                body.splice(at..at, odd.iter().copied());
            }
            body.into()
        })
    }

    #[test]
    fn any_bytes_in_a_response_are_a_token_or_an_error() {
        let (granted, rejected, others) =
            check_responses(2_000, any_format(), disturbed_response(), &WHOLE_SECRETS);
        println!("{granted} granted, {rejected} rejected, {others} other errors");
        assert!(granted > 20 && others > 50, "both kinds of result must occur");
    }

    #[test]
    fn any_long_text_of_the_server_is_cut() {
        let long = "long text ü ".repeat(20_000);
        let texts = ["error", "error_description", "error_uri", "message", "msg", "detail"];
        let runtime = paused_runtime();
        let _guard = runtime.enter();
        for_all(
            100,
            (sample::subsequence(texts.to_vec(), 0..=6), 200_u16..=599),
            |(names, status)| {
                let members =
                    names.iter().map(|name| Some(format!("\"{name}\":{}", quoted(&*long))));
                let body = object(members.collect()).into();
                let answer = ServerResponse { status, headers: vec![], body };
                let endpoint = endpoint(Client::Basic, ResponseFormat::default(), answer);
                let result =
                    runtime.block_on(TokenCache::new(ClientCredentials::new(endpoint)).token());
                check(&result, &SECRET_PARTS);
                assert!(result.is_err());
            },
        );
    }

    #[test]
    fn any_value_of_a_lifetime_member_keeps_the_token() {
        let runtime = paused_runtime();
        let _guard = runtime.enter();
        let value = || {
            let is_json = |value: &String| {
                let value = value.replace("1e999", "1");
                serde_json::from_str::<Value>(&format!("[{value}]")).is_ok()
            };
            option::of(json().prop_filter("is not JSON", is_json))
        };
        let format = ResponseFormat::default().expires_at("/expires_at").unwrap();
        for_all(2_000, (value(), value(), client()), |(expires_in, expires_at, client)| {
            let member = |name, value: Option<String>| Some(format!("\"{name}\":{}", value?));
            let token = Some("\"access_token\":\"T0KEN\"".to_owned());
            let members =
                [token, member("expires_in", expires_in), member("expires_at", expires_at)];
            let body = object(members.into()).into();
            let answer = ServerResponse { status: 200, headers: vec![], body };
            let cache =
                TokenCache::new(ClientCredentials::new(endpoint(client, format.clone(), answer)));
            let result = runtime.block_on(cache.token());
            check(&result, &SECRET_PARTS);
            assert_eq!(result.unwrap().expose_secret(), "T0KEN");
        });
    }

    #[test]
    fn secret_echoed_with_other_white_space_is_redacted() {
        let runtime = paused_runtime();
        let space = sample::select(vec!['\t', '\n', '\u{85}', '\u{a0}', '\u{2028}']);
        for_all(50, (client(), space), |(client, space)| {
            let text = SECRET.replace(' ', &space.to_string());
            let body = serde_json::json!({"error": "invalid_client", "error_description": text})
                .to_string();
            let answer = ServerResponse { status: 400, headers: vec![], body: body.into() };
            let endpoint = endpoint(client, ResponseFormat::default(), answer);
            let result =
                runtime.block_on(TokenCache::new(ClientCredentials::new(endpoint)).token());
            check(&result, &[SECRET]);
        });
    }

    #[test]
    fn secret_within_another_secret_is_redacted() {
        let runtime = paused_runtime();
        let echo =
            sample::select(vec!["K3Y-0N3", "key=K3Y-0N3-TW0", "K3Y-0N3-TW0", "aWQ6SzNZLTBOMw=="]);
        for_all(50, echo, |echo| {
            let body = serde_json::json!({"error": "invalid_client", "error_description": echo})
                .to_string();
            let transport = tower::service_fn(move |_: Request<Body>| {
                let response =
                    Response::builder().status(401).body(Body::from(body.clone())).unwrap();
                async { Ok::<_, Infallible>(response) }
            });
            let auth = ClientAuth::client_secret_basic("id", "K3Y-0N3");
            let url = "https://as.test/token?key=K3Y-0N3-TW0";
            let endpoint = TokenEndpoint::with_transport(url, auth, transport).unwrap();
            let result =
                runtime.block_on(TokenCache::new(ClientCredentials::new(endpoint)).token());
            check(&result, &["K3Y-0N3", "TW0", "aWQ6SzNZ", "BOMw"]);
        });
    }
}

mod requests {
    use super::*;

    /// A token request as the token endpoint receives it.
    struct Sent {
        headers: HeaderMap,
        body: Bytes,
    }

    type Pairs = Vec<(String, String)>;

    impl Sent {
        /// Returns the parameters, sorted. A repeated parameter occurs once for each value.
        fn parameters(&self, format: RequestFormat) -> Pairs {
            let mut pairs: Pairs = match format {
                RequestFormat::Json => {
                    let Value::Object(object) = serde_json::from_slice(&self.body).unwrap() else {
                        panic!("not an object")
                    };
                    object.into_iter().flat_map(|(name, value)| strings(name, value)).collect()
                }
                _ => form_urlencoded::parse(&self.body).into_owned().collect(),
            };
            pairs.sort();
            pairs
        }

        fn basic(&self) -> Option<String> {
            let value = self.headers.get(AUTHORIZATION)?;
            assert!(value.is_sensitive());
            let value =
                value.to_str().unwrap().strip_prefix("Basic ").expect("the scheme is Basic");
            Some(String::from_utf8(BASE64_STANDARD.decode(value).unwrap()).unwrap())
        }
    }

    fn strings(name: String, value: Value) -> Pairs {
        match value {
            Value::String(text) => vec![(name, text)],
            Value::Array(values) => {
                assert!(values.len() > 1, "a single value must not be an array");
                values.into_iter().flat_map(|value| strings(name.clone(), value)).collect()
            }
            other => panic!("{name} is {other}"),
        }
    }

    fn request_format() -> impl Strategy<Value = RequestFormat> {
        prop_oneof![Just(RequestFormat::Form), Just(RequestFormat::Json)]
    }

    /// Requests a token with these settings, and returns the request.
    fn sent(
        runtime: &Runtime,
        auth: ClientAuth,
        format: RequestFormat,
        settings: impl FnOnce(ClientCredentials) -> ClientCredentials,
    ) -> Sent {
        let request = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&request);
        let transport = tower::service_fn(move |request: Request<Body>| {
            assert!(lock(&seen).replace(request).is_none(), "exactly one request is sent");
            async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(
                    r#"{"access_token":"T0KEN"}"#,
                )))
            }
        });
        let endpoint =
            TokenEndpoint::with_transport("https://as.test/token", auth, transport).unwrap();
        let grant = settings(ClientCredentials::new(endpoint.request_format(format)));
        runtime.block_on(TokenCache::new(grant).token()).unwrap();
        let (head, body) = lock(&request).take().unwrap().into_parts();
        let body = runtime.block_on(body.collect()).unwrap().to_bytes();
        Sent { headers: head.headers, body }
    }

    /// Decodes the form encoding of RFC 6749 appendix B. Panics if a character should have been
    /// encoded, or if a space is encoded as `+`, which not all servers decode.
    fn decode_strictly(text: &str) -> String {
        let bytes = text.as_bytes();
        let mut decoded = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'%' => {
                    let digits = &text[at + 1..at + 3];
                    assert!(digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{text:?}");
                    decoded.push(u8::from_str_radix(digits, 16).unwrap());
                    at += 3;
                }
                byte => {
                    assert!(byte.is_ascii_alphanumeric() || b"*-._".contains(&byte), "{text:?}");
                    decoded.push(byte);
                    at += 1;
                }
            }
        }
        String::from_utf8(decoded).unwrap()
    }

    /// Returns the parameters that are sent: those with a value (RFC 6749 §3.2).
    fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Pairs {
        let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        let mut pairs: Pairs =
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        pairs.sort();
        pairs
    }

    /// A client id or a secret: a text without control characters, which are refused.
    fn credential() -> impl Strategy<Value = String> {
        text().prop_map(|text| text.replace(char::is_control, ""))
    }

    const GRANT: (&str, &str) = ("grant_type", "client_credentials");

    #[test]
    fn basic_auth_carries_every_id_and_secret() {
        let runtime = paused_runtime();
        for_all(300, (credential(), credential(), request_format()), |(id, secret, format)| {
            let sent = sent(
                &runtime,
                ClientAuth::client_secret_basic(&id, secret.as_str()),
                format,
                |grant| grant,
            );
            let pair = sent.basic().unwrap();
            let (sent_id, sent_secret) = pair.split_once(':').unwrap();
            assert_eq!((decode_strictly(sent_id), decode_strictly(sent_secret)), (id, secret));
            assert_eq!(sent.parameters(format), pairs([GRANT]));
        });
    }

    #[test]
    fn raw_basic_auth_carries_every_id_and_secret_unencoded() {
        let runtime = paused_runtime();
        for_all(200, (credential(), credential()), |(id, secret)| {
            let auth = ClientAuth::client_secret_basic_raw(&id, secret.as_str());
            let sent = sent(&runtime, auth, RequestFormat::Form, |grant| grant);
            assert_eq!(sent.basic().unwrap(), format!("{id}:{secret}"));
            assert_eq!(sent.parameters(RequestFormat::Form), pairs([GRANT]));
        });
    }

    #[test]
    fn post_auth_carries_every_id_and_secret() {
        let runtime = paused_runtime();
        for_all(300, (credential(), credential(), request_format()), |(id, secret, format)| {
            let sent = sent(
                &runtime,
                ClientAuth::client_secret_post(&id, secret.as_str()),
                format,
                |grant| grant,
            );
            assert_eq!(sent.basic(), None);
            let expected = [GRANT, ("client_id", &id), ("client_secret", &secret)];
            assert_eq!(sent.parameters(format), pairs(expected));
        });
    }

    #[test]
    fn client_without_secret_sends_every_id() {
        let runtime = paused_runtime();
        for_all(100, (credential(), request_format()), |(id, format)| {
            let sent = sent(&runtime, ClientAuth::none(&id), format, |grant| grant);
            assert_eq!(sent.basic(), None);
            assert_eq!(sent.parameters(format), pairs([GRANT, ("client_id", &id)]));
        });
    }

    #[test]
    fn every_request_parameter_is_sent_unchanged() {
        let runtime = paused_runtime();
        let own = (option::of(text()), option::of(text()), vec(text(), 0..4));
        let others = proptest::collection::btree_map(text(), text(), 0..3);
        for_all(
            300,
            (own, others, request_format()),
            |((scope, audience, resources), others, format)| {
                let auth = ClientAuth::client_secret_basic("id", "secret");
                let sent = sent(&runtime, auth, format, |mut grant| {
                    if let Some(scope) = &scope {
                        grant = grant.scope(scope);
                    }
                    if let Some(audience) = &audience {
                        grant = grant.audience(audience);
                    }
                    grant = resources.iter().fold(grant, ClientCredentials::resource);
                    others
                        .iter()
                        .fold(grant, |grant, (name, value)| grant.parameter(name, value).unwrap())
                });
                let scope = scope.map(|scope| {
                    // Values are separated by one space.
                    scope.split_whitespace().collect::<Vec<_>>().join(" ")
                });
                let own = [("scope", &scope), ("audience", &audience)];
                let own =
                    own.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
                let resources = resources.iter().map(|resource| ("resource", resource.as_str()));
                let others = others.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let expected = pairs([GRANT].into_iter().chain(own).chain(resources).chain(others));
                assert_eq!(sent.parameters(format), expected);
            },
        );
    }
}

mod origins {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    struct Server {
        scheme: &'static str,
        host: &'static str,
        port: Option<&'static str>,
    }

    impl Server {
        fn port(self) -> Option<u16> {
            match self.port {
                None if self.scheme.eq_ignore_ascii_case("https") => Some(443),
                None if self.scheme.eq_ignore_ascii_case("http") => Some(80),
                None => None,
                // An empty port, port 0 and a port with a sign match no origin.
                Some(port) => {
                    port.parse().ok().filter(|number| *number != 0 && !port.contains('+'))
                }
            }
        }

        fn has_same_origin(self, other: Self) -> bool {
            self.scheme.eq_ignore_ascii_case(other.scheme)
                && self.host.eq_ignore_ascii_case(other.host)
                && self.port().is_some_and(|port| other.port() == Some(port))
        }

        fn url(self, user: &str, rest: &str) -> String {
            let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{user}{}{port}{rest}", self.scheme, self.host)
        }
    }

    const HOSTS: [&str; 10] = [
        "api.test",
        "API.Test",
        "api.test.",
        "xapi.test",
        "api.test.evil.test",
        "xn--bcher-kva.test",
        "127.0.0.1",
        "[::1]",
        "[2001:DB8::A]",
        "[2001:db8::a]",
    ];

    fn server(
        schemes: &[&'static str],
        ports: &[&'static str],
    ) -> impl Strategy<Value = Server> + use<> {
        // The first host is chosen in most cases, so that matches are frequent.
        let host = prop_oneof![Just(HOSTS[0]), sample::select(&HOSTS[..])];
        let server =
            (sample::select(schemes.to_vec()), host, option::of(sample::select(ports.to_vec())));
        server.prop_map(|(scheme, host, port)| Server { scheme, host, port })
    }

    /// Sends a request and returns true if it has the token.
    fn receives_token(runtime: &Runtime, origins: Origins, uri: Uri) -> bool {
        receives_token_with(runtime, origins, uri, &[])
    }

    /// Sends a request with these `Host` headers and returns true if it has the token.
    fn receives_token_with(
        runtime: &Runtime,
        origins: Origins,
        uri: Uri,
        hosts: &[HeaderValue],
    ) -> bool {
        let seen = Arc::new(Mutex::new(None));
        let api = {
            let seen = Arc::clone(&seen);
            tower::service_fn(move |request: Request<Body>| {
                let value = request.headers().get(AUTHORIZATION);
                assert!(value.is_none_or(|value| value == "Bearer T0KEN"));
                *lock(&seen) = Some(value.is_some());
                async { Ok::<_, Infallible>(Response::new(Body::default())) }
            })
        };
        let tokens = TokenCache::new(source_fn(|_| async { AccessToken::bearer("T0KEN") }));
        let mut request = Request::new(Body::default());
        *request.uri_mut() = uri;
        request.headers_mut().extend(hosts.iter().map(|host| (HOST, host.clone())));
        runtime.block_on(OAuthLayer::new(tokens, origins).layer(api).oneshot(request)).unwrap();
        lock(&seen).take().expect("each request reaches the inner service")
    }

    #[test]
    fn path_of_another_host_gets_no_token() {
        let runtime = paused_runtime();
        let pieces = sample::select(vec!["/", "\\", "evil.test", "%09", "%0a", "?", "x", "."]);
        let [attached, skipped] = [const { Cell::new(0) }; 2];
        for_all(1_000, vec(pieces, 0..6), |pieces| {
            let text = format!("/{}", pieces.concat());
            let Ok(uri) = text.parse::<Uri>() else { return };
            // Browsers read a backslash as a slash.
            let path = text.replace('\\', "/");
            let expected = !path.starts_with("//");
            let origins = Origins::new(["https://api.test"]).unwrap();
            assert!(!receives_token(&runtime, origins.clone(), uri.clone()), "{text}");
            let origins = origins.and_without_authority();
            assert_eq!(receives_token(&runtime, origins, uri), expected, "{text}");
            let count = if expected { &attached } else { &skipped };
            count.set(count.get() + 1);
        });
        assert!(attached.get() > 50 && skipped.get() > 50);
    }

    #[test]
    fn host_header_of_another_server_prevents_the_token() {
        let runtime = paused_runtime();
        let pieces = sample::select(vec![
            "api.test",
            "API.Test",
            "evil.test",
            ":443",
            ":0443",
            ":8443",
            ":",
            " ",
            "\t",
            ",",
            "@",
            "/",
            "\\",
            "#",
            "?",
            ".",
            "\u{e9}",
            "[::1]",
            "%61",
        ]);
        let host = prop_oneof![
            1 => sample::select(vec!["api.test", "API.TEST", "api.test:443"])
                .prop_map(str::to_owned),
            2 => vec(pieces, 0..4).prop_map(|pieces| pieces.concat()),
        ];
        let [attached, skipped] = [const { Cell::new(0) }; 2];
        for_all(2_000, vec(host, 1..3), |hosts| {
            let values: Vec<_> = hosts
                .iter()
                .filter_map(|host| HeaderValue::from_bytes(host.as_bytes()).ok())
                .collect();
            let names_the_api = |host: &String| {
                let host = host.to_ascii_lowercase();
                matches!(host.as_str(), "api.test" | "api.test:" | "api.test:443" | "api.test:0443")
            };
            let expected = hosts.len() == 1 && values.len() == 1 && names_the_api(&hosts[0]);
            let origins = Origins::new(["https://api.test"]).unwrap();
            let uri = Uri::from_static("https://api.test/v1");
            let received = receives_token_with(&runtime, origins, uri, &values);
            assert!(expected || !received || values.len() < hosts.len(), "{hosts:?}");
            assert!(!expected || received || hosts[0].ends_with([':', '3']), "{hosts:?}");
            let count = if received { &attached } else { &skipped };
            count.set(count.get() + 1);
        });
        assert!(attached.get() > 50 && skipped.get() > 50);
    }

    #[test]
    fn token_goes_only_to_the_configured_origins() {
        let runtime = paused_runtime();
        let origins = vec(server(&["http", "https"], &["80", "443", "8443", "65535"]), 1..3);
        let targets = server(
            &["http", "https", "HTTPS", "wss", "ftp"],
            &["80", "443", "8443", "0443", "65535", "65536", "0", "", "4294967739", "+443"],
        );
        let user_infos = [
            "",
            "",
            "",
            "me@",
            "me:pw@",
            "api.test@",
            "api.test:443@",
            ":@",
            "a%40b@",
            "a@b@",
            "[::1]@",
        ];
        let rests =
            ["", "/", "/v1?x#y", "?q", "/https://api.test/", "?@api.test", "/@api.test:443"];
        let [attached, skipped] = [const { Cell::new(0) }; 2];
        let inputs =
            (origins, targets, sample::select(user_infos.to_vec()), sample::select(rests.to_vec()));
        for_all(2_000, inputs, |(configured, target, user, rest)| {
            // An invalid URI cannot be requested.
            let Ok(uri) = target.url(user, rest).parse::<Uri>() else { return };
            let origins = Origins::new(configured.iter().map(|server| server.url("", ""))).unwrap();
            let expected = configured.iter().any(|server| server.has_same_origin(target));
            assert_eq!(receives_token(&runtime, origins, uri), expected);
            let count = if expected { &attached } else { &skipped };
            count.set(count.get() + 1);
        });
        println!("{attached:?} attached, {skipped:?} skipped");
        assert!(attached.get() > 50 && skipped.get() > 50);
    }
}

mod challenges {
    use super::*;

    const VETOES: [&str; 2] = ["insufficient_scope", "insufficient_user_authentication"];

    /// Sends a request to an API that rejects its first token with 401 and these challenges. Returns
    /// true if the caller gets a success.
    fn recovers(runtime: &Runtime, lines: &[HeaderValue]) -> bool {
        let tokens = TokenCache::new(source_fn(|context: FetchContext| async move {
            AccessToken::bearer(if context.rejected_generation().is_some() { "NEW" } else { "OLD" })
        }));
        let lines = lines.to_vec();
        let api = tower::service_fn(move |request: Request<Body>| {
            let mut response = Response::new(Body::default());
            if request.headers()[AUTHORIZATION] == "Bearer OLD" {
                *response.status_mut() = http::StatusCode::UNAUTHORIZED;
                let challenges = lines.iter().map(|line| (WWW_AUTHENTICATE, line.clone()));
                response.headers_mut().extend(challenges);
            }
            async { Ok::<_, Infallible>(response) }
        });
        let request = Request::get("https://api.test/").body(Body::default()).unwrap();
        let client = OAuthLayer::new(tokens, Origins::new(["https://api.test"]).unwrap());
        runtime.block_on(client.layer(api).oneshot(request)).unwrap().status().is_success()
    }

    #[test]
    fn only_the_two_errors_prevent_recovery() {
        let runtime = paused_runtime();
        let piece = sample::select(
            b"Bearer error=\"insufficient_scope\"|Bearer |Basic |error|=|\"|,|, | |\\|insufficient_scope|\xFC|\t|realm=\"x\"|\
              insufficient_user_authentication|bearer error=|invalid_token"
                .split(|byte| *byte == b'|')
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>(),
        );
        let piece = prop_oneof![4 => piece, 1 => vec(any::<u8>(), 1..3)];
        let line = vec(piece, 0..12).prop_map(|pieces| HeaderValue::from_bytes(&pieces.concat()));
        let lines = vec(line, 0..4).prop_map(|lines| lines.into_iter().flatten().collect());
        let refused = Cell::new(0);
        for_all(3_000, lines, |lines: Vec<HeaderValue>| {
            if !recovers(&runtime, &lines) {
                refused.set(refused.get() + 1);
                let has_veto = |line: &HeaderValue| {
                    let text = String::from_utf8_lossy(line.as_bytes()).replace('\\', "");
                    text.to_ascii_lowercase().contains("error")
                        && VETOES.iter().any(|veto| text.contains(veto))
                };
                assert!(lines.iter().any(has_veto), "{lines:?}");
            }
        });
        assert!(refused.get() > 5, "{refused:?}");
    }

    #[test]
    fn veto_counts_in_a_bearer_challenge_only() {
        let runtime = paused_runtime();
        let schemes =
            sample::select(vec!["Bearer", "bearer", "Basic", "OAuth", "JWT", "Negotiate"]);
        let errors = sample::select(vec![None, Some("invalid_token"), Some(VETOES[0])]);
        let errors = prop_oneof![3 => errors, 1 => Just(Some(VETOES[1]))];
        let challenge = (schemes, option::of(Just("realm=\"a, Bearer error=x\"")), errors);
        let lines = vec(vec(challenge, 1..3), 0..4);
        for_all(1_000, lines, |lines| {
            let vetoes = lines.iter().flatten().any(|(scheme, _, error)| {
                scheme.eq_ignore_ascii_case("bearer") && error.is_some_and(|e| VETOES.contains(&e))
            });
            let text = |(scheme, realm, error): &(&str, Option<&str>, Option<&str>)| {
                let error = error.map(|error| format!("error=\"{error}\""));
                let parameters: Vec<_> =
                    realm.iter().map(ToString::to_string).chain(error).collect();
                format!("{scheme} {}", parameters.join(", ")).trim_end().to_owned()
            };
            let line = |challenges: &Vec<_>| {
                let challenges: Vec<_> = challenges.iter().map(text).collect();
                HeaderValue::try_from(challenges.join(", ")).unwrap()
            };
            let lines: Vec<_> = lines.iter().map(line).collect();
            assert_eq!(recovers(&runtime, &lines), !vetoes, "{lines:?}");
        });
    }
}
