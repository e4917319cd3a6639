//! Rules of single values that several kinds share.

use std::time::Duration;

use isthmus_model::Hostname;

use crate::error::{At, FieldError, Reason, excerpt};

/// A port number, 1 to 65535.
pub(super) fn port(number: i64) -> Result<u16, Reason> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(Reason::value(number, "a port number, 1 to 65535")),
    }
}

/// At most `limit` entries.
pub(super) fn at_most<T>(field: &str, list: &[T], limit: usize) -> Result<(), FieldError> {
    if list.len() > limit {
        return Err(FieldError::new(field, Reason::TooMany { count: list.len(), limit }));
    }
    Ok(())
}

/// At least one entry.
pub(super) fn not_empty<T>(field: &str, list: &[T]) -> Result<(), FieldError> {
    if list.is_empty() {
        return Err(FieldError::rule(field, "must have at least one entry"));
    }
    Ok(())
}

/// Each entry once.
pub(super) fn distinct<'v, T: Ord + ToString + 'v>(
    field: impl Fn(usize) -> String,
    values: impl IntoIterator<Item = T>,
) -> Result<(), FieldError> {
    let mut seen = std::collections::BTreeSet::new();
    for (index, value) in values.into_iter().enumerate() {
        let text = value.to_string();
        if !seen.insert(value) {
            return Err(FieldError::new(field(index), Reason::duplicate(text)));
        }
    }
    Ok(())
}

/// A hostname pattern; a wildcard only where `wildcard` says so.
///
/// Spec: Gateway API `Hostname`: "IPs are not allowed".
pub(super) fn hostname(text: &str, wildcard: bool) -> Result<Hostname, Reason> {
    let host = Hostname::new(text)?;
    let number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    if text.rsplit('.').next().is_some_and(number) {
        return Err(Reason::value(text, "a hostname: addresses are not allowed here"));
    }
    if host.is_wildcard() && !wildcard {
        return Err(Reason::value(text, "an exact hostname: a wildcard is not allowed here"));
    }
    Ok(host)
}

/// A duration; zero means no limit and is `None`.
///
/// Spec: GEP-2257: `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.
pub(super) fn duration(text: &str) -> Result<Option<Duration>, Reason> {
    let form = || Reason::value(text, "a duration like 1h30m, 10s or 500ms");
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..DURATION_PARTS_MAX {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > DURATION_DIGITS_MAX {
            return Err(form());
        }
        let (number, unit) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| form())?;
        let (part, after) = if let Some(after) = unit.strip_prefix("ms") {
            (Duration::from_millis(number), after)
        } else if let Some(after) = unit.strip_prefix('s') {
            (Duration::from_secs(number), after)
        } else if let Some(after) = unit.strip_prefix('m') {
            (Duration::from_secs(number * 60), after)
        } else if let Some(after) = unit.strip_prefix('h') {
            (Duration::from_secs(number * 3600), after)
        } else {
            return Err(form());
        };
        total += part;
        rest = after;
        if rest.is_empty() {
            return Ok((!total.is_zero()).then_some(total));
        }
    }
    Err(form())
}

/// `host:port`, with IPv6 addresses in brackets.
pub(super) fn host_and_port(text: &str) -> Result<(), Reason> {
    let form =
        || Reason::value(text, "an address like gw.example.com:15443 or [2001:db8::1]:15443");
    if text.parse::<std::net::SocketAddr>().is_ok_and(|address| address.port() > 0) {
        return Ok(());
    }
    let (host, number) = text.rsplit_once(':').ok_or_else(form)?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(form());
    }
    port(number.parse().map_err(|_| form())?)?;
    hostname(host, false).map(drop)
}

/// The value of a field that only some texts are legal for.
pub(super) fn one_of<T: Copy>(
    field: &str,
    text: &str,
    known: &[(&str, T)],
    form: &'static str,
) -> Result<T, FieldError> {
    let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| Reason::Value { value: excerpt(text), form }).at(field)
}

const DURATION_PARTS_MAX: usize = 4;
const DURATION_DIGITS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_gep_2257() {
        let good = |text: &str| duration(text).unwrap();
        assert_eq!(good("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(good("1m500ms"), Some(Duration::from_millis(60_500)));
        assert_eq!(good("0s"), None);
        assert_eq!(good("99999h"), Some(Duration::from_secs(99_999 * 3600)));
        for bad in ["", "1", "s", "1.5s", "-1s", "123456s", "1h1h1h1h1h", "1d", "1us", "1 s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hostnames_are_not_addresses() {
        for bad in ["127.0.0.1", "10.1", "A.example", "*", "a..b", "a.example.", "::1", "*.*.x"] {
            assert!(hostname(bad, true).is_err(), "{bad}");
        }
        assert!(hostname("*.example.com", true).is_ok());
        assert!(hostname("*.example.com", false).is_err());
        assert!(hostname("1.example", true).is_ok());
    }

    #[test]
    fn addresses_of_links_need_a_host_and_a_port() {
        for good in ["127.0.0.1:15443", "[::1]:15443", "gw.example.com:1"] {
            assert!(host_and_port(good).is_ok(), "{good}");
        }
        for bad in ["gw", "gw:0", ":15443", "::1:15443", "gw:65536", "gw:+1", "a b:1", "1.2.3:4"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
