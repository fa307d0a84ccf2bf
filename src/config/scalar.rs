//! The types of values in a configuration file. Their errors do not quote the value, which may be a
//! secret: the errors of serde would.

use std::{fmt, marker::PhantomData, ops::Deref, time::Duration};

use jiff::{Span, SpanRelativeTo};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Expected, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use zeroize::Zeroizing;

use crate::{log_text::url_text_without_secrets, token::Secret};

/// A string. `Debug` shows it.
#[derive(Clone)]
pub(super) struct Text(String);

/// A string that may be a secret. `Debug` does not show it, and its memory is zeroed on drop.
#[derive(Clone)]
pub(super) struct HiddenText(Zeroizing<String>);

/// A URL. `Debug` shows it without user information and query.
#[derive(Clone)]
pub(super) struct UrlText(String);

/// A duration with units, such as `"30s"`, `"24h"` or `"1h 30m"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct HumanDuration(pub(super) Duration);

/// A table, and not a list or a string.
#[derive(Clone, Copy, Default)]
pub(super) struct Table<T>(T);

/// A list, and not a single value.
#[derive(Clone)]
pub(super) struct List<T>(Vec<T>);

/// Defines visitors that reject a value without quoting it.
macro_rules! reject {
    ($($visit:ident($type:ty))*) => {
        $(fn $visit<E: Error>(self, _: $type) -> Result<Self::Value, E> {
            Err(wrong_type(&self))
        })*
    };
}

/// Rejects values that are neither a string nor a table nor a list.
macro_rules! reject_bare_values {
    () => {
        reject! {
            visit_bool(bool) visit_i64(i64) visit_u64(u64)
            visit_i128(i128) visit_u128(u128) visit_f64(f64)
        }
    };
}

fn wrong_type<E: Error>(expected: &dyn Expected) -> E {
    E::custom(format_args!("{expected} is needed here"))
}

/// Reads a string.
struct StringVisitor;

impl Visitor<'_> for StringVisitor {
    type Value = Zeroizing<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string in quotes")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Zeroizing::new(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Self::Value, E> {
        Ok(Zeroizing::new(value))
    }

    reject_bare_values!();
}

impl<'de> Deserialize<'de> for HiddenText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The error of `deserialize_str` may quote a value of another type.
        deserializer.deserialize_any(StringVisitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        HiddenText::deserialize(deserializer).map(|text| Self(text.to_string()))
    }
}

impl<'de> Deserialize<'de> for UrlText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        HiddenText::deserialize(deserializer).map(|text| Self(text.to_string()))
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_any(StringVisitor).map_err(|_| unit_needed())?;
        let span: Span = text.parse().map_err(|_| unit_needed())?;
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
        let duration = duration.map_err(|_| unit_needed())?;
        Duration::try_from(duration).map(Self).map_err(|_| unit_needed())
    }
}

fn unit_needed<E: Error>() -> E {
    E::custom("a duration with a unit is needed here, such as \"30s\" or \"1h 30m\"")
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string in quotes or { file = \"…\" }")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Secret, E> {
        Ok(Secret::from(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Secret, E> {
        Ok(Secret::from(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let file: Text = match map.next_key::<String>()?.as_deref() {
            Some("file") => map.next_value()?,
            _ => return Err(wrong_type(&self)),
        };
        match map.next_key::<String>()? {
            None => Ok(Secret::from_file(file.0)),
            Some(key) => Err(Error::unknown_field(&key, &["file"])),
        }
    }

    reject_bare_values!();
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TableVisitor(PhantomData)).map(Self)
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }

    reject_bare_values!();
    reject! { visit_str(&str) }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData)).map(Self)
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list in square brackets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(values)
    }

    reject_bare_values!();
    reject! { visit_str(&str) }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> Deref for Table<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Deref for HiddenText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for UrlText {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        url_text_without_secrets(&self.0).fmt(f)
    }
}

impl fmt::Debug for HiddenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
