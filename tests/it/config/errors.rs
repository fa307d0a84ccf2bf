//! Errors of a configuration name the key, in each format.

use std::collections::HashMap;

use serde_json::Value;
use tower_oauth::config::ProviderConfig;

use super::{answering, grant, read};

/// Returns the configuration of a static token, with `extra` in front of it.
fn provider(extra: &str) -> String {
    format!("{extra}\nsource = {{ type = 'static_bearer', token = 't' }}")
}

/// Returns the errors about a provider in TOML, JSON and YAML, in a table of providers as programs
/// have it.
fn errors(toml: &str) -> [String; 3] {
    type Providers = HashMap<String, ProviderConfig>;
    let toml = toml.replace("[source", "[search.source");
    let toml = format!("[search]\n{toml}");
    let value: toml::Table = toml.parse().unwrap();
    let json = serde_json::to_string_pretty(&value).unwrap();
    let error = toml::from_str::<Providers>(&toml).unwrap_err();
    assert!(error.to_string().contains(" line "), "{error}");
    let in_json = serde_json::from_str::<Providers>(&json).unwrap_err().to_string();
    assert!(in_json.contains(" line "), "{in_json}");
    // JSON is YAML as well.
    let in_yaml = serde_saphyr::from_str::<Providers>(&json).unwrap_err().to_string();
    assert!(in_yaml.contains("line "), "{in_yaml}");
    let of_value: Value = serde_json::from_str(&json).unwrap();
    let of_value = serde_json::from_value::<Providers>(of_value).unwrap_err().to_string();
    assert!(in_json.starts_with(&of_value), "{in_json} is not {of_value}");
    [error.message().to_owned(), in_json, in_yaml]
}

#[test]
fn value_of_the_wrong_type_is_an_error_with_its_key() {
    let duration = "must be a duration with a unit, such as \"30s\"";
    let secret = "must be a string in quotes, { file = \"…\" } or { env = \"…\" }";
    let with_secret = |secret| grant("").replace("\"S3CRET\"", secret);
    let limit = |limit| provider(&format!("token_request_limit = {limit}"));
    for (config, key, problem) in [
        (provider("refresh_timeout = 30"), "refresh_timeout", duration),
        (provider("refresh_timeout = '30'"), "refresh_timeout", duration),
        (provider("refresh_timeout = '0s'"), "refresh_timeout", "must be longer than zero"),
        (provider("name = 1"), "name", "must be a string in quotes"),
        (provider("origins = 'https://a.test'"), "origins", "must be a list in square brackets"),
        (provider("origins = [1]"), "origins", "must be a string in quotes"),
        (provider("without_authority = 'yes'"), "without_authority", "must be true or false"),
        (provider("rejection_statuses = [1]"), "rejection_statuses", "must be a list of HTTP"),
        (provider("replay_cap = -1"), "replay_cap", "must be a whole number"),
        (limit("3"), "token_request_limit", "must be a table"),
        (limit("{ max = 0, period = '1d' }"), "token_request_limit.max", "must be a nonzero u32"),
        (limit("{ max = 1, period = 1 }"), "token_request_limit.period", duration),
        (limit("{ max = 1 }"), "token_request_limit.period", "is missing"),
        ("source = 'static_bearer'".into(), "source", "must be a table"),
        ("source = { type = 1 }".into(), "source.type", "must be a string in quotes"),
        ("source = { type = 'password' }".into(), "source.type", "one of `client_credentials`,"),
        ("source = { type = 'password' }".into(), "source.type", ", not \"password\""),
        (grant("timeout = 30"), "source.timeout", duration),
        (grant("timeout = '0s'"), "source.timeout", "must be longer than zero"),
        (grant("timeout = '-30s'"), "source.timeout", duration),
        (grant("timeout = '1 month'"), "source.timeout", duration),
        (grant("max_token_bytes = 0"), "source.max_token_bytes", "must be a nonzero usize"),
        (grant("resource = 'urn:1'"), "source.resource", "must be a list in square brackets"),
        (grant("request_format = 'xml'"), "source.request_format", "one of `form`, `json`, not"),
        (grant("headers = { x-key = 1 }"), "source.headers.x-key", "{ env = \"…\" }"),
        (grant("response_format = { scope = 1 }"), "source.response_format.scope", "string in"),
        (with_secret("1"), "source.client_auth.client_secret", secret),
        (with_secret("['S3CRET']"), "source.client_auth.client_secret", secret),
        (with_secret("{ file = '/x', env = 'X' }"), "source.client_auth.client_secret", secret),
        (with_secret("{ file = 1 }"), "source.client_auth.client_secret.file", "string in quotes"),
        (with_secret("{ value = 'S3CRET' }"), "source.client_auth.client_secret", "`file`, `env`"),
    ] {
        for error in errors(&config) {
            assert!(error.contains(&format!("the setting `{key}`")), "{key}: {error}");
            assert!(error.contains(problem), "{problem}: {error}");
            assert!(!error.lines().next().unwrap().contains("S3CRET"), "{error}");
        }
    }
    for duration in ["30s", "1h 30m", "24h", "500ms", "PT20S", "2 days"] {
        assert!(read(&grant(&format!("timeout = '{duration}'"))).is_ok(), "{duration}");
    }
}

