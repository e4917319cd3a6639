//! Certificate authority, issuance policy, rotation, trust bundles and verification.
