//! A directory and an API server with the same objects give the same model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use isthmus_config::objects::Generations;
use isthmus_config::source::directory;
use isthmus_config::{Context, Index, Kind, Objects, SourceDocument, Translation, translate};
use isthmus_kubernetes::source::cache::{Cache, Change};
use isthmus_kubernetes::source::kinds::{Scope, Watched};
use isthmus_model::{ClusterId, TrustDomain};
use serde_json::Value;

use crate::server::{CREATED, CREATED_UNIX, stored};

/// Objects of every kind, as people write them.
const EVERY_KIND: &str = include_str!("every_kind.yaml");

/// What came of a source.
struct Model {
    objects: Objects,
    translation: Translation,
    errors: Vec<String>,
}

fn model(documents: &[SourceDocument]) -> Model {
    let mut index = Index::new();
    let outcome = index.apply(documents, CREATED_UNIX);
    let mut objects = Objects::clone(index.objects());
    // A directory counts no changes.
    objects.generations = Generations::default();
    let trust_domain = TrustDomain::new("c1.example").unwrap();
    let context = Context::new(ClusterId::new("c1").unwrap(), trust_domain);
    let translation = translate(&objects, &context);
    let errors = outcome.errors.iter();
    // The place of an object is another in each source.
    let errors = errors.map(|e| format!("{:?} {:?} {}", e.object, e.field, e.reason)).collect();
    Model { objects, translation, errors }
}

/// The documents as a watch gives them.
fn watched(documents: &[SourceDocument]) -> Vec<SourceDocument> {
    let scope = |watched| Scope { watched, namespace: "".into() };
    let mut cache = Cache::new(Watched::all().map(scope).collect(), BTreeMap::new());
    for one in Watched::all() {
        cache.handle(&scope(one), Change::Listing);
    }
    let mut kinds = BTreeSet::new();
    for (number, object) in objects(documents).into_iter().enumerate() {
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let of = |kind: &Kind| kind.group() == group && object["kind"] == kind.label();
        let Some(kind) = Kind::ALL.into_iter().find(of) else { continue };
        kinds.insert(kind);
        let change = Change::Listed(stored(object, number));
        cache.handle(&scope(Watched::Config(kind)), change);
    }
    for one in Watched::all() {
        cache.handle(&scope(one), Change::ListedAll);
    }
    assert!(cache.is_complete() && !kinds.is_empty());
    cache.state().documents
}

fn objects(documents: &[SourceDocument]) -> Vec<Value> {
    let mut found = Vec::new();
    for document in documents {
        let isthmus_config::Content::Text { text, .. } = &document.content else {
            panic!("{document:?} is no text")
        };
        let mut value: Value = serde_saphyr::from_str(text).unwrap();
        match value.get_mut("items").and_then(Value::as_array_mut) {
            Some(items) => found.append(items),
            None => found.push(value),
        }
    }
    found
}

fn assert_equal(documents: &[SourceDocument]) -> Model {
    let (directory, server) = (model(documents), model(&watched(documents)));
    assert_eq!(directory.errors, server.errors);
    // Kind by kind, so that a failure is short.
    let (a, b) = (&directory.objects, &server.objects);
    assert_eq!(a.references(), b.references());
    assert_eq!(a.services, b.services);
    assert_eq!(a.endpoint_slices, b.endpoint_slices);
    assert_eq!(a.gateways, b.gateways);
    assert_eq!(a.cluster_links, b.cluster_links);
    assert_eq!(directory.translation.resources, server.translation.resources);
    assert_eq!(directory.translation.conditions, server.translation.conditions);
    assert_eq!(directory.translation, server.translation);
    directory
}

/// Without what is kept as it is written. A route keeps its parentRefs, because they go
/// into its status; a server labels a namespace with its name, which a directory's gets
/// where labels are read ([`Objects::namespace_labels`]).
fn normal(objects: &Objects) -> Objects {
    let mut objects = objects.clone();
    for namespace in Arc::make_mut(&mut objects.namespaces).values_mut() {
        Arc::make_mut(namespace).labels.remove("kubernetes.io/metadata.name");
    }
    for routes in [&mut objects.http_routes, &mut objects.grpc_routes] {
        for route in Arc::make_mut(routes).values_mut() {
            let parents = &mut Arc::make_mut(route).parents;
            parents.iter_mut().for_each(|parent| parent.raw = Value::Null);
        }
    }
    for routes in [&mut objects.tcp_routes, &mut objects.tls_routes, &mut objects.udp_routes] {
        for route in Arc::make_mut(routes).values_mut() {
            let parents = &mut Arc::make_mut(route).parents;
            parents.iter_mut().for_each(|parent| parent.raw = Value::Null);
        }
    }
    objects
}

#[test]
fn the_time_of_the_server_is_that_of_the_directory() {
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: a, creationTimestamp: '{CREATED}'}}\n\
         spec: {{ports: [{{port: 80}}]}}\n"
    );
    let service = model(&SourceDocument::split("a.yaml", &text)).objects.services;
    assert_eq!(service.values().next().unwrap().created, CREATED_UNIX);
}

#[test]
fn objects_of_every_kind_are_the_same_from_a_directory_and_from_a_server() {
    let key = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()]).unwrap();
    let indented = |pem: String| pem.replace('\n', "\n    ");
    let text = EVERY_KIND
        .replace("CERTIFICATE_PEM", &indented(key.cert.pem()))
        .replace("KEY_PEM", &indented(key.signing_key.serialize_pem()));
    let documents = SourceDocument::split("every_kind.yaml", &text);
    let model = assert_equal(&documents);
    assert_eq!(model.errors, Vec::<String>::new());
    let kinds: BTreeSet<Kind> = model.objects.references().iter().map(|one| one.kind).collect();
    assert_eq!(kinds, Kind::ALL.into(), "every kind is among the manifests");
    let server = self::model(&watched(&documents)).objects;
    for namespace in ["shop", "absent"] {
        let labels = model.objects.namespace_labels(namespace);
        assert_eq!(labels, server.namespace_labels(namespace));
    }
    assert_eq!(normal(&model.objects), normal(&server));
}

#[test]
fn the_manifests_of_the_examples_are_the_same_from_a_directory_and_from_a_server() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo");
    let mut count = 0;
    for cluster in std::fs::read_dir(examples).unwrap() {
        let manifests = cluster.unwrap().path().join("manifests");
        if manifests.is_dir() {
            let documents = directory::read(&manifests).unwrap();
            assert!(!assert_equal(&documents).objects.is_empty());
            count += 1;
        }
    }
    assert_eq!(count, 3, "the example has three clusters");
}

#[test]
fn an_object_that_is_not_valid_is_refused_alike() {
    let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
        metadata: {name: r, namespace: shop}\nspec:\n  rules:\n  - matches:\n    - path: \
        {type: RegularExpression, value: '('}\n";
    let model = assert_equal(&SourceDocument::split("r.yaml", text));
    assert_eq!(model.errors.len(), 1);
}
