//! Reading the lifetime of a token, in each form in which servers send it.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use serde_json::Value;

use super::response_format::ResponseFormat;
use crate::token::UnreadableLifetime;

/// The longest time since an expiry that is still read as one. An earlier expiry is taken for a
/// mistake. The clocks of a server and a proxy may differ, and `Date` has whole seconds.
const MAX_PASSED: Duration = Duration::from_secs(60);

/// Reads the lifetime from the expiry, or else from the number of seconds. Returns `None` if
/// neither can be read. Also returns the first member that is there and cannot be read.
pub(super) fn read_lifetime(
    object: &Value,
    format: &ResponseFormat,
    now: Timestamp,
) -> (Option<Duration>, Option<UnreadableLifetime>) {
    let ResponseFormat { expires_in, expires_at, .. } = format;
    let mut unreadable = None;
    if let Some((pointer, value)) = expires_at.as_ref().and_then(|at| non_null(object, at)) {
        match parse_expires_at(value, now) {
            Some(lifetime) => return (Some(lifetime), None),
            None => unreadable = Some(UnreadableLifetime::expires_at(pointer)),
        }
    }
    let value = non_null(object, expires_in);
    let lifetime = value.and_then(|(_, value)| parse_expires_in(value));
    match (lifetime, value) {
        (Some(_), _) => unreadable = unreadable.map(|member| member.replaced_by(expires_in)),
        (None, Some((pointer, _))) => {
            unreadable = unreadable.or_else(|| Some(UnreadableLifetime::expires_in(pointer)));
        }
        (None, None) => {}
    }
    (lifetime, unreadable)
}

fn non_null<'a>(object: &'a Value, pointer: &'a str) -> Option<(&'a str, &'a Value)> {
    Some((pointer, object.pointer(pointer).filter(|value| !value.is_null())?))
}

