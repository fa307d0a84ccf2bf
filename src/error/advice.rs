//! The part of an error that says what to do.

use std::fmt;

/// The form in which the user of a cache writes its settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SettingNames {
    /// Methods, such as `TokenEndpoint::timeout`.
    #[default]
    Methods,
    /// Keys of a configuration file, such as `timeout`.
    #[cfg_attr(not(feature = "config"), allow(dead_code))]
    Keys,
}

impl SettingNames {
    /// Writes a text with placeholders. `{TokenEndpoint::timeout|timeout}` is a setting, as a
    /// method and as a key. `{}` is the detail.
    pub(crate) fn expand(self, text: &str, detail: &str) -> String {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (placeholder, after) = after.split_once('}').unwrap_or((after, ""));
            expanded.push_str(before);
            expanded.push_str(match (placeholder.split_once('|'), self) {
                (None, _) => detail,
                (Some((method, _)), Self::Methods) => method,
                (Some((_, key)), Self::Keys) => key,
            });
            rest = after;
        }
        expanded + rest
    }
}

/// An advice about an error: a text for [`SettingNames::expand`].
#[derive(Clone)]
pub(crate) struct Advice {
    text: &'static str,
    /// A text of the server, cleaned.
    detail: String,
}

impl Advice {
    /// Creates an advice that shows `detail` at the placeholder `{}`.
    pub(crate) fn with_detail(text: &'static str, detail: String) -> Self {
        Self { text, detail }
    }

    pub(crate) fn show(&self, names: SettingNames) -> impl fmt::Display + use<> {
        names.expand(self.text, &self.detail)
    }
}

impl From<&'static str> for Advice {
    fn from(text: &'static str) -> Self {
        Self { text, detail: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_named_in_the_form_of_the_user() {
        let advice = Advice::from("raise {TokenEndpoint::timeout|timeout}, or wait");
        let shown = |names| advice.show(names).to_string();
        assert_eq!(shown(SettingNames::Methods), "raise TokenEndpoint::timeout, or wait");
        assert_eq!(shown(SettingNames::Keys), "raise timeout, or wait");
    }

    #[test]
    fn detail_of_the_server_is_not_expanded() {
        let advice = Advice::with_detail("use {}, please", "https://as.test/{a|b}{".to_owned());
        let shown = advice.show(SettingNames::Keys).to_string();
        assert_eq!(shown, "use https://as.test/{a|b}{, please");
    }
}
