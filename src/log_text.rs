//! Makes texts of servers and users fit for one line of a log: cut, without line breaks, and URLs
//! without passwords and queries.

use http::Uri;

/// The number of characters after which a text is cut.
pub(crate) const MAX_CHARS: usize = 200;

/// Returns a URL without its query, which may contain a secret. User information is rejected when a
/// URL is checked. The text is made [printable] and [cut], because a server may have chosen the URL.
pub(crate) fn url_without_query(url: &Uri) -> String {
    cut(without_query(&printable(&url.to_string())))
}

/// Returns the [part](shown_part_of_url) of a text that can be shown, [printable] and [cut]. The text
/// is meant to be a URL.
pub(crate) fn url_text_without_secrets(text: &str) -> String {
    cut(&shown_part_of_url(&printable(text)))
}

/// Returns the part of a text that can be shown: the part after the last `@` and before the first
/// `?` or `#`, with the scheme. The text is meant to be a URL, but may be invalid.
pub(crate) fn shown_part_of_url(text: &str) -> String {
    let schemes = ["https://", "http://"];
    let scheme = schemes.into_iter().find(|scheme| text.starts_with(scheme)).unwrap_or("");
    let rest = text[scheme.len()..].rsplit('@').next().unwrap_or_default();
    [scheme, rest.split(['?', '#']).next().unwrap_or_default()].concat()
}

/// Returns the part of a URL before its query.
pub(crate) fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

/// Returns `text` with a space instead of each character that is neither alphanumeric nor printable
/// ASCII.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(printable_char).collect()
}

/// Returns a space for a character that is neither alphanumeric nor printable ASCII.
pub(crate) fn printable_char(c: char) -> char {
    if c.is_alphanumeric() || c.is_ascii_graphic() { c } else { ' ' }
}

/// Returns `text`, cut to a length that fits into a line of a log.
pub(crate) fn cut(text: &str) -> String {
    let mut rest = text.chars();
    let mut shown: String = rest.by_ref().take(MAX_CHARS).collect();
    if rest.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_stays_on_one_line() {
        assert_eq!(printable("a\r\nb\u{85}c\u{202e}d\u{2028}ü\u{1b}[1m"), "a  b c d ü [1m");
        assert_eq!(cut(&"ü".repeat(5_000)).chars().count(), MAX_CHARS + 1);
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
    fn url_of_a_server_is_cleaned_and_cut() {
        let text = format!("https://a.test/\u{85}\u{2028}\u{202e}\u{9b}31m{}", "x".repeat(60_000));
        let uri: Uri = text.parse().unwrap();
        for shown in [url_without_query(&uri), url_text_without_secrets(&text)] {
            assert!(shown.starts_with("https://a.test/    31mxxx"), "{shown}");
            assert_eq!(shown.chars().count(), MAX_CHARS + 1);
        }
    }

    #[test]
    fn at_sign_in_a_path_is_not_user_information() {
        let uri = Uri::from_static("https://auth.example.com/tenants/me@corp.test/token?x=y");
        let expected = "https://auth.example.com/tenants/me@corp.test/token";
        assert_eq!(url_without_query(&uri), expected);
    }
}