/// Parses a lifetime in seconds (RFC 6749 §5.1). Servers send an integer, a float, or a string that
/// contains either. A negative one is a mistake.
fn parse_expires_in(expires_in: &Value) -> Option<Duration> {
    let seconds = number(expires_in).filter(|seconds| *seconds >= 0.0)?;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Parses an expiry, and returns the time until then. It is zero if the expiry has just passed.
fn parse_expires_at(expires_at: &Value, now: Timestamp) -> Option<Duration> {
    let at = match (number(expires_at), expires_at) {
        (Some(number), _) => epoch(number),
        // Some platforms send this date for "never".
        (None, Value::String(text)) if text.trim().starts_with("9999-12-31") => {
            return Some(Duration::MAX);
        }
        (None, Value::String(text)) => parse_date(text.trim()),
        _ => None,
    }?;
    time_until(at, now).or_else(|| {
        time_until(now, at).is_none_or(|passed| passed <= MAX_PASSED).then_some(Duration::ZERO)
    })
}

/// Parses a date of RFC 3339 or RFC 2822.
fn parse_date(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| DateTimeParser::new().parse_timestamp(text).ok())
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// Returns the time that is so many seconds, milliseconds or microseconds after 1970. The number
/// tells the unit: as seconds, 1e11 is a time in the year 5138, and as milliseconds, one in 1973.
fn epoch(number: f64) -> Option<Timestamp> {
    let units_per_second = match number {
        ..1e11 => 1.0,
        ..1e14 => 1e3,
        ..1e17 => 1e6,
        _ => return None,
    };
    let since_1970 = Duration::try_from_secs_f64(number / units_per_second).ok()?;
    Timestamp::UNIX_EPOCH.checked_add(since_1970).ok()
}

/// Returns the time from `now` until `at`, or `None` if `at` has passed.
pub(super) fn time_until(at: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(at.duration_since(now)).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn read(members: &str) -> (Option<Duration>, Option<UnreadableLifetime>) {
        let object: Value = serde_json::from_str(members).unwrap();
        let format = ResponseFormat::default().expires_at("/at").unwrap();
        read_lifetime(&object, &format, NOW.parse().unwrap())
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn expires_in_is_read_in_each_form_that_servers_send() {
        for form in ["3600", "3600.0", r#""3600""#, r#"" 3600 ""#, "3.6e3", r#""3600.0""#] {
            let (lifetime, unreadable) = read(&format!(r#"{{"expires_in":{form}}}"#));
            assert_eq!((lifetime, unreadable), (Some(HOUR), None), "{form}");
        }
        for (form, lifetime) in [
            ("0", Some(Duration::ZERO)),
            ("-0.0", Some(Duration::ZERO)),
            (r#""0""#, Some(Duration::ZERO)),
            ("1e300", Some(Duration::MAX)),
            ("null", None),
        ] {
            let read = read(&format!(r#"{{"expires_in":{form}}}"#));
            assert_eq!(read, (lifetime, None), "{form}");
        }
    }

    #[test]
    fn unreadable_expires_in_is_like_a_missing_one_with_a_warning() {
        for form in [
            r#""""#,
            r#""two minutes""#,
            "false",
            "[]",
            "{}",
            "-1",
            r#""-1""#,
            r#""1e400""#,
            r#""NaN""#,
            r#""inf""#,
            "[3600]",
        ] {
            let (lifetime, unreadable) = read(&format!(r#"{{"expires_in":{form}}}"#));
            assert_eq!(lifetime, None, "{form}");
            assert_eq!(unreadable, Some(UnreadableLifetime::expires_in("/expires_in")), "{form}");
        }
    }

    #[test]
    fn expires_at_is_read_in_each_form_that_servers_send() {
        for form in [
            r#""2026-01-01T01:00:00Z""#,
            r#""2026-01-01 01:00:00.0Z""#,
            r#""2026-01-01T02:00:00+01:00""#,
            r#""Thu, 01 Jan 2026 01:00:00 GMT""#,
            r#""Thu, 1 Jan 2026 02:00:00 +0100""#,
            "1767229200",
            "1767229200.0",
            r#""1767229200""#,
            r#"" 1767229200 ""#,
            "1767229200000",
            r#""1767229200000""#,
            "1767229200000000",
            "1.7672292e9",
        ] {
            let (lifetime, unreadable) = read(&format!(r#"{{"at":{form},"expires_in":60}}"#));
            assert_eq!((lifetime, unreadable), (Some(HOUR), None), "{form}");
        }
        let (never, _) = read(r#"{"at":"9999-12-31T23:59:59Z"}"#);
        assert_eq!(never, Some(Duration::MAX));
        assert_eq!(read(r#"{"at":null,"expires_in":60}"#).0, Some(Duration::from_secs(60)));
    }

    #[test]
    fn unreadable_expires_at_is_replaced_by_expires_in() {
        for form in [
            r#""""#,
            r#""tomorrow""#,
            r#""1/16/2030 5:24:12 AM +00:00""#,
            r#""2026-01-01T01:00:00""#,
            "true",
            "[]",
            "3600",
            "-1",
            "1e300",
            "9223372036854775807",
            r#""1999-01-01T00:00:00Z""#,
        ] {
            let (lifetime, unreadable) = read(&format!(r#"{{"at":{form},"expires_in":3600}}"#));
            assert_eq!(lifetime, Some(HOUR), "{form}");
            let expected = UnreadableLifetime::expires_at("/at");
            assert_eq!(unreadable, Some(expected.clone().replaced_by("/expires_in")), "{form}");
            for alone in [r#"{"at":FORM}"#, r#"{"at":FORM,"expires_in":"soon"}"#] {
                let (lifetime, unreadable) = read(&alone.replace("FORM", form));
                assert_eq!((lifetime, unreadable), (None, Some(expected.clone())), "{form}");
            }
        }
    }

    #[test]
    fn expiry_that_has_just_passed_is_a_lifetime_of_zero() {
        for (at, lifetime) in [
            ("2026-01-01T00:00:00Z", Some(Duration::ZERO)),
            ("2025-12-31T23:59:00Z", Some(Duration::ZERO)),
            ("2025-12-31T23:58:59Z", None),
        ] {
            assert_eq!(read(&format!(r#"{{"at":"{at}"}}"#)).0, lifetime, "{at}");
        }
    }
}
