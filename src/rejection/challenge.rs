//! The challenges of a response that rejects a token (RFC 6750 §3, RFC 9110 §11.6.1).

use http::{HeaderMap, header::WWW_AUTHENTICATE};
use http_auth::parser::ChallengeParser;

use crate::token::Scheme;

/// Returns true if a new token may help. It cannot help if the token lacks a scope, or if the
/// server wants another scheme. Without a challenge, or with one that is malformed, it may.
///
/// `scheme` is the scheme of the rejected token.
pub(super) fn new_token_may_help(headers: &HeaderMap, scheme: Scheme) -> bool {
    let mut same = false;
    let mut other = false;
    for line in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(line) = line.to_str() else { return true };
        for challenge in ChallengeParser::new(line) {
            let Ok(challenge) = challenge else { return true };
            if !challenge.scheme.eq_ignore_ascii_case(scheme.name()) {
                other = true;
                continue;
            }
            same = true;
            let lacks_scope = challenge.params.iter().any(|(name, value)| {
                name.eq_ignore_ascii_case("error") && value.to_unescaped() == "insufficient_scope"
            });
            if lacks_scope {
                return false;
            }
        }
    }
    same || !other
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn may_help(lines: &[&'static str]) -> bool {
        let lines = lines.iter().map(|line| (WWW_AUTHENTICATE, HeaderValue::from_static(line)));
        new_token_may_help(&lines.collect(), Scheme::Bearer)
    }

    #[test]
    fn bearer_challenge_or_none_calls_for_a_new_token() {
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
            &[r#"Bearer realm="Service",error="invalid_token""#],
            &[r#"bearer error="missing_authorization""#],
            &[r#"Basic realm="a""#, r#"Bearer realm="b""#],
            &[r#"Basic realm="a, Bearer", BEARER error=invalid_token"#],
            &[r#"Negotiate, Bearer realm="x""#],
        ] {
            assert!(may_help(lines), "{lines:?}");
        }
    }

    #[test]
    fn missing_scope_or_another_scheme_calls_for_no_new_token() {
        for lines in [
            &[r#"Bearer error="insufficient_scope", scope="a b""#][..],
            &["bearer Error=insufficient_scope"],
            &[r#"Basic realm="a", Bearer realm="b", error="insufficient_scope""#],
            &[r#"Basic realm="a""#, r#"Bearer realm="b, c", error="insufficient_scope""#],
            &[r#"Basic realm="Bearer""#],
            &[r#"Basic realm="a, Bearer error=\"invalid_token\"""#],
            &["Negotiate"],
            &[r#"DPoP algs="ES256", error="use_dpop_nonce""#],
            &["Negotiate", r#"Digest realm="x", nonce="y""#],
        ] {
            assert!(!may_help(lines), "{lines:?}");
        }
    }

    #[test]
    fn basic_challenge_matches_a_basic_credential() {
        let headers =
            |value| HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_static(value))]);
        assert!(new_token_may_help(&headers("Basic"), Scheme::Basic));
        assert!(!new_token_may_help(&headers("Bearer"), Scheme::Basic));
    }

    #[test]
    fn malformed_challenge_does_not_prevent_a_new_token() {
        for lines in [&["\"", "Basic x"][..], &["Bearer realm=\"unclosed"], &["="], &[",,,"], &[""]]
        {
            assert!(may_help(lines), "{lines:?}");
        }
    }
}
