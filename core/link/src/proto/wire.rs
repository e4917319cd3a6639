//! Fields: `tag u8, length u16, value`, all integers big-endian.
//!
//! A body is a sequence of fields. A reader takes the fields that it knows and skips the
//! rest, so a newer peer may add fields without harm; a known field that comes twice, or
//! with the wrong length, is an error, because two readers could otherwise disagree.

/// Bytes that are not what the protocol says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field that must come once came twice.
    #[error("{message} field {field} comes twice")]
    Duplicate {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field has a value that is not allowed.
    #[error("{message} field {field} is not valid: {rule}")]
    Invalid {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// What is allowed.
        rule: &'static str,
    },
    /// A required field is missing.
    #[error("{message} has no field {field}")]
    Missing {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A length is above its bound.
    #[error("{message} has {length} bytes, at most {limit} are allowed")]
    TooLong {
        /// The message.
        message: &'static str,
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A value ends before its announced length.
    #[error("{message} ends inside field {field}")]
    Truncated {
        /// The message.
        message: &'static str,
        /// Where.
        field: &'static str,
    },
}

/// Reads the fields of one body.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    message: &'static str,
    rest: &'a [u8],
}

/// One field of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    message: &'static str,
    pub(crate) tag: u8,
    value: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'static str, body: &'a [u8]) -> Self {
        Self { message, rest: body }
    }

    /// The next field, or `None` at the end of the body.
    pub(crate) fn next_field(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let truncated = || DecodeError::Truncated { message: self.message, field: "header" };
        let (&[tag, high, low], rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated { message: self.message, field: "value" })?;
        self.rest = rest;
        Ok(Some(Field { message: self.message, tag, value }))
    }
}

impl<'a> Field<'a> {
    /// The value as a fixed number of bytes.
    pub(crate) fn array<const N: usize>(
        &self,
        field: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let rule = "wrong length";
        <[u8; N]>::try_from(self.value).map_err(|_| self.invalid(field, rule))
    }

    pub(crate) fn u8(&self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u16(&self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// The value as bytes of bounded length.
    pub(crate) fn bytes(&self, field: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        if self.value.len() > limit {
            return Err(self.invalid(field, "too long"));
        }
        Ok(self.value)
    }

    /// The value as printable ASCII of bounded length, so that logs stay readable.
    pub(crate) fn text(&self, field: &'static str, limit: usize) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes(field, limit)?;
        let rule = "not printable ascii";
        if !bytes.iter().all(|b| (b' '..=b'~').contains(b)) {
            return Err(self.invalid(field, rule));
        }
        std::str::from_utf8(bytes).map_err(|_| self.invalid(field, rule))
    }

    pub(crate) fn invalid(&self, field: &'static str, rule: &'static str) -> DecodeError {
        DecodeError::Invalid { message: self.message, field, rule }
    }

    /// Puts a decoded value where it belongs, once.
    pub(crate) fn once<T>(
        &self,
        slot: &mut Option<T>,
        field: &'static str,
        value: T,
    ) -> Result<(), DecodeError> {
        if slot.replace(value).is_some() {
            return Err(DecodeError::Duplicate { message: self.message, field });
        }
        Ok(())
    }
}

/// Takes a value that must have come.
pub(crate) fn required<T>(
    message: &'static str,
    field: &'static str,
    slot: Option<T>,
) -> Result<T, DecodeError> {
    slot.ok_or(DecodeError::Missing { message, field })
}

/// Appends one field.
///
/// Every value that this crate writes is shorter than 64 KiB by construction; a longer
/// one would be cut, never written with a wrong length.
pub(crate) fn put_field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.push(tag);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value.get(..usize::from(length)).unwrap_or(value));
}

/// Cuts text for a reason field: printable ASCII of at most [`REASON_BYTES_MAX`].
pub(crate) fn reason_text(text: &str) -> String {
    text.chars()
        .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
        .take(REASON_BYTES_MAX)
        .collect()
}

/// Bytes in a reason text.
pub const REASON_BYTES_MAX: usize = 256;
