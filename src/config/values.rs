//! The types of values: secrets, URLs, durations and statuses. Their `Debug` shows no secret.

use std::{
    env::{self, VarError},
    fmt,
    marker::PhantomData,
    ops::Deref,
    time::Duration,
};

use http::StatusCode;
use jiff::{Span, SpanRelativeTo};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};
use zeroize::Zeroizing;

use super::key_names::KeyNames;
use crate::{error::ConfigError, log_text::url_text_without_secrets, token::Secret};

/// A text that may be a secret: the text itself, or the name of an environment variable that
/// contains it. The memory of the text is zeroed on drop.
#[derive(Clone)]
pub(super) enum Hidden {
    Text(Zeroizing<String>),
    Variable(String),
}

/// A secret: a [`Hidden`] text, or the path of a file that contains it.
#[derive(Clone)]
pub(super) enum SecretPlace {
    Hidden(Hidden),
    File(String),
}

/// A place of a secret outside of the configuration: a table with one key.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub(super) enum FileOrVariable {
    /// The path of a file that contains the secret. It is read for each token request.
    File(String),
    /// The name of an environment variable that contains the secret.
    Env(String),
}

/// A place of a secret outside of the configuration: a table with one key.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub(super) enum VariableOnly {
    /// The name of an environment variable that contains the secret.
    Env(String),
}

/// A URL. `Debug` shows it without user information and query.
#[derive(Clone)]
pub(super) struct UrlText(String);

/// A duration with units, such as `"30s"`, `"24h"` or `"1h 30m"`, that is longer than zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct PositiveDuration(pub(super) Duration);

/// An HTTP status.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status(pub(super) StatusCode);

impl Hidden {
    /// Returns the text, and reads the variable if there is one. The error names the key `path`.
    pub(super) fn read(
        &self,
        names: &KeyNames,
        path: &str,
    ) -> Result<Zeroizing<String>, ConfigError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Variable(name) => content_of_variable(name, env::var(name))
                .map_err(|reason| names.error(path, reason)),
        }
    }
}

impl SecretPlace {
    /// Returns the secret, and reads the variable if there is one. The error names the key `path`.
    pub(super) fn read(&self, names: &KeyNames, path: &str) -> Result<Secret, ConfigError> {
        match self {
            Self::Hidden(hidden) => {
                hidden.read(names, path).map(|text| Secret::from(text.as_str()))
            }
            Self::File(path) => Ok(Secret::from_file(path)),
        }
    }
}

fn content_of_variable(
    name: &str,
    content: Result<String, VarError>,
) -> Result<Zeroizing<String>, String> {
    let problem = match content.map(Zeroizing::new) {
        Ok(text) if !text.is_empty() => return Ok(text),
        Ok(_) => "is empty",
        Err(VarError::NotPresent) => "is not set",
        Err(VarError::NotUnicode(_)) => "is not UTF-8",
    };
    Err(format!(
        "names the environment variable {name}, which {problem}: set it to the value of the key"
    ))
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a string in quotes or { env = \"…\" }";
        deserializer.deserialize_any(TextOr { expected, place: PhantomData::<VariableOnly> })
    }
}

impl<'de> Deserialize<'de> for SecretPlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a string in quotes, { file = \"…\" } or { env = \"…\" }";
        deserializer.deserialize_any(TextOr { expected, place: PhantomData::<FileOrVariable> })
    }
}

/// Reads a text or a table with one key.
struct TextOr<P> {
    expected: &'static str,
    place: PhantomData<P>,
}

/// A table that names a place outside of the configuration.
trait Place: Sized {
    type Secret: From<Self> + From<Hidden>;
}

impl Place for VariableOnly {
    type Secret = Hidden;
}

impl Place for FileOrVariable {
    type Secret = SecretPlace;
}

impl From<VariableOnly> for Hidden {
    fn from(VariableOnly::Env(name): VariableOnly) -> Self {
        Self::Variable(name)
    }
}

impl From<FileOrVariable> for SecretPlace {
    fn from(place: FileOrVariable) -> Self {
        match place {
            FileOrVariable::File(path) => Self::File(path),
            FileOrVariable::Env(name) => Self::Hidden(Hidden::Variable(name)),
        }
    }
}

impl From<Hidden> for SecretPlace {
    fn from(hidden: Hidden) -> Self {
        Self::Hidden(hidden)
    }
}

impl<'de, P: Place + Deserialize<'de>> Visitor<'de> for TextOr<P> {
    type Value = P::Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<P::Secret, E> {
        Ok(Hidden::Text(Zeroizing::new(text.to_owned())).into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<P::Secret, A::Error> {
        let place = P::deserialize(MapAccessDeserializer::new(&mut map))?;
        match map.next_key::<String>()? {
            None => Ok(place.into()),
            Some(_) => Err(Error::custom(format_args!("must be {}", self.expected))),
        }
    }
}

impl<'de> Deserialize<'de> for UrlText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for PositiveDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = PositiveDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with a unit, such as \"30s\" or \"1h 30m\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PositiveDuration, E> {
        let span = text.parse::<Span>().ok();
        let duration =
            span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        match duration.and_then(|duration| Duration::try_from(duration).ok()) {
            None => Err(E::invalid_value(Unexpected::Other("text"), &self)),
            Some(Duration::ZERO) => Err(E::custom("must be longer than zero")),
            Some(duration) => Ok(PositiveDuration(duration)),
        }
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let status = u16::deserialize(deserializer).ok();
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        status.map(Self).ok_or_else(|| D::Error::custom("must be a list of HTTP statuses like 403"))
    }
}

impl Deref for UrlText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for UrlText {
    fn as_ref(&self) -> &str {
        self
    }
}

impl fmt::Debug for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        url_text_without_secrets(&self.0).fmt(f)
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("[redacted]"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

impl fmt::Debug for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hidden(hidden) => hidden.fmt(f),
            Self::File(path) => write!(f, "file {path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn unusable_variable_is_named_without_its_content() {
        let set = content_of_variable("NAME", Ok("S3CRET".to_owned())).unwrap();
        assert_eq!(*set, "S3CRET");
        for (content, problem) in [
            (Ok(String::new()), "is empty"),
            (Err(VarError::NotPresent), "is not set"),
            (Err(VarError::NotUnicode(OsString::from("S3CRET"))), "is not UTF-8"),
        ] {
            let error = content_of_variable("NAME", content).unwrap_err();
            assert!(error.contains("variable NAME, which ") && error.contains(problem), "{error}");
            assert!(!error.contains("S3CRET"), "{error}");
        }
    }
}
