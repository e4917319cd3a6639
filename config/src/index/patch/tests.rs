use serde_json::{Value, json};

use super::*;
use crate::error::Origin;

/// What a cluster has at one moment, by place: objects that are valid, that are not, that
/// others claim, that are no objects of ours, and those that depend on each other.
fn object(kind: u64, name: u64, version: u64) -> Value {
    let name = format!("o{name}");
    let metadata = json!({"namespace": "shop", "name": name, "generation": version});
    match kind {
        0 | 1 => json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"ports": [{"port": 80 + version}]}}),
        // Now valid, now not.
        2 => json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": metadata, "spec": {"rules": [{"matches": [{"path":
                {"type": "Exact", "value": if version.is_multiple_of(2) { "/a" } else { "a" }}}]}]}}),
        3 => json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
            "data": {"jwks": if version.is_multiple_of(2) { r#"{"keys": []}"# } else { "{" }}}),
        4 => json!({"apiVersion": "isthmus.io/v1alpha1", "kind": "ClusterLink",
            "metadata": {"name": name, "creationTimestamp": "2026-01-31T12:00:00Z"},
            "spec": {"cluster": "b", "trustDomain": "b.test", "import": [], "export": [],
                "bundle": {"configMapRef": {"namespace": "shop", "name": "o1", "key": "jwks"}}}}),
        5 => json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}),
        6 => json!({"apiVersion": "v9", "kind": "Service", "metadata": metadata}),
        _ => json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata,
             "spec": {"ports": [{"port": version + 1}]}}]}),
    }
}

/// The same numbers for the same seed; a linear congruential generator.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

#[test]
fn a_patch_gives_what_the_whole_round_gives() {
    let mut patched_rounds = 0;
    for seed in 0..300 {
        let mut numbers = Numbers(seed);
        // Half of the clusters have only objects that stand alone.
        let kinds = if seed % 2 == 0 { 3 } else { 8 };
        let mut documents: Vec<SourceDocument> = Vec::new();
        let (mut patching, mut whole) = (Index::new(), Index::new());
        for round in 0..12 {
            for _ in 0..=numbers.below(3) {
                let place = numbers.below(6);
                let origin = Origin::new(&format!("place/{place}"), 0);
                documents.retain(|document| document.origin != origin);
                if numbers.below(4) > 0 {
                    // Mostly an object has its place; at times it is somewhere else.
                    let name = if numbers.below(8) == 0 { numbers.below(6) } else { place };
                    let kind = if kinds == 3 { place % 3 } else { numbers.below(kinds) };
                    let value = object(kind, name, numbers.below(4));
                    documents.push(SourceDocument::object(origin, value));
                }
            }
            whole.is_plain = false;
            whole.places.clear();
            let ordered = {
                let mut ordered: Vec<&SourceDocument> = documents.iter().collect();
                ordered.sort_by(|a, b| a.origin.cmp(&b.origin));
                ordered
            };
            patched_rounds += usize::from(
                patching.is_plain && {
                    let changes = patching.changes(&ordered);
                    patching.read_changes(&changes, round).is_some()
                },
            );
            let outcomes = (patching.apply(&documents, round), whole.apply(&documents, round));
            assert_eq!(outcomes.0, outcomes.1, "seed {seed}, round {round}");
            assert_eq!(patching.objects(), whole.objects(), "seed {seed}, round {round}");
            assert_eq!(patching.created(), whole.created(), "seed {seed}, round {round}");
            for reference in whole.objects().references() {
                assert_eq!(patching.origin(&reference), whole.origin(&reference), "{reference}");
            }
        }
    }
    assert!(patched_rounds > 500, "only {patched_rounds} rounds were patches");
}

#[test]
fn an_edit_leaves_the_objects_of_other_kinds_where_they_are() {
    let document = |kind, name, version| {
        SourceDocument::object(
            Origin::new(&format!("{kind}/{name}"), 0),
            object(kind, name, version),
        )
    };
    let mut documents = vec![document(0, 1, 0), document(2, 2, 0), document(5, 3, 0)];
    let mut index = Index::new();
    assert!(index.apply(&documents, 0).changed);
    let before = Arc::clone(index.objects());
    assert!(!index.apply(&documents, 1).changed);
    assert!(Arc::ptr_eq(index.objects(), &before));
    documents[0] = document(0, 1, 2);
    let outcome = index.apply(&documents, 2);
    assert!(outcome.changed && outcome.notices.len() == 1, "{outcome:?}");
    assert!(Arc::ptr_eq(&index.objects().http_routes, &before.http_routes));
    assert!(!Arc::ptr_eq(&index.objects().services, &before.services));
    // An equal object under another pointer is no change.
    documents[0] = document(0, 1, 2);
    assert!(!index.apply(&documents, 3).changed);
}
