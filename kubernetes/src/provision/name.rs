//! Names of what is made for an object whose name is longer than theirs may be.
//!
//! A Gateway's name has up to 253 characters, with dots; a Service's has 63, without, and
//! begins with a letter, and so does a segment of an identity. A name that does not fit
//! is cut and gets a hash of the whole, so that two long names stay two. The hash is part
//! of identities: it must be the same in every version of the product.

use isthmus_model::{InvalidName, Label};

/// The name of what is made for an object.
///
/// # Errors
///
/// [`InvalidName`] for a suffix that is no end of a DNS label.
pub(super) fn object_name(name: &str, suffix: &str) -> Result<Label, InvalidName> {
    let has_letter = name.starts_with(|c: char| c.is_ascii_lowercase());
    let fits = name.len() + suffix.len() <= LABEL_CHARS_MAX;
    if fits && has_letter && !name.contains('.') {
        return Label::new(&format!("{name}{suffix}"));
    }
    let prefix = if has_letter { "" } else { DIGIT_PREFIX };
    let plain = format!("{prefix}{}", name.replace('.', "-"));
    Label::new(&cut(&plain, &format!("-{:08x}{suffix}", hash(name.as_bytes()))))
}

/// The value of a label that names an object: the name, cut where it is too long.
///
/// Spec: Kubernetes label values have at most 63 characters.
pub(super) fn label_value(name: &str) -> String {
    if name.len() <= LABEL_CHARS_MAX {
        return name.to_owned();
    }
    cut(name, &format!("-{:08x}", hash(name.as_bytes())))
}

fn cut(name: &str, tail: &str) -> String {
    let head: String = name.chars().take(LABEL_CHARS_MAX.saturating_sub(tail.len())).collect();
    format!("{}{tail}", head.trim_end_matches(['-', '.']))
}

/// FNV-1a of 32 bits.
///
/// Spec: draft-eastlake-fnv.
pub(super) fn hash(bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(FNV_PRIME);
    bytes.iter().fold(FNV_OFFSET, step)
}

/// Spec: RFC 1035 section 2.3.4.
const LABEL_CHARS_MAX: usize = 63;
/// Before a name that begins with a digit: a Service's must begin with a letter.
const DIGIT_PREFIX: &str = "g-";
const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str) -> String {
        object_name(name, "-isthmus").unwrap().to_string()
    }

    #[test]
    fn a_name_that_fits_keeps_its_form() {
        assert_eq!(made("edge"), "edge-isthmus");
        let longest = "a".repeat(55);
        assert_eq!(made(&longest), format!("{longest}-isthmus"));
    }

    #[test]
    fn a_name_that_does_not_fit_is_cut_and_hashed() {
        assert_eq!(made("a.b"), format!("a-b-{:08x}-isthmus", hash(b"a.b")));
        assert_ne!(made("a.b"), made("a-b"));
        assert!(made("9a").starts_with("g-9a-"));
        let (one, other) = ("a".repeat(253), "a".repeat(252) + "b");
        assert_eq!(made(&one).len(), 63);
        assert_ne!(made(&one), made(&other));
        let dotted = "a".repeat(44) + ".-." + &"b".repeat(100);
        assert!(made(&dotted).len() < 63, "no dash before the dash of the hash");
        assert_eq!(label_value(&one).len(), 63);
        assert_eq!(label_value("a.b"), "a.b");
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(hash(b""), 0x811c_9dc5);
        assert_eq!(hash(b"foobar"), 0xbf9c_f968);
    }
}
