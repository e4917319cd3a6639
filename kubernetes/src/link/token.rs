//! The invitation in one line: `isthmus-link-1.<base64url of JSON>.<checksum>`.
//!
//! A line survives a chat window and a shell. The checksum finds a token that was cut or
//! mistyped, which would otherwise be an unreadable error of JSON; it is no signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::link::{Fields, Invitation, InvitationError};

/// Why a token cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A part is missing, or its checksum is another.
    #[error("the token is damaged or not whole: copy the whole line of `isthmus link token`")]
    Damaged,
    /// What is in it is no invitation.
    #[error("the token is whole, but its invitation is not valid")]
    Invitation(#[from] InvitationError),
    /// It is longer than any token.
    #[error("the token has more than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// It is something else.
    #[error("this is not a link token: one begins with {PREFIX:?}")]
    Unknown,
    /// It comes from another version of this program.
    #[error(
        "the token is of the form {found:?}, and this program reads {PREFIX:?}: use the same version of isthmus on both sides"
    )]
    Version {
        /// What the token begins with.
        found: String,
    },
}

impl Invitation {
    /// The token, one line without spaces.
    pub fn encode(&self) -> String {
        // Five texts are always JSON.
        let json = serde_json::to_vec(&self.fields()).unwrap_or_default();
        let body = URL_SAFE_NO_PAD.encode(json);
        let sum = checksum(&body);
        format!("{PREFIX}.{body}.{sum}")
    }

    /// Reads a token; space around it is passed over.
    ///
    /// # Errors
    ///
    /// [`TokenError`] tells a cut token from one of another version or kind.
    pub fn decode(token: &str) -> Result<Self, TokenError> {
        let token = token.trim();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (prefix, rest) = token.split_once('.').unwrap_or((token, ""));
        if prefix != PREFIX {
            let is_ours = prefix.strip_prefix(FAMILY).is_some_and(|version| {
                (1..=4).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_digit())
            });
            return Err(match is_ours {
                true => TokenError::Version { found: prefix.to_owned() },
                false => TokenError::Unknown,
            });
        }
        let (body, sum) = rest.rsplit_once('.').ok_or(TokenError::Damaged)?;
        if checksum(body) != sum {
            return Err(TokenError::Damaged);
        }
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Damaged)?;
        let fields: Fields = serde_json::from_slice(&json).map_err(|_| TokenError::Damaged)?;
        Ok(Self::try_from(fields)?)
    }
}

/// FNV-1a of 64 bits, in hex. A standard hasher would do, but may change with the
/// compiler, and a token outlives one.
fn checksum(body: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
    format!("{:016x}", body.bytes().fold(FNV_OFFSET, step))
}

/// What a token of this form begins with.
const PREFIX: &str = "isthmus-link-1";
/// What a token of any form begins with, before its number.
const FAMILY: &str = "isthmus-link-";
/// Bytes of a token: the largest bundle, twice escaped in base64, and the names.
const TOKEN_BYTES_MAX: usize = 256 * 1024;
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
