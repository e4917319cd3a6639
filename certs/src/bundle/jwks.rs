//! The SPIFFE bundle document: JWKS with `spiffe_sequence` and `spiffe_refresh_hint`.
//!
//! Spec: SPIFFE Trust Domain and Bundle, section 4; X509-SVID section 6.
//!
//! Keys whose `use` is absent or is not `x509-svid` are skipped, as the specification
//! asks. A key that says `x509-svid` and breaks a rule refuses the whole document: a
//! bundle that is half right would silently distrust the other half.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use isthmus_model::TrustDomain;
use serde::{Deserialize, Serialize};

use super::{BUNDLE_BYTES_MAX, BUNDLE_KEYS_MAX, Bundle};
use crate::x509::{CaCertificate, CaInvalid, CaKey};

/// A bundle document that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleInvalid {
    /// A key's certificate is not a CA certificate of the domain.
    #[error("bundle key {key}: {reason}")]
    Authority {
        /// Which key, from 0.
        key: usize,
        /// What is wrong with it.
        reason: CaInvalid,
    },
    /// There is no key for X.509-SVIDs.
    #[error("the bundle has no x509-svid key")]
    Empty,
    /// The document is not JSON of the right form.
    #[error("the bundle is not a JWKS document: {reason} at line {line}, column {column}")]
    Json {
        /// The kind of mistake.
        reason: &'static str,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// There are too many keys.
    #[error("the bundle has {count} keys, at most {limit} are allowed")]
    KeyCount {
        /// Keys in the document.
        count: usize,
        /// Keys allowed.
        limit: usize,
    },
    /// `kty`, `crv`, `x`, `y`, `n` or `e` differ from the certificate.
    #[error("bundle key {key}: its parameters are not those of its certificate")]
    KeyMismatch {
        /// Which key, from 0.
        key: usize,
    },
    /// The document is too large.
    #[error("the bundle has {length} bytes, at most {limit} are allowed")]
    Size {
        /// Bytes received.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// `x5c` does not hold exactly one certificate in base64.
    #[error("bundle key {key}: x5c has {count} certificates, exactly one in base64 is required")]
    X5c {
        /// Which key, from 0.
        key: usize,
        /// How many entries it has.
        count: usize,
    },
}

impl Bundle {
    /// Reads a document that was received for a trust domain.
    ///
    /// # Errors
    ///
    /// [`BundleInvalid`] says which key breaks which rule.
    pub fn from_jwks(trust_domain: &TrustDomain, document: &[u8]) -> Result<Self, BundleInvalid> {
        if document.len() > BUNDLE_BYTES_MAX {
            return Err(BundleInvalid::Size { length: document.len(), limit: BUNDLE_BYTES_MAX });
        }
        // serde_json itself ends at a depth of 128.
        let document: Document = serde_json::from_slice(document).map_err(|error| json(&error))?;
        let count = document.keys.len();
        if count > BUNDLE_KEYS_MAX {
            return Err(BundleInvalid::KeyCount { count, limit: BUNDLE_KEYS_MAX });
        }
        let mut authorities = Vec::new();
        for (index, key) in document.keys.iter().enumerate() {
            if key.purpose.as_deref() == Some(PURPOSE) {
                authorities.push(Arc::new(authority(index, key, trust_domain)?));
            }
        }
        let hint = document.spiffe_refresh_hint.map(Duration::from_secs);
        Self::from_authorities(trust_domain.clone(), document.spiffe_sequence, hint, authorities)
    }

    /// Writes the document.
    pub fn to_jwks(&self) -> Vec<u8> {
        let keys = self.authorities().iter().map(|authority| key(authority)).collect();
        let document = Document {
            keys,
            spiffe_sequence: self.sequence(),
            spiffe_refresh_hint: self.refresh_hint().map(|hint| hint.as_secs()),
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    keys: Vec<Key>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spiffe_sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spiffe_refresh_hint: Option<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Key {
    kty: String,
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    purpose: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    x5c: Vec<String>,
}

fn authority(
    index: usize,
    key: &Key,
    domain: &TrustDomain,
) -> Result<CaCertificate, BundleInvalid> {
    let x5c = || BundleInvalid::X5c { key: index, count: key.x5c.len() };
    let [certificate] = key.x5c.as_slice() else { return Err(x5c()) };
    let der = STANDARD.decode(certificate).map_err(|_| x5c())?;
    let authority = CaCertificate::parse(&der, domain)
        .map_err(|reason| BundleInvalid::Authority { key: index, reason })?;
    if !parameters_match(key, authority.key()) {
        return Err(BundleInvalid::KeyMismatch { key: index });
    }
    Ok(authority)
}

fn parameters_match(key: &Key, of: &CaKey) -> bool {
    let truth = parameters(of);
    // A parameter may be left out, but what is said must be true.
    let agrees = |said: &Option<String>, truth: &Option<String>| said.is_none() || said == truth;
    key.kty == truth.kty
        && agrees(&key.crv, &truth.crv)
        && agrees(&key.x, &truth.x)
        && agrees(&key.y, &truth.y)
        && agrees(&key.n, &truth.n)
        && agrees(&key.e, &truth.e)
}

fn key(authority: &CaCertificate) -> Key {
    let mut key = parameters(authority.key());
    key.purpose = Some(PURPOSE.to_owned());
    key.x5c = vec![STANDARD.encode(authority.der())];
    key
}

fn parameters(key: &CaKey) -> Key {
    let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
    let kty = |kty: &str| kty.to_owned();
    match key {
        CaKey::Ec { curve, x, y } => Key {
            kty: kty("EC"),
            crv: Some((*curve).to_owned()),
            x: text(x),
            y: text(y),
            ..Key::default()
        },
        CaKey::Ed25519 { x } => {
            Key { kty: kty("OKP"), crv: Some("Ed25519".to_owned()), x: text(x), ..Key::default() }
        }
        CaKey::Rsa { n, e } => Key { kty: kty("RSA"), n: text(n), e: text(e), ..Key::default() },
    }
}

fn json(error: &serde_json::Error) -> BundleInvalid {
    let reason = match error.classify() {
        serde_json::error::Category::Data => "a field has the wrong type, or is missing",
        serde_json::error::Category::Eof => "the document is cut short",
        serde_json::error::Category::Io => "the document cannot be read",
        serde_json::error::Category::Syntax => "the document is not JSON",
    };
    BundleInvalid::Json { reason, line: error.line(), column: error.column() }
}

const PURPOSE: &str = "x509-svid";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{self, domain};

    #[expect(clippy::unwrap_in_result, reason = "what fails here is the fixture")]
    fn document(change: impl FnOnce(&mut Value)) -> Result<Bundle, BundleInvalid> {
        let bundle = testing::bundle("west.test", 7, &testing::root("west.test"));
        let mut value: Value = serde_json::from_slice(&bundle.to_jwks()).unwrap();
        change(&mut value);
        Bundle::from_jwks(&domain("west.test"), value.to_string().as_bytes())
    }

    #[test]
    fn a_bundle_survives_its_own_encoding() {
        let roots = [testing::root("west.test"), testing::root("west.test")];
        let roots: Vec<_> = roots.iter().map(|root| root.der.clone()).collect();
        let hint = Some(Duration::from_secs(300));
        let bundle = Bundle::new(domain("west.test"), Some(u64::MAX), hint, &roots).unwrap();
        let read = Bundle::from_jwks(&domain("west.test"), &bundle.to_jwks()).unwrap();
        assert_eq!(read, bundle);
    }

    #[test]
    fn a_sequence_is_an_unsigned_integer_or_absent() {
        for good in [json!(0), json!(7), json!(9_223_372_036_854_775_808_u64)] {
            let expected = good.as_u64();
            let bundle = document(|value| value["spiffe_sequence"] = good).unwrap();
            assert_eq!(bundle.sequence(), expected);
        }
        for bad in
            [json!(1.0), json!("7"), json!(-1), json!(18_446_744_073_709_551_616.0), json!([])]
        {
            let refused = document(|value| value["spiffe_sequence"] = bad.clone());
            assert!(matches!(refused, Err(BundleInvalid::Json { .. })), "{bad}");
        }
    }

    #[test]
    fn only_keys_for_svids_count() {
        for other in [json!("jwt-svid"), json!("sig"), Value::Null] {
            let refused = document(|value| value["keys"][0]["use"] = other);
            assert_eq!(refused.unwrap_err(), BundleInvalid::Empty);
        }
        assert_eq!(document(|value| value["keys"] = json!([])).unwrap_err(), BundleInvalid::Empty);
    }

    #[test]
    fn a_key_has_exactly_one_certificate() {
        let twice = document(|value| {
            let x5c = value["keys"][0]["x5c"][0].clone();
            value["keys"][0]["x5c"] = json!([x5c, x5c]);
        });
        assert_eq!(twice.unwrap_err(), BundleInvalid::X5c { key: 0, count: 2 });
        let none = document(|value| value["keys"][0]["x5c"] = json!([]));
        assert_eq!(none.unwrap_err(), BundleInvalid::X5c { key: 0, count: 0 });
        let garbage = document(|value| value["keys"][0]["x5c"] = json!(["AA*"]));
        assert_eq!(garbage.unwrap_err(), BundleInvalid::X5c { key: 0, count: 1 });
    }

    #[test]
    fn a_leaf_is_not_an_authority() {
        let root = testing::root("west.test");
        let leaf = testing::leaf(&root, &["spiffe://west.test/ns/a/sa/b"]);
        let der = STANDARD.encode(&leaf);
        let refused = document(|value| value["keys"][0]["x5c"] = json!([der]));
        let reason = CaInvalid::NotCa;
        assert_eq!(refused.unwrap_err(), BundleInvalid::Authority { key: 0, reason });
    }

    #[test]
    fn parameters_must_be_those_of_the_certificate() {
        for (field, wrong) in [("kty", "RSA"), ("crv", "P-384"), ("x", "AAAA"), ("n", "AQAB")] {
            let refused = document(|value| value["keys"][0][field] = json!(wrong));
            assert_eq!(refused.unwrap_err(), BundleInvalid::KeyMismatch { key: 0 }, "{field}");
        }
    }

    #[test]
    fn sizes_and_depth_are_bounded() {
        let west = domain("west.test");
        let large = vec![b' '; 50 * 1024 * 1024];
        let refused = Bundle::from_jwks(&west, &large).unwrap_err();
        assert!(matches!(refused, BundleInvalid::Size { .. }));
        let many = json!({ "keys": vec![json!({ "kty": "EC" }); 10_000] }).to_string();
        let refused = Bundle::from_jwks(&west, many.as_bytes()).unwrap_err();
        assert_eq!(refused, BundleInvalid::KeyCount { count: 10_000, limit: BUNDLE_KEYS_MAX });
        let deep = format!("{{\"keys\":[],\"x\":{}", "[".repeat(500_000));
        let refused = Bundle::from_jwks(&west, deep.as_bytes()).unwrap_err();
        assert!(matches!(refused, BundleInvalid::Json { .. }));
    }
}
