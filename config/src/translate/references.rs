//! References into other namespaces, which need a ReferenceGrant.

use isthmus_model::Label;

use crate::objects::Objects;

/// Who refers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Referrer<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a Label,
}

/// What is referred to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Referent<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a Label,
    pub(super) name: &'a str,
}

/// Whether a reference is allowed: inside one namespace, or by a grant in the namespace
/// of the object that is referred to.
///
/// Spec: ReferenceGrant: grants only add; the group, kind and namespace of `from` and the
/// group and kind of `to` must all be equal.
pub(super) fn is_allowed(objects: &Objects, from: Referrer<'_>, to: Referent<'_>) -> bool {
    if from.namespace == to.namespace {
        return true;
    }
    let grants = objects.reference_grants.values();
    grants.filter(|grant| grant.key.namespace == *to.namespace).any(|grant| {
        let who = grant.from.iter().any(|entry| {
            entry.group == from.group
                && entry.kind == from.kind
                && entry.namespace == *from.namespace
        });
        who && grant.to.iter().any(|entry| {
            entry.group == to.group
                && entry.kind == to.kind
                && entry.name.as_deref().is_none_or(|name| name == to.name)
        })
    })
}
