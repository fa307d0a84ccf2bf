//! Providers in environment variables.

use std::{collections::BTreeMap, env};

use serde::Deserialize;

use super::{
    inline_table::InlineTable,
    key_error::{KeyError, one_of},
    key_names::{INLINE_TABLES, KeyNames, NESTED},
    keys::Provider,
    provider_config::ProviderConfig,
    tree::Tree,
};
use crate::error::ConfigError;

/// The largest number of names in a variable, as in `HEADERS__ACCEPT__ENV`. The rest is not split,
/// which limits the recursion.
const MAX_NAMES: usize = 3;

impl ProviderConfig {
    /// Reads the configuration of a provider from the environment variables of this process.
    ///
    /// The variables have the names of the keys in upper case, with `prefix` and an underscore in
    /// front, such as `SEARCH_TOKEN_URL`. See [the module](super#environment-variables).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Key`] that names the variable, if a variable with the prefix is unknown or
    /// has a value of the wrong type, or if a required one is missing. The error quotes no value
    /// that may be a secret.
    pub fn from_env(prefix: &str) -> Result<Self, ConfigError> {
        let start = format!("{prefix}_");
        let variables = env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(&start))?;
            Some(match value.into_string() {
                Ok(value) => Ok((name, value)),
                Err(_) => Err(key_error(name, "is not UTF-8")),
            })
        });
        Self::from_env_vars(prefix, variables.collect::<Result<Vec<_>, _>>()?)
    }

    /// Reads the configuration of a provider from the given environment variables, as
    /// [`from_env`](Self::from_env) does: for tests, or for variables from elsewhere.
    ///
    /// ```
    /// use tower_oauth::config::ProviderConfig;
    ///
    /// let variables = [
    ///     ("SEARCH_TOKEN_URL", "https://auth.example.com/oauth2/token"),
    ///     ("SEARCH_CLIENT_ID", "me"),
    ///     ("SEARCH_CLIENT_SECRET", "hunter2"),
    ///     ("SEARCH_ORIGINS", "https://api.example.com,https://search.example.com"),
    /// ];
    /// let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    /// let provider = ProviderConfig::from_env_vars("SEARCH", variables)?;
    /// # Ok::<_, tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`from_env`](Self::from_env).
    pub fn from_env_vars(
        prefix: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let names = KeyNames::Environment { prefix: prefix.to_owned() };
        let mut tables = BTreeMap::new();
        let mut names_of_keys = BTreeMap::new();
        for (name, value) in variables {
            let Some(key) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_'))
            else {
                continue;
            };
            if key.bytes().any(|byte| byte.is_ascii_lowercase()) {
                return Err(key_error(name, "is unknown: write its name in upper case"));
            }
            let key = key.to_ascii_lowercase();
            if value.is_empty() {
                continue;
            }
            let path: Vec<_> = key.splitn(MAX_NAMES, NESTED).collect();
            if !insert(&mut tables, &path, &value) {
                return Err(key_error(name, "is set as a value and as a table: remove one"));
            }
            names_of_keys.insert(path[0].to_owned(), name);
        }
        let tables = tables.into_iter().map(|(key, table)| (key, table.into_tree())).collect();
        let table = InlineTable::new(tables);
        let provider = Provider::deserialize(Tree::Inline(table.clone()));
        // A typing error makes one key unknown and another one missing. After another error, some
        // tables have not been read, so their keys are not known.
        let are_keys_known = provider.as_ref().err().is_none_or(KeyError::is_about_key);
        if are_keys_known && let Some(unknown) = table.unknown_key() {
            let known = table.known_keys().into_iter().filter(|key| !INLINE_TABLES.contains(key));
            let known: Vec<_> = known.map(|key| names.name(&[key])).collect();
            let known = one_of(known.iter().map(String::as_str));
            let name = names_of_keys.remove(&unknown).unwrap_or_default();
            return Err(key_error(name, &format!("is unknown: use {known}")));
        }
        let provider = provider.map_err(|error| error.into_config_error(&names))?;
        Ok(Self { provider, names })
    }
}

fn key_error(key: String, reason: &str) -> ConfigError {
    ConfigError::Key { key, reason: reason.to_owned() }
}

/// The variables of one key.
enum Variables {
    Value(String),
    Table(BTreeMap<String, Variables>),
}

impl Variables {
    fn into_tree(self) -> Tree {
        match self {
            Self::Value(value) => Tree::variable(&value),
            Self::Table(table) => Tree::Table(
                table.into_iter().map(|(key, value)| (key, value.into_tree())).collect(),
            ),
        }
    }
}

/// Inserts a value at a path of keys. Returns false if there is a value or a table at the path
/// already, or a value at the beginning of the path.
fn insert(table: &mut BTreeMap<String, Variables>, path: &[&str], value: &str) -> bool {
    match path {
        [] => true,
        [key] => table.insert((*key).to_owned(), Variables::Value(value.to_owned())).is_none(),
        [key, rest @ ..] => {
            let inner = table.entry((*key).to_owned());
            match inner.or_insert_with(|| Variables::Table(BTreeMap::new())) {
                Variables::Table(inner) => insert(inner, rest, value),
                Variables::Value(_) => false,
            }
        }
    }
}
