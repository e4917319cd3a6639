//! What the authority cannot do.

use std::io;
use std::path::PathBuf;

use isthmus_model::{SpiffeId, TrustDomain};

use crate::bundle::BundleInvalid;
use crate::crypto::CryptoError;
use crate::csr::CsrRefused;

/// What the authority cannot do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The own bundle cannot be made.
    #[error("the authority's bundle is not valid")]
    Bundle(#[from] BundleInvalid),
    /// The files do not fit each other.
    #[error("{} is not usable: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Keys or randomness are not to be had.
    #[error("the authority's cryptography failed")]
    Crypto(#[from] CryptoError),
    /// The signing request was refused.
    #[error("the signing request was refused: {0}")]
    Csr(#[from] CsrRefused),
    /// The system failed to read or write.
    #[error("{} cannot be read or written", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An ID of another trust domain was asked for.
    #[error("{id} is not in the trust domain {domain} of this authority")]
    ForeignId {
        /// The ID.
        id: SpiffeId,
        /// The authority's own domain.
        domain: TrustDomain,
    },
    /// The state directory is in use by another process.
    #[error("the state directory {} is in use by another authority", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The settings contradict each other.
    #[error("authority setting {setting}: {reason}")]
    Option {
        /// The setting.
        setting: &'static str,
        /// What it must be.
        reason: &'static str,
    },
    /// A file that may hold a key can be read by others.
    #[error("{} has mode {mode:o}; others than the owner must have no access (chmod go-rwx)", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A rotation was asked for that cannot begin now.
    #[error("the rotation cannot begin: {reason}")]
    Rotation {
        /// Why not.
        reason: &'static str,
    },
    /// The signing certificate is not valid at this time.
    #[error(
        "the signing certificate is valid from {not_before} to {not_after} (unix seconds), the clock says {now}"
    )]
    SignerExpired {
        /// Begin of validity.
        not_before: u64,
        /// End of validity.
        not_after: u64,
        /// What the clock says.
        now: u64,
    },
}
