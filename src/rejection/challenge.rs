//! The challenges of a response that rejects a token (RFC 6750 §3, RFC 9110 §11.6.1).

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
use http_auth::parser::ChallengeParser;

use crate::{telemetry::SuppressReason, token::Scheme};

/// Returns the reason why a new token cannot help, if a challenge states one.
///
/// `scheme` is the scheme of the rejected token. Only its challenges count, and those without a
/// scheme name: many APIs send challenges of other schemes for a rejected bearer token. Malformed
/// challenges are ignored. A needless refresh is bounded by the circuit breaker, but a rejected
/// token that is not replaced fails all requests.
pub(super) fn reason_against_refresh(
    headers: &HeaderMap,
    scheme: Scheme,
) -> Option<SuppressReason> {
    headers.get_all(WWW_AUTHENTICATE).iter().find_map(|line| reason_in_line(line, scheme))
}

fn reason_in_line(line: &HeaderValue, scheme: Scheme) -> Option<SuppressReason> {
    let line = text_with_scheme(line, scheme);
    ChallengeParser::new(&line)
        .map_while(Result::ok)
        .filter(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme.name()))
        .flat_map(|challenge| challenge.params)
        .filter(|(name, _)| name.eq_ignore_ascii_case("error"))
        .find_map(|(_, value)| match value.to_unescaped().as_str() {
            "insufficient_scope" => Some(SuppressReason::InsufficientScope),
            "insufficient_user_authentication" => {
                Some(SuppressReason::InsufficientUserAuthentication)
            }
            _ => None,
        })
}

/// Returns a line as text. If it begins with a parameter, the scheme is put in front. The parser
/// accepts only ASCII, so other bytes are replaced.
fn text_with_scheme(line: &HeaderValue, scheme: Scheme) -> String {
    let ascii = |byte: &u8| if byte.is_ascii() { char::from(*byte) } else { '?' };
    let text: String = line.as_bytes().iter().map(ascii).collect();
    let text = text.trim_start_matches([' ', '\t', ',']);
    match text.split_once('=') {
        Some((name, _)) if !name.trim_end().contains([' ', '\t', ',', '"']) => {
            format!("{} {text}", scheme.name())
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(lines: &[&'static str]) -> Option<SuppressReason> {
        let lines = lines.iter().map(|line| (WWW_AUTHENTICATE, HeaderValue::from_static(line)));
        reason_against_refresh(&lines.collect(), Scheme::Bearer)
    }

    #[test]
    fn any_scheme_calls_for_a_new_token() {
        for lines in [
            &[][..],
            &["Bearer"],
            &[r#"Bearer realm="example""#],
            &[
                r#"Bearer realm="example", error="invalid_token", error_description="The access token expired""#,
            ],
            &[
                r#"Bearer realm="api", error="invalid_token", error_description="x", DPoP algs="ES256 PS256""#,
            ],
            &[r#"bearer error="missing_authorization""#],
            &[r#"Basic realm="a""#, r#"Bearer realm="b""#],
            &[r#"Basic realm="a, Bearer", BEARER error=invalid_token"#],
            &[r#"Negotiate, Bearer realm="x""#],
            &[r#"Basic realm="api""#],
            &["Token"],
            &[r#"JWT realm="x""#],
            &["Negotiate"],
            &[r#"OAuth realm="x", error="invalid_token""#],
            &[r#"Basic realm="a, Bearer error=\"insufficient_scope\"""#],
            &[r#"OAuth error="insufficient_scope""#],
            &[r#"Bearer realm="insufficient_scope""#],
            &[r#"Bearer realm="x", Basic error="insufficient_scope""#],
            &[r#"DPoP algs="ES256", error="use_dpop_nonce""#],
            &["Negotiate", r#"Digest realm="x", nonce="y""#],
            &[r#"error="invalid_token""#],
        ] {
            assert_eq!(reason(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn missing_scope_or_step_up_calls_for_no_new_token() {
        for lines in [
            &[r#"Bearer error="insufficient_scope", scope="a b""#][..],
            &["bearer Error=insufficient_scope"],
            &[r#"Basic realm="a", Bearer realm="b", error="insufficient_scope""#],
            &[r#"Basic realm="a""#, r#"Bearer realm="b, c", error="insufficient_scope""#],
            &["\"malformed", r#"Bearer error="insufficient_scope""#],
            &[r#"error="insufficient_scope""#],
            &[r#"realm="a b", error = "insufficient_scope""#],
        ] {
            assert_eq!(reason(lines), Some(SuppressReason::InsufficientScope), "{lines:?}");
        }
        assert_eq!(
            reason(&[r#"Bearer error="insufficient_user_authentication", acr_values="x""#]),
            Some(SuppressReason::InsufficientUserAuthentication)
        );
    }

    #[test]
    fn realm_beyond_ascii_does_not_hide_the_error() {
        let line = "Bearer realm=\"Zürich\", error=\"insufficient_scope\"";
        let line = HeaderValue::from_bytes(line.as_bytes()).unwrap();
        assert_eq!(reason_in_line(&line, Scheme::Bearer), Some(SuppressReason::InsufficientScope));
    }

    #[test]
    fn scheme_of_the_token_decides_which_challenges_count() {
        let headers =
            |value| HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_static(value))]);
        let (basic, bearer) =
            (headers("Basic error=insufficient_scope"), headers("Bearer error=insufficient_scope"));
        assert!(reason_against_refresh(&basic, Scheme::Basic).is_some());
        assert!(reason_against_refresh(&bearer, Scheme::Basic).is_none());
    }

    #[test]
    fn malformed_challenge_does_not_prevent_a_new_token() {
        for lines in [&["\"", "Basic x"][..], &["Bearer realm=\"unclosed"], &["="], &[",,,"], &[""]]
        {
            assert_eq!(reason(lines), None, "{lines:?}");
        }
    }
}
