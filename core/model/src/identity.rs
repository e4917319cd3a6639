//! SPIFFE identities: trust domains and ids, and nothing that is almost one.
//!
//! Spec: SPIFFE-ID sections 2.1 to 2.4. We are stricter than the specification where
//! it lets implementations choose: no percent coding, no empty or dot segments.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{InvalidName, Label, excerpt};

/// A SPIFFE trust domain, for example `aws-us-east.demo`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Checks the text and makes the trust domain.
    ///
    /// Spec: SPIFFE-ID section 2.1: lower-case letters, digits, `.`, `-`, `_`; at most
    /// 255 bytes.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says which rule the text breaks.
    pub fn new(value: &str) -> Result<Self, InvalidName> {
        let kind = "trust domain";
        if value.is_empty() {
            return Err(InvalidName::Empty { kind });
        }
        if value.len() > TRUST_DOMAIN_BYTES_MAX {
            let (length, limit) = (value.len(), TRUST_DOMAIN_BYTES_MAX);
            return Err(InvalidName::Length { kind, length, limit });
        }
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if !value.bytes().all(good) {
            let allowed = "lower-case letters, digits, '.', '-' and '_'";
            return Err(InvalidName::Character { kind, value: excerpt(value), allowed });
        }
        Ok(Self(Arc::from(value)))
    }

    /// The trust domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A SPIFFE ID: `spiffe://<trust-domain>/<path>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    /// Reads a SPIFFE ID.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when the text is not exactly `spiffe://<trust-domain>/<path>` with
    /// a path of non-empty segments of `[a-zA-Z0-9._-]` that are neither `.` nor `..`, or
    /// has more than 2048 bytes.
    pub fn parse(value: &str) -> Result<Self, InvalidName> {
        let kind = "SPIFFE ID";
        if value.len() > SPIFFE_ID_BYTES_MAX {
            let (length, limit) = (value.len(), SPIFFE_ID_BYTES_MAX);
            return Err(InvalidName::Length { kind, length, limit });
        }
        let form = || InvalidName::Form {
            kind,
            value: excerpt(value),
            form: "spiffe://<trust-domain>/<path>",
        };
        let rest = value.strip_prefix("spiffe://").ok_or_else(form)?;
        let (domain, path) = rest.split_once('/').ok_or_else(form)?;
        let trust_domain = TrustDomain::new(domain)?;
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        for segment in path.split('/') {
            if matches!(segment, "" | "." | "..") || !segment.bytes().all(good) {
                return Err(form());
            }
        }
        Ok(Self { text: Arc::from(value), trust_domain })
    }

    /// The identity of a workload: `spiffe://<td>/ns/<namespace>/sa/<service-account>`.
    pub fn workload(trust_domain: &TrustDomain, namespace: &Label, account: &Label) -> Self {
        let text = format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}");
        Self { text: Arc::from(text), trust_domain: trust_domain.clone() }
    }

    /// The whole ID as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain whose bundle alone may vouch for this ID.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Namespace and service account, when the path has the workload form.
    pub fn namespace_and_account(&self) -> Option<(&str, &str)> {
        let start = "spiffe://".len() + self.trust_domain.as_str().len();
        let rest = self.text[start..].strip_prefix("/ns/")?;
        let (namespace, account) = rest.split_once("/sa/")?;
        (!namespace.contains('/') && !account.contains('/')).then_some((namespace, account))
    }
}

macro_rules! text_traits {
    ($name:ident, $parse:path) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(value: String) -> Result<Self, InvalidName> {
                $parse(&value)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(value: &str) -> Result<Self, InvalidName> {
                $parse(value)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.as_str().to_owned()
            }
        }
    };
}

text_traits!(TrustDomain, TrustDomain::new);
text_traits!(SpiffeId, SpiffeId::parse);

const TRUST_DOMAIN_BYTES_MAX: usize = 255;
const SPIFFE_ID_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workload_ids_round_trip() {
        let domain = TrustDomain::new("east.test").unwrap();
        let (ns, sa) = (Label::new("pay").unwrap(), Label::new("api").unwrap());
        let id = SpiffeId::workload(&domain, &ns, &sa);
        assert_eq!(SpiffeId::parse(id.as_str()), Ok(id.clone()));
        assert_eq!(id.namespace_and_account(), Some(("pay", "api")));
    }

    /// The shapes of security.md F-01.
    #[test]
    fn ids_that_are_almost_spiffe_are_refused() {
        for bad in [
            "spiffe://east.test",
            "SPIFFE://EAST.TEST/ns/a/sa/b",
            "spiffe://east.test:443/x",
            "spiffe://u@east.test/x",
            "spiffe://east.test/ns/%2e%2e/x",
            "spiffe://east.test/ns/a/../b",
            "spiffe://east.test//x",
            "spiffe://east.test/x/",
            "spiffe://east.test/x?q",
            "spiffe://east.test/x#f",
            "spiffe://east.test/\u{e9}",
            "spiffe://east.test/a\0",
            "https://east.test/a",
            "",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
        let long = format!("spiffe://east.test/{}", "a".repeat(2048));
        assert!(SpiffeId::parse(&long).is_err());
    }
}
