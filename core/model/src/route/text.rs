//! Serde for `http`'s types by their text.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(super) fn serialize<T: AsRef<str>, S: Serializer>(v: &T, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(v.as_ref())
}

pub(super) fn deserialize<'de, T, D>(d: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    String::deserialize(d)?.parse().map_err(D::Error::custom)
}

pub(super) mod option {
    use super::*;

    pub(in super::super) fn serialize<T: AsRef<str>, S: Serializer>(
        v: &Option<T>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match v {
            Some(v) => s.serialize_some(v.as_ref()),
            None => s.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, T, D>(d: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(d)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

pub(super) mod list {
    use http::HeaderName;
    use serde::Serialize;

    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        v: &[HeaderName],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        v.iter().map(HeaderName::as_str).collect::<Vec<_>>().serialize(s)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<HeaderName>, D::Error> {
        let texts = Vec::<String>::deserialize(d)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}

pub(super) mod pairs {
    use http::{HeaderName, HeaderValue};
    use serde::Serialize;

    use super::*;

    type Pairs = Vec<(HeaderName, HeaderValue)>;

    pub(in super::super) fn serialize<S: Serializer>(
        v: &[(HeaderName, HeaderValue)],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        let lossless = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let texts: Vec<(&str, String)> =
            v.iter().map(|(name, value)| (name.as_str(), lossless(value))).collect();
        texts.serialize(s)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Pairs, D::Error> {
        let texts = Vec::<(String, String)>::deserialize(d)?;
        texts
            .iter()
            .map(|(name, value)| {
                let name = name.parse().map_err(D::Error::custom)?;
                Ok((name, HeaderValue::from_str(value).map_err(D::Error::custom)?))
            })
            .collect()
    }
}

/// Serde for a status code by its number.
pub(super) mod status {
    use http::StatusCode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(
        v: &StatusCode,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_u16(v.as_u16())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<StatusCode, D::Error> {
        StatusCode::from_u16(u16::deserialize(d)?).map_err(D::Error::custom)
    }
}
