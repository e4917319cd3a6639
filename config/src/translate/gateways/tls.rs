//! References of Gateways and ListenerSets to certificates.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use isthmus_model::ClientValidation;

use crate::kind::{GATEWAY_GROUP, Kind, ObjectKey};
use crate::objects::{CaRef, FrontendValidation, Objects, SecretRef};
use crate::translate::conditions::Problem;
use crate::translate::references::{Referent, Referrer, is_allowed};

/// The Secret that a reference names, when it may be used and is of use; `reason` is what
/// a reference without use is called.
pub(super) fn secret(
    objects: &Objects,
    owner: (Kind, &ObjectKey),
    reference: &SecretRef,
    reason: &'static str,
) -> Result<ObjectKey, Problem> {
    let invalid = |message: String| Problem::new(reason, message);
    let key = match reference {
        SecretRef::Secret(key) => key,
        SecretRef::Unsupported(text) => return Err(invalid(format!("{text} is not a Secret"))),
    };
    permitted(objects, owner, "Secret", key)?;
    match objects.secrets.get(key) {
        None => Err(invalid(format!("Secret {key} does not exist"))),
        Some(secret) if secret.tls.is_none() => {
            Err(invalid(format!("Secret {key} is not of type kubernetes.io/tls")))
        }
        Some(_) => Ok(key.clone()),
    }
}

/// What is demanded of clients, from the roots that can be used, and what is wrong with
/// the last that cannot. Without a root there is nothing to hold clients against.
pub(super) fn client_validation(
    objects: &Objects,
    gateway: &ObjectKey,
    validation: &FrontendValidation,
) -> (Option<ClientValidation>, Option<Problem>) {
    let mut roots_pem = String::new();
    let mut problem = None;
    for reference in &validation.roots {
        match roots(objects, gateway, reference) {
            Ok(pem) => {
                roots_pem.push_str(pem.trim_end());
                roots_pem.push('\n');
            }
            Err(found) => problem = Some(found),
        }
    }
    let insecure_fallback = validation.insecure_fallback;
    let usable = !roots_pem.is_empty();
    (usable.then_some(ClientValidation { roots_pem, insecure_fallback }), problem)
}

fn roots<'o>(
    objects: &'o Objects,
    gateway: &ObjectKey,
    reference: &CaRef,
) -> Result<&'o str, Problem> {
    let invalid = |message: String| Problem::new("InvalidCACertificateRef", message);
    let key = match reference {
        CaRef::ConfigMap(key) => key,
        CaRef::Unsupported(text) => {
            let message = format!("{text} is not a ConfigMap");
            return Err(Problem::new("InvalidCACertificateKind", message));
        }
    };
    permitted(objects, (Kind::Gateway, gateway), "ConfigMap", key)?;
    let config_map = objects.config_maps.get(key);
    let config_map =
        config_map.ok_or_else(|| invalid(format!("ConfigMap {key} does not exist")))?;
    let pem = config_map.data.get(CA_KEY);
    let pem = pem.ok_or_else(|| invalid(format!("ConfigMap {key} has no key {CA_KEY}")))?;
    let mut certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).peekable();
    if certificates.peek().is_none() || certificates.any(|certificate| certificate.is_err()) {
        return Err(invalid(format!("{CA_KEY} of ConfigMap {key} is not certificates in PEM")));
    }
    Ok(pem)
}

fn permitted(
    objects: &Objects,
    (kind, owner): (Kind, &ObjectKey),
    to_kind: &'static str,
    key: &ObjectKey,
) -> Result<(), Problem> {
    let from = Referrer { group: GATEWAY_GROUP, kind: kind.label(), namespace: &owner.namespace };
    let name = key.name.as_str();
    let to = Referent { group: "", kind: to_kind, namespace: &key.namespace, name };
    if is_allowed(objects, from, to) {
        return Ok(());
    }
    let message = format!("no ReferenceGrant allows the reference to {to_kind} {key}");
    Err(Problem::new("RefNotPermitted", message))
}

/// Spec: Gateway API: the key of a ConfigMap with certificates of authorities.
const CA_KEY: &str = "ca.crt";
