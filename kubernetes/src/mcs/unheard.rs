//! What stays of imports whose clusters have not been heard since this controller began.
//!
//! Which clusters export an import is in the status of the ServiceImport that the
//! predecessor wrote. An import that is planned needs nothing here: another cluster exports
//! it too, and its own slices name the same gateways.

use std::collections::BTreeSet;

use isthmus_federation::proto::ServiceName;
use isthmus_model::Label;
use serde_json::{Value, json};

use crate::apply::{FIELD_MANAGER, MANAGED_LABEL};
use crate::mcs::McsInputs;
use crate::mcs::names::{IMPORT_LABEL, derived, label, text};

/// The names of the objects that stay as they are, for [`crate::apply::plan`].
pub(super) fn kept(inputs: &McsInputs<'_>) -> Vec<Value> {
    let unheard: BTreeSet<&str> = inputs
        .decided
        .peers
        .iter()
        .filter(|peer| !peer.is_known)
        .map(|peer| peer.cluster.as_str())
        .collect();
    if unheard.is_empty() {
        return Vec::new();
    }
    let ours = || {
        let is_ours = |it: &&Value| label(it, MANAGED_LABEL) == Some(FIELD_MANAGER);
        inputs.observed.iter().copied().filter(is_ours)
    };
    let planned = &inputs.decided.plan.federated.import_status;
    let imports = ours().filter(|it| text(it, "/kind") == "ServiceImport");
    let imports =
        imports.filter(|it| is_of(it, &unheard)).filter_map(|it| named(it, text(it, NAME)));
    let imports: BTreeSet<ServiceName> =
        imports.filter(|import| !planned.contains_key(import)).collect();
    let stays = |object: &&Value| {
        let import = match text(object, "/kind") {
            "ServiceImport" => named(object, text(object, NAME)),
            "EndpointSlice" | "Service" => {
                named(object, label(object, IMPORT_LABEL).unwrap_or_default())
            }
            _ => None,
        };
        let Some(import) = import.filter(|import| imports.contains(import)) else { return false };
        text(object, "/kind") != "Service" || text(object, NAME) == derived(&import)
    };
    ours().filter(stays).map(only_named).collect()
}

/// Whether one of some clusters exports an import, as far as its status says.
fn is_of(import: &Value, clusters: &BTreeSet<&str>) -> bool {
    let exporting = import.pointer("/status/clusters").and_then(Value::as_array);
    exporting.into_iter().flatten().any(|entry| clusters.contains(text(entry, "/cluster")))
}

fn named(object: &Value, name: &str) -> Option<ServiceName> {
    let namespace = Label::new(text(object, "/metadata/namespace")).ok()?;
    Some(ServiceName::new(namespace, Label::new(name).ok()?))
}

fn only_named(object: &Value) -> Value {
    json!({
        "apiVersion": text(object, "/apiVersion"),
        "kind": text(object, "/kind"),
        "metadata": { "namespace": text(object, "/metadata/namespace"), "name": text(object, NAME) },
    })
}

const NAME: &str = "/metadata/name";
