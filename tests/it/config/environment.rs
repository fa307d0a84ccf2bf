//! Providers in environment variables, and secrets in environment variables of a file.

use std::{
    env,
    ffi::OsString,
    process::{Command, Stdio},
};

use http_body_util::BodyExt;
use serde_json::Value;
use tower_oauth::{ConfigError, config::ProviderConfig};

use super::{answering, complete_configurations, grant, read};

const GRANT: [(&str, &str); 3] = [
    ("SEARCH_TOKEN_URL", "https://as.test/token"),
    ("SEARCH_CLIENT_ID", "me"),
    ("SEARCH_CLIENT_SECRET", "S3CRET"),
];

fn from_vars<S: Into<String>, T: Into<String>>(
    variables: impl IntoIterator<Item = (S, T)>,
) -> Result<ProviderConfig, ConfigError> {
    let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
    ProviderConfig::from_env_vars("SEARCH", variables)
}

/// Returns the variables for a configuration.
fn variables(value: &Value, name: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        // The names in these tables are not those of keys: they are written as pairs.
        Value::Object(table) if ["SEARCH_HEADERS", "SEARCH_PARAMETERS"].contains(&name) => {
            let pairs = table.iter().map(|(key, value)| format!("{key}={}", text(value)));
            vec![(name.to_owned(), pairs.collect::<Vec<_>>().join(","))]
        }
        Value::Object(table) => table
            .iter()
            .flat_map(|(key, value)| {
                let separator = if name == "SEARCH" { "_" } else { "__" };
                match key.as_str() {
                    "source" | "client_auth" => variables(value, name),
                    key => variables(value, &format!("{name}{separator}{}", key.to_uppercase())),
                }
            })
            .collect(),
        Value::Array(items) => {
            vec![(name.to_owned(), items.iter().map(text).collect::<Vec<_>>().join(" , "))]
        }
        value => vec![(name.to_owned(), text(value))],
    }
}

