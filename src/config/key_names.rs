//! The names of keys, in the form in which the user wrote them.

use crate::error::ConfigError;

/// The tables of which the name is left out of the names of environment variables.
pub(super) const INLINE_TABLES: [&str; 2] = ["source", "client_auth"];

/// The separator between the name of a table and the name of its key in an environment variable.
pub(super) const NESTED: &str = "__";

/// The form in which the user wrote the keys.
#[derive(Clone, Debug)]
pub(super) enum KeyNames {
    File,
    Environment { prefix: String },
}

impl KeyNames {
    /// Returns the name of a key: `source.response_format.scope`, or
    /// `PREFIX_RESPONSE_FORMAT__SCOPE`.
    pub(super) fn name<S: AsRef<str>>(&self, path: &[S]) -> String {
        let path = path.iter().map(AsRef::as_ref);
        match self {
            Self::File => path.collect::<Vec<_>>().join("."),
            Self::Environment { prefix } => {
                let path = path.filter(|key| !INLINE_TABLES.contains(key));
                format!("{prefix}_{}", path.collect::<Vec<_>>().join(NESTED).to_ascii_uppercase())
            }
        }
    }

    /// Returns an error about the value of the key `path`, such as `source.timeout`.
    pub(super) fn error(&self, path: &str, reason: impl Into<String>) -> ConfigError {
        let path: Vec<_> = path.split('.').collect();
        ConfigError::Key { key: self.name(&path), reason: reason.into() }
    }

    /// Returns an error about several keys. `{source.timeout}` in the text stands for a key.
    pub(super) fn error_about_keys(&self, text: &str) -> ConfigError {
        let mut parts = text.split(['{', '}']);
        let mut reason = parts.next().unwrap_or_default().to_owned();
        while let (Some(path), Some(after)) = (parts.next(), parts.next()) {
            let path: Vec<_> = path.split('.').collect();
            reason.extend(["`", &self.name(&path), "`", after]);
        }
        ConfigError::Provider { reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_in_the_form_of_the_user() {
        let environment = KeyNames::Environment { prefix: "SEARCH".into() };
        for (path, in_file, variable) in [
            ("name", "name", "SEARCH_NAME"),
            ("source.client_auth.client_id", "source.client_auth.client_id", "SEARCH_CLIENT_ID"),
            (
                "source.response_format.scope",
                "source.response_format.scope",
                "SEARCH_RESPONSE_FORMAT__SCOPE",
            ),
        ] {
            let path: Vec<_> = path.split('.').collect();
            assert_eq!(KeyNames::File.name(&path), in_file);
            assert_eq!(environment.name(&path), variable);
        }
        let error = environment.error_about_keys("needs {source.issuer} or {source.token_url}.");
        let reason = "needs `SEARCH_ISSUER` or `SEARCH_TOKEN_URL`.".to_owned();
        assert_eq!(error, ConfigError::Provider { reason });
    }
}
