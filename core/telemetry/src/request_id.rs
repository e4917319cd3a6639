//! `x-request-id`: kept when it is harmless, made when it is not there.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::trace_context::IdSource;

/// The header that carries the request id.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's request id: there once, 1 to 128 visible ASCII characters.
pub fn kept_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(&REQUEST_ID).iter();
    let value = values.next()?;
    let short = (1..=REQUEST_ID_BYTES_MAX).contains(&value.len());
    let valid = short && value.as_bytes().iter().all(u8::is_ascii_graphic);
    (valid && values.next().is_none()).then(|| value.clone())
}

/// A new request id in the form of a version 4 UUID.
pub fn make_request_id(random: u128) -> HeaderValue {
    let mut bytes = random.to_be_bytes();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = [b'-'; 36];
    for (range, part) in
        [(0..8, 0..4), (9..13, 4..6), (14..18, 6..8), (19..23, 8..10), (24..36, 10..16)]
    {
        crate::trace_context::write_hex(&mut text[range], &bytes[part]);
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
}

/// Keeps or makes the request id, puts it into the headers and returns it.
pub fn ensure_request_id(headers: &mut HeaderMap, ids: &mut IdSource) -> HeaderValue {
    if let Some(value) = kept_request_id(headers) {
        return value;
    }
    let value = make_request_id(ids.random());
    // A map that is full goes without; heads are bounded far below.
    let _ = headers.try_insert(&REQUEST_ID, value.clone());
    value
}

const REQUEST_ID_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_id_is_kept_and_any_other_is_replaced() {
        let mut ids = IdSource::from_seed([1; 32]);
        let mut check = |value: &[u8], kept: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(&REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            let id = ensure_request_id(&mut headers, &mut ids);
            assert_eq!(id.as_bytes() == value, kept, "{value:?}");
            assert_eq!(headers[&REQUEST_ID], id);
        };
        check(b"abc-123", true);
        check(&[b'x'; 128], true);
        check(&[b'x'; 129], false);
        check(&[b'x'; 65536], false);
        check(b"", false);
        check(b"a b", false);
        check("a\u{202e}".as_bytes(), false);
        check(b"\xff", false);
    }

    #[test]
    fn repeated_ids_become_one() {
        let mut headers = HeaderMap::new();
        headers.append(&REQUEST_ID, HeaderValue::from_static("a"));
        headers.append(&REQUEST_ID, HeaderValue::from_static("b"));
        ensure_request_id(&mut headers, &mut IdSource::from_seed([1; 32]));
        assert_eq!(headers.get_all(&REQUEST_ID).iter().count(), 1);
    }

    #[test]
    fn made_ids_are_version_4_uuids() {
        let id = make_request_id(u128::MAX);
        assert_eq!(id, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
