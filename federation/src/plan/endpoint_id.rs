//! Ids of endpoints that say nothing about them.
//!
//! An id is a keyed hash, so it neither tells an address nor can be guessed: a peer can
//! name only what it was told of. The port goes into the hash, so that a peer that may see
//! one port cannot name the endpoints of another.

use std::fmt;

use aws_lc_rs::hmac;
use isthmus_model::EndpointId;

use crate::proto::ServiceName;

/// The key of the hash, kept for the life of the cluster so that ids stay the same.
#[derive(Clone)]
pub struct EndpointSecret {
    key: hmac::Key,
}

impl EndpointSecret {
    /// A secret of these random bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, bytes) }
    }

    /// The id that peers get for a local endpoint.
    pub fn endpoint_id(&self, service: &ServiceName, port: u16, local: &EndpointId) -> EndpointId {
        // None of the parts may contain '/', so no two inputs have one text.
        let text = format!("{service}/{port}/{local}");
        let tag = hmac::sign(&self.key, text.as_bytes());
        let mut id = String::with_capacity(2 * ID_BYTES);
        for byte in tag.as_ref().iter().take(ID_BYTES) {
            for digit in [byte >> 4, byte & 15] {
                id.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        EndpointId::new(&id).expect("32 hexadecimal digits are an endpoint id")
    }
}

impl fmt::Debug for EndpointSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointSecret(..)")
    }
}

/// 128 bits: nobody guesses one, and no two endpoints share one.
const ID_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use isthmus_model::Label;

    use super::*;

    #[test]
    fn ids_are_stable_and_differ_by_service_port_endpoint_and_cluster() {
        let label = |text| Label::new(text).unwrap();
        let (cart, pay) = (
            ServiceName::new(label("a"), label("cart")),
            ServiceName::new(label("a"), label("pay")),
        );
        let secret = EndpointSecret::new(&[1; 32]);
        let local = EndpointId::new("10-0-0-1").unwrap();
        let id = secret.endpoint_id(&cart, 80, &local);
        assert_eq!(id, EndpointSecret::new(&[1; 32]).endpoint_id(&cart, 80, &local));
        assert_eq!(id.as_str().len(), 32);
        assert!(!id.as_str().contains("10-0"));
        assert_ne!(id, secret.endpoint_id(&pay, 80, &local));
        assert_ne!(id, secret.endpoint_id(&cart, 81, &local));
        assert_ne!(id, EndpointSecret::new(&[2; 32]).endpoint_id(&cart, 80, &local));
        assert_eq!(format!("{secret:?}"), "EndpointSecret(..)");
    }
}
