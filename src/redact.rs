//! Removes secrets from texts that are shown: messages of servers, errors of transports, URLs.

use std::{iter, ops::Range, sync::OnceLock};

use aho_corasick::{Anchored, automaton::Automaton, nfa::noncontiguous::NFA};
use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::log_text::{cut, printable, printable_char, shown_part_of_url, without_query};

/// The size of the smallest secret that is replaced. A text with a smaller one is withheld.
pub(crate) const MIN_REPLACED_BYTES: usize = 4;
/// The part of a secret that is searched for. The text after the beginning of a larger secret is
/// withheld.
const MAX_NEEDLE_BYTES: usize = 128;
/// The number of needles above which all texts are withheld. Together with [`MAX_NEEDLE_BYTES`],
/// it limits the memory of the automaton.
const MAX_NEEDLES: usize = 256;
/// Stands for a secret, or for a text that is withheld.
const REDACTED: &str = "[redacted]";

/// The bytes that are encoded in any part of a URL (RFC 3986 §2.3).
const NOT_UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Removes secrets from texts of other programs: a server or a proxy may echo a request.
///
/// Texts and secrets are compared without regard to ASCII case, because percent-encodings are
/// written in either case. Backslashes are ignored, because `Debug` adds them, once for each level
/// of nesting. Characters that are neither alphanumeric nor printable ASCII count as spaces.
#[derive(Default)]
pub(crate) struct Redactor {
    secrets: Vec<Zeroizing<String>>,
    /// Created for the first text, because most requests cause no error.
    needles: OnceLock<Needles>,
}

impl Redactor {
    pub(crate) fn new(secrets: Vec<Zeroizing<String>>) -> Self {
        Self { secrets, needles: OnceLock::new() }
    }

    /// Returns a redactor for one more secret, such as the token in a response.
    pub(crate) fn and(&self, secret: &str) -> Self {
        let secret = Zeroizing::new(secret.to_owned());
        Self::new(self.secrets.iter().cloned().chain([secret]).collect())
    }

    /// Returns `text` without secrets, with spaces instead of control characters and punctuation
    /// outside of ASCII, cut to a length that fits into a line of a log.
    pub(crate) fn clean(&self, text: &str) -> String {
        self.clean_part(text, str::to_owned)
    }

    /// Returns a URL without its query, [cleaned](Self::clean).
    pub(crate) fn clean_url(&self, url: &Uri) -> String {
        self.clean_part(&url.to_string(), |text| without_query(text).to_owned())
    }

    /// Returns the [part](shown_part_of_url) of a text that can be shown, [cleaned](Self::clean). The
    /// text is meant to be a URL.
    pub(crate) fn clean_url_text(&self, text: &str) -> String {
        self.clean_part(text, shown_part_of_url)
    }

    /// Returns the part of a text that `part` chooses, cleaned. Secrets are replaced before, because
    /// a part of a secret would not be found.
    fn clean_part(&self, text: &str, part: impl FnOnce(&str) -> String) -> String {
        let text = printable(text);
        let redacted: String = redacted_parts(&text, &self.needles().find(&text)).collect();
        let shown = cut(&part(&redacted));
        // Finds secrets that are too small to be replaced, and those that a replacement completes.
        if self.needles().occur_in(&shown) { REDACTED.to_owned() } else { shown }
    }

    /// Returns true if `text` contains none of the secrets.
    pub(crate) fn is_clean(&self, text: &str) -> bool {
        !self.needles().occur_in(&printable(text))
    }

