//! Secrets and durations in a configuration file. Errors do not quote the value, which may be a
//! secret.

use std::{fmt, path::PathBuf, time::Duration};

use jiff::{Span, SpanRelativeTo};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use crate::token::Secret;

/// A string that may be a secret. `Debug` does not show it.
#[derive(Clone)]
pub(super) struct HiddenString(pub(super) String);

impl fmt::Debug for HiddenString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for HiddenString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = StringOrFileVisitor { expected: "a string", allows_file: false };
        match deserializer.deserialize_str(visitor)? {
            StringOrFile::String(value) => Ok(Self(value)),
            StringOrFile::File(_) => Err(Error::custom("a string is needed here")),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a string or { file = \"…\" }";
        let visitor = StringOrFileVisitor { expected, allows_file: true };
        Ok(match deserializer.deserialize_any(visitor)? {
            StringOrFile::String(value) => Self::from(value),
            StringOrFile::File(path) => Self::from_file(path),
        })
    }
}

enum StringOrFile {
    String(String),
    File(PathBuf),
}

/// Reads a string, or a file if that is allowed. Other types have visitors as well, because the
/// default visitors of serde quote the value in their errors.
struct StringOrFileVisitor {
    expected: &'static str,
    allows_file: bool,
}

/// Defines visitors that reject a value without quotes. The errors of serde would show the value.
macro_rules! reject_unquoted {
    ($($visit:ident($type:ty))*) => {
        $(fn $visit<E: Error>(self, _: $type) -> Result<StringOrFile, E> {
            let Self { expected, .. } = self;
            Err(E::custom(format_args!("{expected} is needed here: put the value in quotes")))
        })*
    };
}

impl<'de> Visitor<'de> for StringOrFileVisitor {
    type Value = StringOrFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<StringOrFile, E> {
        Ok(StringOrFile::String(value.to_owned()))
    }

    reject_unquoted! {
        visit_bool(bool) visit_i64(i64) visit_u64(u64)
        visit_i128(i128) visit_u128(u128) visit_f64(f64)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringOrFile, A::Error> {
        let file = match map.next_key::<String>()? {
            Some(key) if self.allows_file && key == "file" => map.next_value()?,
            _ => return Err(Error::custom(format_args!("{} is needed here", self.expected))),
        };
        match map.next_key::<String>()? {
            None => Ok(StringOrFile::File(file)),
            Some(key) => Err(Error::unknown_field(&key, &["file"])),
        }
    }
}

/// A duration with units, such as `"30s"`, `"24h"` or `"1h 30m"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct HumanDuration(pub(super) Duration);

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a duration such as \"30s\"";
        let visitor = StringOrFileVisitor { expected, allows_file: false };
        let StringOrFile::String(text) = deserializer.deserialize_any(visitor)? else {
            return Err(unit_needed());
        };
        let span: Span = text.parse().map_err(|_| unit_needed())?;
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
        let duration = duration.map_err(|_| unit_needed())?;
        Duration::try_from(duration).map(Self).map_err(|_| unit_needed())
    }
}

fn unit_needed<E: Error>() -> E {
    E::custom("a duration with a unit is needed here, such as \"30s\" or \"1h 30m\"")
}
