//! The scope values that were requested and not granted (RFC 6749 §3.3).

use std::collections::HashSet;

/// Returns the values of the requested scope that the granted scope lacks, separated by spaces.
/// Returns `None` if it has all of them.
///
/// Values are separated by spaces (RFC 6749 §3.3). Some servers separate those that they grant by
/// commas.
pub(super) fn missing_scope(requested: &str, granted: &str) -> Option<String> {
    let granted: HashSet<_> = granted.split(' ').chain(granted.split([' ', ','])).collect();
    let requested = requested.split(' ').filter(|value| !value.is_empty());
    let missing: Vec<_> = requested.filter(|value| !granted.contains(value)).collect();
    (!missing.is_empty()).then(|| missing.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_scope_has_the_values_that_were_not_granted() {
        for (requested, granted, missing) in [
            ("a", "a", None),
            ("a b", "b a c", None),
            ("a b", "a,b", None),
            ("a,b", "c a,b", None),
            ("", "a", None),
            (" a  b ", "a b", None),
            ("a b c", "b", Some("a c")),
            ("a", "", Some("a")),
            ("orders:read", "orders:READ orders", Some("orders:read")),
            ("orders", "orders:read", Some("orders")),
        ] {
            assert_eq!(missing_scope(requested, granted).as_deref(), missing, "{requested:?}");
        }
    }
}