#[test]
fn unknown_key_is_named_with_the_known_ones() {
    for (config, key, known) in [
        (grant("scpoe = 'x'"), "source.scpoe", "`scope`"),
        (
            grant("response_format = { acces_token = '/x' }"),
            "source.response_format.acces_token",
            "`access_token`",
        ),
        (grant("").replace("client_id", "clientid"), "source.client_auth.clientid", "`client_id`"),
        (
            "source = { type = 'static_bearer', token = 't', user = 'u' }".into(),
            "source.user",
            "use `token` (the `type` is `static_bearer`)",
        ),
        ("source = { token = 't' }".into(), "source.token", "(the `type` is `client_credentials`)"),
        (
            "source = { type = 'token_file', path = 't', reread = '1s' }".into(),
            "source.reread",
            "use one of `path`, `reread_after`",
        ),
    ] {
        for error in errors(&config) {
            assert!(error.contains(&format!("the setting `{key}` is unknown")), "{key}: {error}");
            assert!(error.contains(known), "{known}: {error}");
        }
    }
    for error in errors(&provider("orgins = ['https://api.test']")) {
        assert!(error.contains("orgins") && error.contains("origins"), "{error}");
    }
}

#[test]
fn missing_key_is_named_with_its_table() {
    for (config, key) in [
        ("source = { token_url = 'https://as.test' }", "source.client_auth"),
        ("source = { client_auth = { client_id = 'me' } }", "source.client_auth.client_secret"),
        ("source = { type = 'token_file' }", "source.path"),
    ] {
        for error in errors(config) {
            assert!(error.contains(&format!("the setting `{key}` is missing")), "{error}");
        }
    }
    for error in errors("name = 'orders'") {
        assert!(error.contains("missing field `source`"), "{error}");
    }
}

#[test]
fn position_in_the_file_is_that_of_the_key() {
    let toml = "[search]\nname = 'x'\nrefresh_timeout = 30\nsource = { type = 'token_file' }\n";
    let error = toml::from_str::<HashMap<String, ProviderConfig>>(toml).unwrap_err();
    assert_eq!(&toml[error.span().unwrap()], "30", "{error}");
    let json = "{\"name\": \"x\",\n\"refresh_timeout\": 30,\n\"source\": {}}";
    let error = serde_json::from_str::<ProviderConfig>(json).unwrap_err();
    assert_eq!(error.line(), 2, "{error}");
    let yaml = "name: x\nrefresh_timeout: 30\nsource: {}\n";
    let error = serde_saphyr::from_str::<ProviderConfig>(yaml).unwrap_err();
    assert_eq!(error.location().unwrap().line(), 2, "{error}");
}

