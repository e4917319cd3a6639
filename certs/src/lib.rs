//! Certificate authority, issuance policy, rotation, trust bundles and verification.
//!
//! Each cluster is one trust domain with its own authority. A workload makes its key in
//! its own process and gets an X.509-SVID for it; peers' roots arrive as SPIFFE bundles;
//! a certificate is accepted only against the bundle of the trust domain it names. There
//! is no shared root, no process-wide crypto default, and no session resumption.
//!
//! # Flow
//!
//! 1. [`crypto`]: the one crypto provider, randomness, private keys that are wiped.
//! 2. [`x509`]: what a leaf and a CA certificate must look like.
//! 3. [`pem`]: certificates and keys as text.
//! 4. [`csr`]: takes the public key, and nothing else, from a signing request.
//! 5. [`authority`]: root, intermediate, issuance, rotation, state on disk.
//! 6. [`bundle`]: the SPIFFE JWKS form, the rule for updates, the set of all bundles.
//! 7. [`svid`]: one workload's certificate and key, and the cell that rotates them.
//! 8. [`verify`]: the peer's chain against the bundle of its own domain.
//! 9. [`tls`]: client and server configurations made of the above.
//! 10. [`renew`]: when to renew, and the loop that does.
//! 11. [`service`]: the authority behind a Unix socket, and its client.
//! 12. [`token`]: the authority for pods with projected tokens, and its client.
//! 13. `serve`, `incoming`: what the servers of both share.

mod moment;

pub mod crypto;

pub mod x509;

pub mod pem;

pub mod csr;

pub mod authority;

pub mod bundle;

pub mod svid;

pub mod verify;

pub mod tls;

pub mod renew;

pub mod service;

pub mod token;

mod serve;

mod incoming;

#[cfg(test)]
mod testing;

pub use crate::authority::{
    Authority, AuthorityError, AuthorityHandle, AuthorityIssuer, AuthorityOptions, IssuedSvid,
    RotationStep, UserIntermediate,
};
pub use crate::bundle::{
    Acceptance, Bundle, BundleCell, BundleInvalid, BundleRefused, BundleSet, BundleStore,
    BundleStoreError,
};
pub use crate::crypto::provider;
pub use crate::csr::CsrRefused;
pub use crate::pem::PemError;
pub use crate::renew::{
    IssueError, IssueFuture, Issued, Issuer, RenewError, RenewSettings, RenewTrigger,
    RenewalHealth, Renewer, Standing,
};
pub use crate::service::{
    CaServer, CaServerError, CaSettings, SocketAccess, UnixIssuer, WorkloadRegistry,
};
pub use crate::svid::{Svid, SvidCell, SvidInvalid};
pub use crate::tls::{MeshTls, TlsError, mesh_server_name};
pub use crate::token::{
    ReviewError, ReviewFuture, ReviewedWorkload, TokenCaServer, TokenCaSettings, TokenIssuer,
    TokenIssuerSettings, TokenReviewer,
};
pub use crate::verify::{
    Expected, MeshVerifier, PeerRefused, PeerSide, PeerSvid, peer_id, peer_svid,
};