#[test]
fn variables_are_read_like_the_keys_of_a_file() {
    let mut names = Vec::new();
    for config in complete_configurations() {
        let variables = variables(&config, "SEARCH");
        names.extend(variables.iter().map(|(name, _)| name.clone()));
        let from_variables = from_vars(variables).unwrap();
        let from_file: ProviderConfig = serde_json::from_value(config).unwrap();
        assert_eq!(format!("{from_variables:?}"), format!("{from_file:?}"));
    }
    for name in ["TYPE", "METHOD", "RESPONSE_FORMAT__SCOPE", "CLIENT_SECRET__ENV", "RESOURCE"] {
        assert!(names.contains(&format!("SEARCH_{name}")), "{names:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn parameters_are_a_list_of_pairs() {
    let variables = GRANT.into_iter().chain([
        ("SEARCH_PARAMETERS", "tenant=blue, b=x=y,"),
        ("SEARCH_METHOD", "client_secret_post"),
    ]);
    let (transport, mut requests) = answering(r#"{"access_token":"T0KEN"}"#);
    let cache = from_vars(variables).unwrap().token_cache_with_transport(transport).unwrap();
    cache.token().await.unwrap();
    let body = requests.recv().await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let expected =
        "grant_type=client_credentials&b=x%3Dy&tenant=blue&client_id=me&client_secret=S3CRET";
    assert_eq!(body, expected);
}

#[test]
fn wrong_variable_is_named_without_its_value() {
    for (name, value, problem) in [
        ("SCPOE", "S3CRET", "`SEARCH_SCPOE` is unknown: use one of `SEARCH_ORIGINS`"),
        ("SCPOE", "S3CRET", "`SEARCH_SCOPE`"),
        ("SCPOE", "S3CRET", "`SEARCH_METHOD`"),
        ("SCPOE__X", "S3CRET", "`SEARCH_SCPOE__X` is unknown"),
        ("SOURCE", "S3CRET", "`SEARCH_SOURCE` is unknown"),
        ("scope", "S3CRET", "`SEARCH_scope` is unknown: write its name in upper case"),
        ("USER", "S3CRET", "`SEARCH_USER` is unknown"),
        ("RESPONSE_FORMAT__TOKEN", "/S3CRET", "`SEARCH_RESPONSE_FORMAT__TOKEN` is unknown: use"),
        ("RESPONSE_FORMAT", "S3CRET", "`SEARCH_RESPONSE_FORMAT` is a table"),
        ("TYPE", "password", "`SEARCH_TYPE` must be one of `client_credentials`"),
        ("METHOD", "none", "`SEARCH_CLIENT_SECRET` is unknown"),
        ("TIMEOUT", "S3CRET", "`SEARCH_TIMEOUT` must be a duration with a unit"),
        ("REPLAY_CAP", "S3CRET", "`SEARCH_REPLAY_CAP` must be a whole number"),
        ("REJECTION_STATUSES", "403,S3CRET", "`SEARCH_REJECTION_STATUSES` must be a list"),
        ("WITHOUT_AUTHORITY", "1", "`SEARCH_WITHOUT_AUTHORITY` must be true or false"),
        ("HEADERS", "S3CRET", "`SEARCH_HEADERS` must be a list of name=value"),
        ("HEADERS", "x-a=S3CRET,x-a=1", "`SEARCH_HEADERS__X-A` is there twice: remove one"),
        ("CLIENT_SECRET__FILE", "/x", "is set as a value and as a table: remove one"),
        ("TOKEN_REQUEST_LIMIT__MAX", "3", "`SEARCH_TOKEN_REQUEST_LIMIT__PERIOD` is missing"),
    ] {
        let variable = (format!("SEARCH_{name}"), value.to_owned());
        let grant = GRANT.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let error = from_vars(grant.into_iter().chain([variable])).unwrap_err();
        assert!(error.to_string().contains(problem), "{problem}: {error}");
        assert!(!format!("{error} {error:?}").contains("S3CRET"), "{error}");
    }
}

/// The misspelled variable is the cause, and the missing one its effect.
#[test]
fn misspelled_name_of_a_required_variable_is_named() {
    for name in ["SEARCH_CLIENT_SECRT", "SEARCH_CLIENT_SECRET_FILE"] {
        let grant = GRANT.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let others = grant.into_iter().filter(|(name, _)| name != "SEARCH_CLIENT_SECRET");
        let variable = (name.to_owned(), "S3CRET".to_owned());
        let error = from_vars(others.chain([variable])).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}` is unknown")), "{error}");
    }
}

#[test]
fn deeply_nested_variable_is_unknown() {
    let name = format!("SEARCH_{}A", "A__".repeat(100_000));
    let error = from_vars(GRANT.into_iter().chain([(name.as_str(), "x")])).unwrap_err();
    assert!(error.to_string().contains("is unknown"), "{error}");
}

#[test]
fn missing_or_empty_variable_is_named() {
    for missing in ["SEARCH_CLIENT_ID", "SEARCH_CLIENT_SECRET"] {
        let without = from_vars(GRANT.into_iter().filter(|(name, _)| *name != missing));
        let empty = GRANT.map(|(name, value)| (name, if name == missing { "" } else { value }));
        for error in [without.unwrap_err(), from_vars(empty).unwrap_err()] {
            assert!(error.to_string().contains(&format!("`{missing}` is missing")), "{error}");
        }
    }
}

#[test]
fn error_about_an_unusable_value_names_the_variable() {
    for (name, value, problem) in [
        ("SEARCH_ISSUER", "https://as.test", "has both `SEARCH_TOKEN_URL` and `SEARCH_ISSUER`"),
        ("SEARCH_TOKEN_URL", "as.test", "`SEARCH_TOKEN_URL` cannot be used"),
        ("SEARCH_RESPONSE_FORMAT__SCOPE", "x", "`SEARCH_RESPONSE_FORMAT__SCOPE` cannot be used"),
        ("SEARCH_CLIENT_SECRET", "a\nb", "`SEARCH_CLIENT_SECRET` cannot be used"),
    ] {
        let grant = GRANT.into_iter().filter(|(other, _)| *other != name);
        let config = from_vars(grant.chain([(name, value)])).unwrap();
        let (transport, _) = answering("");
        let error = config.token_cache_with_transport(transport).unwrap_err();
        assert!(error.to_string().contains(problem), "{problem}: {error}");
    }
}

#[test]
fn variables_of_other_prefixes_are_ignored() {
    for other in ["SEARCHES_SCPOE", "PATH", "search_scpoe", "SEARCH", "MY_SEARCH_SCPOE"] {
        assert!(from_vars(GRANT.into_iter().chain([(other, "x")])).is_ok(), "{other}");
    }
}

/// Runs a test in a process of its own with these variables. A process cannot change its own
/// environment without unsafe code.
fn run_with_variables(test: &str, variables: impl IntoIterator<Item = (&'static str, OsString)>) {
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("config::environment::{test}")])
        .envs(variables)
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn environment_of_the_process_is_read() {
    if env::var_os("SEARCH_TOKEN_URL").is_none() {
        let variables = GRANT.map(|(name, value)| (name, value.into()));
        return run_with_variables("environment_of_the_process_is_read", variables);
    }
    let config = ProviderConfig::from_env("SEARCH").unwrap();
    assert!(format!("{config:?}").contains("https://as.test/token"), "{config:?}");
}

#[cfg(unix)]
#[test]
fn variable_that_is_not_utf_8_is_named() {
    use std::os::unix::ffi::OsStringExt;

    if env::var_os("SEARCH_SCOPE").is_none() {
        let value = || OsString::from_vec(b"S3CRET\xff".to_vec());
        let variables = [("SEARCH_SCOPE", value()), ("OTHER_SECRET", value())];
        return run_with_variables("variable_that_is_not_utf_8_is_named", variables);
    }
    let with_variable = grant("").replace("\"S3CRET\"", "{ env = 'OTHER_SECRET' }");
    let with_variable = read(&with_variable).unwrap();
    let of_secret = with_variable.token_cache_with_transport(answering("").0).unwrap_err();
    let of_key = ProviderConfig::from_env("SEARCH").unwrap_err();
    for (error, name) in [(of_key, "`SEARCH_SCOPE` is"), (of_secret, "OTHER_SECRET, which is")] {
        assert!(error.to_string().contains(&format!("{name} not UTF-8")), "{error}");
        assert!(!format!("{error} {error:?}").contains("S3CRET"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn secrets_are_read_from_environment_variables() {
    // Cargo sets this variable for tests.
    let variable = "{ env = 'CARGO_PKG_NAME' }";
    let extra = format!(
        "parameters = {{ tenant = {variable} }}\nheaders = {{ x-key = {variable} }}\nsecrets = \
         [{variable}]"
    );
    let config = grant(&extra).replace("\"S3CRET\"", variable);
    let (transport, mut requests) = answering(r#"{"access_token":"T0KEN"}"#);
    let cache = read(&config).unwrap().token_cache_with_transport(transport).unwrap();
    cache.token().await.unwrap();
    let request = requests.recv().await.unwrap();
    assert_eq!(request.headers()["x-key"], "tower-oauth");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body);
    assert!(body.contains("client_secret=tower-oauth"), "{body}");
    assert!(body.contains("tenant=tower-oauth"), "{body}");

    for (source, header) in [
        (format!("type = 'static_bearer', token = {variable}"), "Bearer tower-oauth"),
        (
            format!("type = 'static_basic', user = 'Aladdin', password = {variable}"),
            "Basic QWxhZGRpbjp0b3dlci1vYXV0aA==",
        ),
    ] {
        let config = read(&format!("source = {{ {source} }}")).unwrap();
        let cache = config.token_cache_with_transport(answering("").0).unwrap();
        assert_eq!(cache.token().await.unwrap().header_value(), header);
    }
}