#[test]
fn configuration_in_yaml_is_read() {
    let yaml = "
        source:
          token_url: https://as.test/token
          client_auth: { client_id: me, client_secret: { file: /run/secrets/me } }
          scope:
          resource: [urn:1]
          timeout: 10s
          max_token_bytes: 4096
        rejection_statuses:
          - 403
        without_authority: true
        ";
    let config: ProviderConfig = serde_saphyr::from_str(yaml).unwrap();
    let shown = format!("{config:?}");
    for part in ["file /run/secrets/me", "scope: None", "10s", "Status(403)"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

/// Some parsers pass on a key that is there twice.
#[test]
fn key_that_is_there_twice_is_an_error() {
    for (table, key) in [
        (r#""parameters": { "a": "1", "b": "2", "a": "3" }"#, "source.parameters.a"),
        (r#""headers": { "x-a": "1", "x-a": "1" }"#, "source.headers.x-a"),
        (r#""scope": "a", "scope": "b""#, "source.scope"),
    ] {
        let auth = r#""client_auth": { "method": "none", "client_id": "me" }"#;
        let json = format!(r#"{{ "source": {{ {auth}, {table} }} }}"#);
        let error = serde_json::from_str::<ProviderConfig>(&json).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}` is there twice: remove one")), "{error}");
    }
}

/// With the feature `arbitrary_precision`, `serde_json` passes numbers as tables.
#[test]
fn number_of_arbitrary_precision_is_read() {
    let json = r#"{
        "rejection_statuses": [{ "$serde_json::private::Number": "403" }],
        "source": { "type": "token_file", "path": "/x" }
    }"#;
    let config = serde_json::from_str::<ProviderConfig>(json).unwrap();
    assert!(format!("{config:?}").contains("[Status(403)]"), "{config:?}");
}

#[test]
fn unusable_value_is_an_error_with_its_key() {
    let without_url =
        |extra: &str| grant(extra).replace("token_url = \"https://as.test/token\"", "");
    let both_times = "refresh_at_age = '1h'\nrefresh_before_expiry = '1h'";
    let back_channel = "issuer = 'https://as.test'\ndiscover_at = 'http://a.test'";
    let bearer = |token| format!("source = {{ type = 'static_bearer', token = {token} }}");
    let basic = |user, password| {
        format!("source = {{ type = 'static_basic', user = {user}, password = {password} }}")
    };
    let with_secret = |secret| grant("").replace("\"S3CRET\"", secret);
    let unset = "{ env = 'TOWER_OAUTH_UNSET' }";
    let is_unset = "names the environment variable TOWER_OAUTH_UNSET, which is not set";
    for (config, key, problem) in [
        (grant("issuer = 'https://as.test'"), "source.issuer", "has both"),
        (without_url(""), "source.token_url", "needs either"),
        (
            grant("").replace("https://as.test", "http://as.test"),
            "source.token_url",
            "set `source.danger_plain_http` to true",
        ),
        (grant("").replace("https://as.test", "as.test"), "source.token_url", "is not a URL"),
        (without_url("issuer = 'ftp://as.test'"), "source.issuer", "https"),
        (
            grant("response_format = { access_token = 'x' }"),
            "source.response_format.access_token",
            "JSON Pointer",
        ),
        (grant(both_times), "source.refresh_before_expiry", "has both"),
        (grant("parameters = { client_secret = 'x' }"), "source.parameters", "client_secret"),
        (grant("headers = { authorization = 'x' }"), "source.headers", "authorization"),
        (grant("ca_file = '/x'"), "source.ca_file", "ready-made transport only"),
        (grant("bundled_roots = true"), "source.bundled_roots", "ready-made transport only"),
        (grant("proxy = 'http://p:S3CRET@p.test'"), "source.proxy", "ready-made transport only"),
        (grant("no_proxy = true"), "source.no_proxy", "ready-made transport only"),
        (grant("discover_at = 'https://as.test'"), "source.discover_at", "needs `source.issuer`"),
        (without_url(back_channel), "source.discover_at", "does not begin with https://"),
        (bearer("\"S3CRET\\n\""), "source.token", "white space"),
        (basic("'a:b'", "'S3CRET'"), "source.user", "colon"),
        (basic("'a'", "\"S3CRET\\n\""), "source.password", "control character"),
        (
            with_secret("\"S3CRET\\n\""),
            "source.client_auth.client_secret",
            "control character in the client secret",
        ),
        (
            grant("").replace("\"me\"", "\"me\\t\""),
            "source.client_auth.client_id",
            "control character in the client id",
        ),
        (with_secret(unset), "source.client_auth.client_secret", is_unset),
        (grant(&format!("parameters = {{ a = {unset} }}")), "source.parameters", is_unset),
        (grant(&format!("headers = {{ a = {unset} }}")), "source.headers", is_unset),
        (grant(&format!("secrets = [{unset}]")), "source.secrets", is_unset),
        (bearer(unset), "source.token", is_unset),
        (basic("'a'", unset), "source.password", is_unset),
    ] {
        let (transport, _) = answering("");
        let config = read(&config).unwrap();
        let error = config.token_cache_with_transport(transport).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&format!("`{key}`")), "{key}: {message}");
        assert!(message.contains(problem), "{problem}: {message}");
        assert!(!format!("{error} {error:?} {config:?}").contains("S3CRET"), "{message}");
        assert!(!message.replace("https://", "").contains("::"), "a Rust name: {message}");
    }
}

#[test]
fn origins_that_cannot_be_used_are_errors() {
    let origins = |extra| read(&provider(extra)).unwrap().origins();
    for (extra, problem) in [
        ("", "has no `origins`: name at least one server that may receive the token, or set `with"),
        ("origins = ['api.test']", "the setting `origins` cannot be used"),
    ] {
        let error = origins(extra).unwrap_err().to_string();
        assert!(error.contains(problem) && !error.contains("::"), "{error}");
    }
    for extra in ["origins = ['https://a.test']", "without_authority = true"] {
        assert!(origins(extra).is_ok(), "{extra}");
    }
}
