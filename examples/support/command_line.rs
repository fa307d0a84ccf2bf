//! The command line and the exit code of the examples that send a request to your own API.

use std::{
    collections::HashMap,
    env,
    error::Error,
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use http::Uri;
use tower_oauth::{BoxError, ConfigError, TokenError, TokenErrorKind};

/// The values of options and positional arguments, by name.
pub(crate) type Arguments = HashMap<&'static str, String>;

/// Returns true if the help is requested.
pub(crate) fn is_help_requested() -> bool {
    env::args_os().skip(1).any(|argument| argument == "--help" || argument == "-h")
}

/// Parses `--option value`, `--option=value` and positional arguments. An error names an unknown
/// option and never shows a value, which may be a secret.
pub(crate) fn parse_arguments(
    options: &[&'static str],
    positional: &[&'static str],
) -> Result<Arguments, UsageError> {
    let to_text = |argument: std::ffi::OsString| {
        argument.into_string().map_err(|_| UsageError("an argument is not UTF-8".into()))
    };
    let find_option = |text: &str| {
        let name = options.iter().copied().find(|name| *name == text);
        name.ok_or_else(|| UsageError(format!("there is no option {text:?}")))
    };
    let mut positional = positional.iter().copied();
    let mut parsed = Arguments::new();
    let mut rest = env::args_os().skip(1).map(to_text);
    while let Some(argument) = rest.next().transpose()? {
        let (name, value) = if !argument.starts_with('-') {
            let name =
                positional.next().ok_or(UsageError("there are too many arguments".into()))?;
            (name, Some(argument))
        } else if let Some((option, value)) = argument.split_once('=') {
            (find_option(option)?, Some(value.to_owned()))
        } else {
            (find_option(&argument)?, rest.next().transpose()?)
        };
        let Some(value) = value.filter(|value| !value.is_empty() && !value.starts_with("--"))
        else {
            return Err(UsageError(format!("{name} needs a value")));
        };
        if parsed.insert(name, value).is_some() {
            return Err(UsageError(format!("{name} is given twice")));
        }
    }
    Ok(parsed)
}

/// Removes and returns an argument that must be given.
pub(crate) fn take(arguments: &mut Arguments, name: &str) -> Result<String, UsageError> {
    arguments.remove(name).ok_or_else(|| UsageError(format!("{name} is missing")))
}

/// Parses the URL of a request. Plain HTTP is accepted for this machine only: anyone on the network
/// path could read the token.
pub(crate) fn parse_url(name: &str, url: &str) -> Result<Uri, UsageError> {
    let url = url.parse::<Uri>().unwrap_or_default();
    let is_loopback = matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_loopback => Ok(url),
        _ => {
            let problem = "must be an https:// URL, or an http:// URL of this machine";
            Err(UsageError(format!("{name} {problem}")))
        }
    }
}

/// Prints an error in one line. Returns the exit code: 0 for success, 1 for a failure, 2 for wrong
/// arguments.
pub(crate) fn report(program: &str, result: Result<(), BoxError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let is_usage_error = is_usage_error(&error);
    let hint = if is_usage_error { "; see --help" } else { "" };
    // The text of a server may contain line breaks.
    let line = error_message(&error).replace(char::is_control, " ");
    let _ = writeln!(io::stderr(), "{program}: {line}{hint}");
    ExitCode::from(if is_usage_error { 2 } else { 1 })
}

fn is_usage_error(error: &BoxError) -> bool {
    let config = error.downcast_ref::<ConfigError>();
    let token = error.downcast_ref::<TokenError>();
    error.is::<UsageError>()
        || config.is_some_and(|error| !is_about_this_machine(error))
        || token.is_some_and(|error| error.kind() == TokenErrorKind::Configuration)
}

fn is_about_this_machine(error: &ConfigError) -> bool {
    use ConfigError::{NoCryptoProvider, NoRootCertificates, Tls};

    matches!(error, Tls { .. } | NoCryptoProvider | NoRootCertificates)
}

/// Returns the message of a [`TokenError`], which is complete. Of other errors, returns the message
/// of the last source: HTTP clients put the cause there.
pub(crate) fn error_message(error: &BoxError) -> String {
    let mut error: &(dyn Error + 'static) = &**error;
    while !error.is::<TokenError>()
        && let Some(source) = error.source()
    {
        error = source;
    }
    error.to_string()
}

/// The arguments cannot be used.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for UsageError {}
