//! Removes secrets from texts that are shown: messages of servers, errors of transports, URLs.

use http::Uri;
use zeroize::Zeroizing;

/// Removes the secrets of one request from texts of other programs: a server or a proxy may echo
/// the request.
#[derive(Default)]
pub(crate) struct Redactor(Vec<Zeroizing<String>>);

impl Redactor {
    /// The number of characters after which a text is cut.
    const MAX_CHARS: usize = 512;

    pub(crate) fn new(mut secrets: Vec<Zeroizing<String>>) -> Self {
        secrets.retain(|secret| !secret.is_empty());
        // Longest first: a secret may be part of another one.
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.as_str().cmp(b)));
        secrets.dedup_by(|a, b| a.as_str() == b.as_str());
        Self(secrets)
    }

    /// Returns a redactor for one more secret, such as the token in a response.
    pub(crate) fn and(&self, secret: &str) -> Self {
        let secret = Zeroizing::new(secret.to_owned());
        Self::new(self.0.iter().cloned().chain([secret]).collect())
    }

    /// Returns `text` without secrets and without control characters, cut to a length that fits
    /// into a line of a log.
    pub(crate) fn clean(&self, text: &str) -> String {
        let text = self.redact(text);
        let printable = |c: char| if c.is_alphanumeric() || c.is_ascii_graphic() { c } else { ' ' };
        let mut rest = text.chars();
        let mut clean: String = rest.by_ref().take(Self::MAX_CHARS).map(printable).collect();
        if rest.next().is_some() {
            clean.push('…');
        }
        // A replaced character may have completed a secret.
        self.redact(&clean)
    }

    /// Returns true if `text` contains none of the secrets. Backslashes are ignored, because
    /// `Debug` adds them, once for each level of nesting.
    pub(crate) fn is_clean(&self, text: &str) -> bool {
        let plain = |text: &str| Zeroizing::new(text.replace('\\', "").to_ascii_lowercase());
        let text = plain(text);
        !self.0.iter().any(|secret| text.contains(plain(secret).as_str()))
    }

    fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = replace_ignoring_case(&text, secret);
        }
        text
    }
}

/// Replaces `secret` whatever its case, because percent-encodings are written in either case.
fn replace_ignoring_case(text: &str, secret: &str) -> String {
    let lower_text = text.to_ascii_lowercase();
    let lower_secret = Zeroizing::new(secret.to_ascii_lowercase());
    let mut replaced = String::with_capacity(text.len());
    let mut end = 0;
    for (start, found) in lower_text.match_indices(lower_secret.as_str()) {
        replaced.push_str(&text[end..start]);
        replaced.push_str("[redacted]");
        end = start + found.len();
    }
    replaced + &text[end..]
}

/// Returns a URL without its query, which may contain a secret. User information is rejected when a
/// URL is checked.
pub(crate) fn url_without_query(uri: &Uri) -> String {
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) => format!("{scheme}://{authority}{}", uri.path()),
        _ => uri.path().to_owned(),
    }
}

/// Returns the part of a text that can be shown, where the text should have been a URL: the part
/// after the last `@` and before the first `?` or `#`.
pub(crate) fn url_text_without_secrets(text: &str) -> String {
    let scheme =
        ["https://", "http://"].into_iter().find(|scheme| text.starts_with(scheme)).unwrap_or("");
    let rest = text[scheme.len()..].rsplit('@').next().unwrap_or_default();
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        Redactor::new(secrets.iter().map(|secret| Zeroizing::new((*secret).to_owned())).collect())
    }

    #[test]
    fn echoed_secret_is_redacted() {
        let clean = redactor(&["s3cret", ""]).clean("bad secret 's3cret', I said s3cret");
        assert_eq!(clean, "bad secret '[redacted]', I said [redacted]");
    }

    #[test]
    fn nested_debug_output_of_a_secret_is_not_clean() {
        let redactor = redactor(&["a\"b\\c"]);
        let mut text = "A\"b\\c".to_owned();
        for _ in 0..4 {
            assert!(!redactor.is_clean(&text), "{text}");
            text = format!("{text:?}");
        }
        assert!(redactor.is_clean("a\"b"));
    }

    #[test]
    fn message_is_cut_and_stays_on_one_line() {
        assert_eq!(
            redactor(&[]).clean("a\r\nb\u{85}c\u{202e}d\u{2028}ü\u{1b}[1m"),
            "a  b c d ü [1m"
        );
        let long = redactor(&[]).clean(&"ü".repeat(5_000));
        assert_eq!(long.chars().count(), Redactor::MAX_CHARS + 1);
    }

    #[test]
    fn password_and_query_of_a_url_text_are_not_shown() {
        for (text, expected) in [
            ("https://me:hunter2@a.test/t?key=hunter2", "https://a.test/t"),
            ("https://me:hunter#2@a.test/t", "https://a.test/t"),
            ("https://me:hunter?2@a.test/t", "https://a.test/t"),
            ("me:hunter2@a.test", "a.test"),
            ("a.test/token?hunter2#x", "a.test/token"),
            ("hunter2@://x", "://x"),
            ("?hunter2://x@y", "y"),
            ("", ""),
        ] {
            assert_eq!(url_text_without_secrets(text), expected, "{text}");
            assert!(!url_text_without_secrets(text).contains("hunter"), "{text}");
        }
    }

    #[test]
    fn at_sign_in_a_path_is_not_user_information() {
        let uri = Uri::from_static("https://auth.example.com/tenants/me@corp.test/token?x=y");
        let expected = "https://auth.example.com/tenants/me@corp.test/token";
        assert_eq!(url_without_query(&uri), expected);
    }
}