    fn needles(&self) -> &Needles {
        self.needles.get_or_init(|| Needles::new(&self.secrets))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum NeedleKind {
    /// The beginning of a secret.
    Beginning,
    Complete,
    /// A complete secret that is too small to be replaced.
    Small,
}

/// An automaton that finds all forms of all secrets.
struct Needles {
    /// `None` if there are too many needles. Then they occur in every text.
    automaton: Option<NFA>,
    kinds: Vec<NeedleKind>,
    /// True if a secret consists of backslashes only.
    has_backslash_secret: bool,
}

impl Needles {
    fn new(secrets: &[Zeroizing<String>]) -> Self {
        let mut needles: Vec<_> = secrets.iter().flat_map(|secret| forms(secret)).collect();
        needles.sort_unstable_by(|a, b| (&*a.0, a.1).cmp(&(&*b.0, b.1)));
        // A needle may be the beginning of one secret and another complete one. The beginning is
        // kept, because it comes first.
        needles.dedup_by(|a, b| a.0 == b.0);
        let has_backslash_secret = needles.first().is_some_and(|(needle, _)| needle.is_empty());
        needles.retain(|(needle, _)| !needle.is_empty());
        let automaton = (needles.len() <= MAX_NEEDLES).then(|| {
            let needles = needles.iter().map(|(needle, _)| needle.as_slice());
            NFA::builder().prefilter(false).build(needles).ok()
        });
        let kinds = needles.iter().map(|(_, kind)| *kind).collect();
        Self { automaton: automaton.flatten(), kinds, has_backslash_secret }
    }

    /// Returns the parts of `text` that are replaced, in order and not adjacent.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::<Range<usize>>::new();
        self.search(text, |mut range, kind| {
            if kind == NeedleKind::Beginning {
                range.end = text.len();
            }
            if kind != NeedleKind::Small {
                while let Some(last) = found.pop_if(|last| range.start <= last.end) {
                    range.start = range.start.min(last.start);
                }
                found.push(range);
            }
            kind != NeedleKind::Beginning
        });
        found
    }

    fn occur_in(&self, text: &str) -> bool {
        let mut occur =
            self.automaton.is_none() || (self.has_backslash_secret && text.contains('\\'));
        self.search(text, |_, _| {
            occur = true;
            false
        });
        occur
    }

    /// Calls `on_match` with the largest needle at each position at which a needle ends, until it
    /// returns false. A range begins with the backslashes before the needle.
    fn search(&self, text: &str, mut on_match: impl FnMut(Range<usize>, NeedleKind) -> bool) {
        let Some(automaton) = &self.automaton else { return };
        let Ok(mut state) = automaton.start_state(Anchored::No) else { return };
        // The start of each of the last bytes in `text`, including the backslashes before it.
        let mut starts = [0; MAX_NEEDLE_BYTES];
        let mut end = 0;
        let bytes = text.bytes().enumerate().filter(|(_, byte)| *byte != b'\\');
        for (count, (at, byte)) in bytes.enumerate() {
            starts[count % MAX_NEEDLE_BYTES] = end;
            end = at + 1;
            state = automaton.next_state(Anchored::No, state, byte.to_ascii_lowercase());
            if automaton.is_match(state) {
                // The first needle of a state is the largest: the others are suffixes of it.
                let needle = automaton.match_pattern(state, 0);
                let start = starts[(count + 1 - automaton.pattern_len(needle)) % MAX_NEEDLE_BYTES];
                if !on_match(start..end, self.kinds[needle.as_usize()]) {
                    return;
                }
            }
        }
    }
}

/// Returns the needles for one secret: the secret itself, percent-encoded, and as `Debug` and JSON
/// write it.
fn forms(secret: &str) -> Vec<(Zeroizing<Vec<u8>>, NeedleKind)> {
    if secret.is_empty() {
        return Vec::new();
    }
    let json = escape_for_json(secret);
    let mut forms = vec![
        needle(secret.chars()),
        needle(form_urlencoded::byte_serialize(secret.as_bytes()).flat_map(str::chars)),
        needle(utf8_percent_encode(secret, NOT_UNRESERVED).flat_map(str::chars)),
        needle(secret.escape_debug()),
        needle(json.chars()),
        needle(json.escape_debug()),
    ];
    // Includes backslashes, which a needle lacks.
    let printed_bytes = secret.chars().map(|char| printable_char(char).len_utf8()).sum::<usize>();
    for (needle, kind) in &mut forms {
        if needle.len().max(printed_bytes) < MIN_REPLACED_BYTES {
            *kind = NeedleKind::Small;
        }
    }
    forms
}

/// Returns the bytes that are searched for, which are never more than [`MAX_NEEDLE_BYTES`].
fn needle(form: impl Iterator<Item = char>) -> (Zeroizing<Vec<u8>>, NeedleKind) {
    // One character larger, so that the vector never grows and leaves a copy behind.
    let mut needle = Zeroizing::new(Vec::with_capacity(MAX_NEEDLE_BYTES + 4));
    for char in form.filter(|char| *char != '\\').map(printable_char) {
        let mut buffer = [0; 4];
        needle.extend_from_slice(char.to_ascii_lowercase().encode_utf8(&mut buffer).as_bytes());
        if needle.len() > MAX_NEEDLE_BYTES {
            needle.truncate(MAX_NEEDLE_BYTES);
            return (needle, NeedleKind::Beginning);
        }
    }
    (needle, NeedleKind::Complete)
}

/// Returns `text` as it stands within the quotes of a JSON string.
fn escape_for_json(text: &str) -> Zeroizing<String> {
    // An escape has up to six bytes for one. The vector never grows and leaves a copy behind.
    let mut json = Zeroizing::new(Vec::with_capacity(6 * text.len() + 2));
    let is_written = serde_json::to_writer(&mut *json, text).is_ok();
    let quoted = str::from_utf8(&json).ok().filter(|_| is_written);
    let unquoted = quoted.and_then(|json| json.strip_prefix('"')?.strip_suffix('"'));
    Zeroizing::new(unquoted.unwrap_or(text).to_owned())
}

/// Returns the parts of `text`, with [`REDACTED`] instead of each range.
fn redacted_parts<'a>(text: &'a str, ranges: &'a [Range<usize>]) -> impl Iterator<Item = &'a str> {
    // The texts between the ranges, and after the last one.
    let starts = ranges.iter().map(|range| range.end);
    let ends = ranges.iter().skip(1).map(|range| range.start).chain([text.len()]);
    let first = ranges.first().map_or(text, |range| &text[..range.start]);
    let others = iter::zip(starts, ends).flat_map(|(start, end)| {
        // A secret may end with backslashes.
        [REDACTED, text[start..end].trim_start_matches('\\')]
    });
    iter::once(first).chain(others)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::log_text::MAX_CHARS;

    fn redactor(secrets: &[&str]) -> Redactor {
        Redactor::new(secrets.iter().map(|secret| Zeroizing::new((*secret).to_owned())).collect())
    }

    #[test]
    fn echoed_secret_is_redacted() {
        let clean = redactor(&["s3cret", ""]).clean("bad secret 's3cret', I said s3cret");
        assert_eq!(clean, "bad secret '[redacted]', I said [redacted]");
    }

    #[test]
    fn secret_is_redacted_in_each_form() {
        for secret in ["s3cr+et ~*", "hun\"ter2", "a\u{a0}b\u{1}c\t", "ü\\\"\u{202e}x", "a%41'&/="]
        {
            let redactor = redactor(&[secret]);
            let json = serde_json::to_string(secret).unwrap();
            let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            let url = utf8_percent_encode(secret, NOT_UNRESERVED).to_string();
            for sent in [
                secret.to_owned(),
                secret.to_ascii_uppercase(),
                format!("{secret:?}"),
                format!("{:?}", format!("{secret:?}")),
                format!("{json:?}"),
                json,
                form.to_lowercase(),
                form,
                url,
            ] {
                let text = format!("It was <{sent}> here");
                let clean = redactor.clean(&text);
                assert!(clean.starts_with("It was <"), "{text}: {clean}");
                let clean = clean.replace(['"', '\\'], "");
                assert_eq!(clean, "It was <[redacted]> here", "{text}");
                assert!(!redactor.is_clean(&text), "{text}");
            }
            assert!(redactor.is_clean("It was here"));
        }
    }

    #[test]
    fn overlapping_secrets_become_one_replacement() {
        let redactor = redactor(&["abcd", "cdef", "defghi", "bcde", "xyzw"]);
        assert_eq!(redactor.clean("<abcdefghi>, abcdabcd"), "<[redacted]>, [redacted]");
        assert_eq!(redactor.clean("xyzwabcd-xyz"), "[redacted]-xyz");
    }

    #[test]
    fn secret_is_replaced_before_a_part_of_a_url_is_chosen() {
        let long = format!("/{}/", "p".repeat(160));
        for secret in
            ["s3cret-s3cret-s3cret-s3cret-s3cret", "s3cret?x", "s3cret#x", "s3cret@s3cret"]
        {
            let redactor = redactor(&[secret]);
            for path in ["/", &long] {
                let shown = redactor.clean_url_text(&format!("https://as.test{path}{secret}?q"));
                assert_eq!(shown, format!("https://as.test{path}[redacted]"));
                let Ok(url) = format!("https://as.test{path}{secret}?q").parse() else { continue };
                let shown = redactor.clean_url(&url);
                assert!(!shown.contains("s3c") || secret.contains('#'), "{shown}");
            }
        }
        let redactor = redactor(&["s3cret"]);
        assert_eq!(redactor.clean_url_text("http://u:p@h/s3cret#s3cret"), "http://h/[redacted]");
        assert_eq!(redactor.clean_url(&Uri::from_static("http://h/a@b?q")), "http://h/a@b");
    }

    #[test]
    fn text_with_a_small_secret_is_withheld() {
        let redactor = redactor(&["abc", "abc9", "secret"]);
        assert_eq!(redactor.clean("x ABC y"), REDACTED);
        assert!(!redactor.is_clean("x ABC y"));
        // Here the small secret is only a part of the other one.
        assert_eq!(redactor.clean("x abc9 y"), "x [redacted] y");
        assert_eq!(redactor.clean("my secret"), "my [redacted]");
    }

    #[test]
    fn secret_of_backslashes_is_not_shown() {
        let redactor = redactor(&["\\\\\\\\"]);
        assert_eq!(redactor.clean("a \\\\\\\\ b"), REDACTED);
        assert_eq!(redactor.clean("a b"), "a b");
    }

    #[test]
    fn replacement_that_completes_a_secret_is_withheld() {
        assert_eq!(redactor(&["s3cret", "acted]xy"]).clean("a s3cretxy b"), REDACTED);
        assert_eq!(redactor(&["redacted", "s3cret"]).clean("a s3cret b"), REDACTED);
    }

    #[test]
    fn rest_of_a_text_is_withheld_after_a_large_secret_begins() {
        let secret: String = (0..1000).map(|n| n.to_string() + ";").collect();
        let redactor = redactor(&[&secret]);
        assert_eq!(
            redactor.clean(&format!("the secret {secret} is wrong")),
            "the secret [redacted]"
        );
        assert_eq!(redactor.clean("0;1;2;3;"), "0;1;2;3;");
        let complete = "x".repeat(MAX_NEEDLE_BYTES);
        let clean = self::redactor(&[&complete]).clean(&format!("the secret {complete} is wrong"));
        assert_eq!(clean, "the secret [redacted] is wrong");
    }

    #[test]
    fn repeated_small_secrets_do_not_multiply() {
        // Each replacement contains both letters.
        let redactor = redactor(&["e", "d", "e", "d", "e", "d"]);
        assert_eq!(redactor.clean("e"), REDACTED);
        let text = "ed".repeat(500_000);
        assert_eq!(redactor.clean(&text), REDACTED);
        assert_eq!(redactor.needles().kinds.len(), 2);
    }

    #[test]
    fn text_is_withheld_if_there_are_too_many_secrets() {
        let secrets = (0..1000).map(|n| format!("value-{n}")).collect::<Vec<_>>();
        let secrets = secrets.iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(redactor(&secrets).clean("a text"), REDACTED);
        assert!(!redactor(&secrets).is_clean("a text"));
        assert_eq!(redactor(&secrets[..MAX_NEEDLES]).clean("a text"), "a text");
    }

    #[test]
    fn automaton_of_hostile_secrets_has_bounded_size() {
        // Each secret is a suffix of the next one, or ends with all of them.
        let suffixes = (4..=MAX_NEEDLE_BYTES).map(|length| "a".repeat(length));
        let others = ('!'..).map(|first| format!("{first}{}", "a".repeat(64 * 1024)));
        let secrets = suffixes.chain(others.take(80)).collect::<Vec<_>>();
        let secrets = secrets.iter().map(String::as_str).collect::<Vec<_>>();
        let redactor = redactor(&secrets);
        let memory = redactor.needles().automaton.as_ref().unwrap().memory_usage();
        assert!(memory < 32 << 20, "{memory} bytes");

        let text = "a".repeat(1 << 20);
        let mut matches = 0;
        redactor.needles().search(&text, |_, _| {
            matches += 1;
            true
        });
        assert!(matches <= text.len(), "{matches} matches");
        assert_eq!(redactor.clean(&text), REDACTED);
    }

    /// Texts and secrets of few characters, so that secrets occur, overlap and repeat.
    fn crowded(max_parts: usize) -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[ed\\[\\]]",
            "[ab\"'\\\\ %+&]",
            Just("redacted".to_owned()),
            any::<char>().prop_map(String::from),
        ];
        vec(part, 0..max_parts).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn clean_text_is_short_and_contains_no_secret(
            secrets in vec(crowded(12), 0..8),
            text in crowded(300),
            echoes in vec((any::<prop::sample::Index>(), 0..6_usize), 0..6),
        ) {
            let mut text = text;
            for (index, form) in echoes {
                let Some(secret) = secrets.get(index.index(secrets.len().max(1))) else { break };
                let echo: String = match form {
                    0 => secret.clone(),
                    1 => form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
                    2 => utf8_percent_encode(secret, NOT_UNRESERVED).to_string(),
                    3 => format!("{secret:?}"),
                    4 => serde_json::to_string(secret).unwrap(),
                    _ => format!("{:?}", serde_json::to_string(secret).unwrap()),
                };
                text.push_str(&echo);
            }
            let secrets = secrets.iter().map(String::as_str).collect::<Vec<_>>();
            let redactor = redactor(&secrets);
            let clean = redactor.clean(&text);
            prop_assert!(clean.chars().count() <= MAX_CHARS + 1);
            if clean != REDACTED {
                let clean = clean.trim_end_matches('…');
                prop_assert!(redactor.is_clean(clean));
                for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                    let json = serde_json::to_string(secret).unwrap();
                    for shown in [&**secret, &json[1..json.len() - 1], &printable(secret)] {
                        prop_assert!(!clean.contains(shown), "{secret:?} in {clean:?}");
                    }
                }
            }
            if redactor.is_clean(&text) && text.chars().count() <= MAX_CHARS {
                prop_assert_eq!(clean, printable(&text));
            }
        }
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
}
