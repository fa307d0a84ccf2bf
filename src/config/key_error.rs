//! Errors that name a key by its path.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

use super::key_names::KeyNames;
use crate::error::ConfigError;

/// A problem with a key. It quotes no value that may be a secret.
#[derive(Debug)]
pub(super) struct KeyError {
    /// The keys from the outermost to the innermost.
    path: Vec<String>,
    problem: String,
    /// True if the problem is the key and not its value: it is unknown, missing, or there twice.
    is_about_key: bool,
}

impl KeyError {
    pub(super) fn must_be(expected: impl fmt::Display) -> Self {
        Self::custom(format_args!("must be {expected}"))
    }

    /// Adds the key of the table in which the error occurred.
    pub(super) fn under(mut self, key: impl Into<String>) -> Self {
        self.path.insert(0, key.into());
        self
    }

    /// Adds the variant of the table, on which its valid keys depend.
    pub(super) fn in_variant(mut self, tag: &str, variant: &str) -> Self {
        if self.is_about_key && self.path.len() == 1 {
            self.problem = format!("{} (the `{tag}` is `{variant}`)", self.problem);
        }
        self
    }

    /// Returns true if the key is unknown, missing, or there twice.
    pub(super) fn is_about_key(&self) -> bool {
        self.is_about_key
    }

    pub(super) fn into_config_error(self, names: &KeyNames) -> ConfigError {
        ConfigError::Key { key: names.name(&self.path), reason: self.problem }
    }

    pub(super) fn duplicate(key: &str) -> Self {
        Self::about_key(key, "is there twice: remove one".to_owned())
    }

    fn about_key(key: &str, problem: String) -> Self {
        Self { path: vec![key.to_owned()], problem, is_about_key: true }
    }
}

/// Returns a list of alternatives.
pub(super) fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [only] => only.clone(),
        names => format!("one of {}", names.join(", ")),
    }
}

impl Error for KeyError {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self { path: Vec::new(), problem: problem.to_string(), is_about_key: false }
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::must_be(expected)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::must_be(expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::must_be(format_args!("{}, not {variant:?}", one_of(expected.iter().copied())))
    }

    fn unknown_field(key: &str, expected: &'static [&'static str]) -> Self {
        let expected = one_of(expected.iter().copied());
        Self::about_key(key, format!("is unknown: use {expected}"))
    }

    fn missing_field(key: &'static str) -> Self {
        Self::about_key(key, "is missing".to_owned())
    }

    fn duplicate_field(key: &'static str) -> Self {
        Self::duplicate(key)
    }
}

impl std::error::Error for KeyError {}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", KeyNames::File.name(&self.path), self.problem)
    }
}
