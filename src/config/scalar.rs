//! Secrets and durations as a person writes them. No error of these quotes what it could not read.

use std::{fmt, path::PathBuf, time::Duration};

use jiff::{Span, SpanRelativeTo};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use crate::token::ClientSecret;

/// A string that may be a secret.
#[derive(Clone)]
pub(super) struct Hidden(pub(super) String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Quiet { of: "a string", file: false }).and_then(|text| match text {
            Text::Value(value) => Ok(Self(value)),
            Text::File(_) => Err(Error::custom("a string is needed here")),
        })
    }
}

impl<'de> Deserialize<'de> for ClientSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let secret = Quiet { of: "a string or { file = \"…\" }", file: true };
        deserializer.deserialize_any(secret).map(|text| match text {
            Text::Value(value) => Self::from(value),
            Text::File(path) => Self::from_file(path),
        })
    }
}

enum Text {
    Value(String),
    File(PathBuf),
}

/// Takes a string, or a file where that is allowed. Serde's own errors would quote a number that should have been one.
struct Quiet {
    of: &'static str,
    file: bool,
}

impl Quiet {
    fn unquoted<E: Error>(&self) -> E {
        E::custom(format_args!("{} is needed here: put the value in quotes", self.of))
    }
}

impl<'de> Visitor<'de> for Quiet {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.of)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Text, E> {
        Ok(Text::Value(value.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Text, E> {
        Err(self.unquoted())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Text, E> {
        Err(self.unquoted())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Text, E> {
        Err(self.unquoted())
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Text, E> {
        Err(self.unquoted())
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Text, E> {
        Err(self.unquoted())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Text, E> {
        Err(self.unquoted())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let file = match map.next_key::<String>()? {
            Some(key) if self.file && key == "file" => map.next_value()?,
            Some(_) | None => return Err(Error::custom(format_args!("{} is needed here", self.of))),
        };
        match map.next_key::<String>()? {
            None => Ok(Text::File(file)),
            Some(key) => Err(Error::unknown_field(&key, &["file"])),
        }
    }
}

/// `"30s"`, `"24h"`, `"1h 30m"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct HumanDuration(pub(super) Duration);

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let needed = || Error::custom("a duration with a unit is needed here, such as \"30s\" or \"1h 30m\"");
        let text = deserializer.deserialize_any(Quiet { of: "a duration such as \"30s\"", file: false })?;
        let Text::Value(text) = text else { return Err(needed()) };
        let span: Span = text.parse().map_err(|_| needed())?;
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| needed())?;
        Duration::try_from(duration).map(Self).map_err(|_| needed())
    }
}
