//! What an operator's command does to a cluster: single reads and writes of any kind.
//!
//! Unlike [`crate::Executor`] this runs with a person's rights and under another field
//! manager, so that what an installer has applied is never taken for what the
//! controllers own.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use isthmus_runtime::error_chain;
use kube::Client;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::apply::{Failure, ObjectId};
use crate::discovery::{self, Served};

/// Reads and writes objects of any kind.
#[derive(Clone)]
pub struct Installer {
    client: Client,
    manager: &'static str,
    served: BTreeMap<(String, String), Served>,
}

/// What an apply has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The object is as it was.
    Unchanged,
    /// The object is new or has changed.
    Written,
}

/// Which objects a list has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'f> {
    /// The namespace; empty is all.
    pub namespace: &'f str,
    /// A label selector; empty is all.
    pub labels: &'f str,
    /// A field selector; empty is all.
    pub fields: &'f str,
}

impl Installer {
    /// Acts by the client's rights; `manager` is the name in `managedFields`.
    pub fn new(client: Client, manager: &'static str) -> Self {
        Self { client, manager, served: BTreeMap::new() }
    }

    /// Applies an object; fields of others that it names become ours.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that names the object.
    pub async fn apply(&mut self, object: &Value) -> Result<Applied, Failure> {
        let id = ObjectId::of(object).map_err(|error| Failure {
            id: unnamed("", ""),
            message: error.to_string(),
            is_temporary: false,
        })?;
        let before = self.get(&id).await?.map(|object| version(&object));
        let served = self.required(&id).await?;
        let api = served.api(self.client.clone(), &id.namespace);
        let parameters = PatchParams::apply(self.manager).force();
        let patch = Patch::Apply(object);
        let written = asked(&id, api.patch(&id.name, &parameters, &patch)).await?;
        let written = written.map_err(|error| failure(&id, &error))?;
        let is_same = before.is_some() && before == Some(written.metadata.resource_version);
        Ok(if is_same { Applied::Unchanged } else { Applied::Written })
    }

    /// Replaces one text of a ConfigMap, if nobody has changed it since `observed`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that names the object; a conflict says that it has changed.
    pub async fn replace_text(
        &mut self,
        observed: &Value,
        key: &str,
        text: &str,
    ) -> Result<(), Failure> {
        let id = ObjectId {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: observed["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
            name: observed["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        };
        let api = self.required(&id).await?.api(self.client.clone(), &id.namespace);
        let body = json!({
            "metadata": { "resourceVersion": version(observed) }, "data": { key: text },
        });
        let parameters =
            PatchParams { field_manager: Some(self.manager.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(&body);
        let written = asked(&id, api.patch(&id.name, &parameters, &patch)).await?;
        written.map(|_| ()).map_err(|error| failure(&id, &error))
    }

    /// The object; none when it, or its kind, is not there.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that names the object.
    pub async fn get(&mut self, id: &ObjectId) -> Result<Option<Value>, Failure> {
        let Some(served) = self.find(id).await? else { return Ok(None) };
        let api = served.api(self.client.clone(), &id.namespace);
        let found = asked(id, api.get_opt(&id.name)).await?;
        let found = found.map_err(|error| failure(id, &error))?;
        Ok(found.map(|object| serde_json::to_value(object).unwrap_or_default()))
    }

    /// The objects of a kind; none when the server does not serve it.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that names the kind.
    pub async fn list(
        &mut self,
        api_version: &str,
        kind: &str,
        filter: Filter<'_>,
    ) -> Result<Vec<Value>, Failure> {
        let id = unnamed(api_version, kind);
        let Some(served) = self.find(&id).await? else { return Ok(Vec::new()) };
        let mut parameters = ListParams::default().limit(PAGE);
        if !filter.labels.is_empty() {
            parameters = parameters.labels(filter.labels);
        }
        if !filter.fields.is_empty() {
            parameters = parameters.fields(filter.fields);
        }
        let mut objects = Vec::new();
        loop {
            let api = served.api(self.client.clone(), filter.namespace);
            let page = asked(&id, api.list(&parameters)).await?;
            let page = page.map_err(|error| failure(&id, &error))?;
            for object in page.items {
                let mut value = serde_json::to_value(object).unwrap_or_default();
                // Items of a list do not say it of themselves.
                value["apiVersion"] = json!(api_version);
                value["kind"] = json!(kind);
                objects.push(value);
            }
            parameters.continue_token = page.metadata.continue_.filter(|next| !next.is_empty());
            if parameters.continue_token.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Deletes an object, and then what it owns. One that has gone is no failure.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that names the object.
    pub async fn delete(&mut self, id: &ObjectId) -> Result<(), Failure> {
        let Some(served) = self.find(id).await? else { return Ok(()) };
        let api = served.api(self.client.clone(), &id.namespace);
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match asked(id, api.delete(&id.name, &parameters)).await? {
            Ok(_) => Ok(()),
            Err(error) if discovery::code(&error) == Some(404) => Ok(()),
            Err(error) => Err(failure(id, &error)),
        }
    }

    async fn required(&mut self, id: &ObjectId) -> Result<Served, Failure> {
        self.find(id).await?.ok_or_else(|| Failure {
            id: id.clone(),
            message: format!("the server does not serve {} {}", id.api_version, id.kind),
            is_temporary: true,
        })
    }

    async fn find(&mut self, id: &ObjectId) -> Result<Option<Served>, Failure> {
        let key = (id.api_version.clone(), id.kind.clone());
        if let Some(served) = self.served.get(&key) {
            return Ok(Some(served.clone()));
        }
        let versions = [id.version()];
        let found = discovery::find(&self.client, id.group(), &id.kind, &versions);
        let found = asked(id, found).await?;
        let found = found.map_err(|error| failure(id, &error))?;
        if let Some(served) = &found {
            self.served.insert(key, served.clone());
        }
        Ok(found)
    }
}

impl fmt::Debug for Installer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installer").field("manager", &self.manager).finish_non_exhaustive()
    }
}

/// One request, with a limit for its answer: a person waits for it.
async fn asked<T>(id: &ObjectId, request: impl Future<Output = T>) -> Result<T, Failure> {
    within(REQUEST_MAX, id, request).await
}

async fn within<T>(
    limit: Duration,
    id: &ObjectId,
    request: impl Future<Output = T>,
) -> Result<T, Failure> {
    timeout(limit, request).await.map_err(|_| Failure {
        id: id.clone(),
        message: format!("the server gives no answer within {} s", limit.as_secs()),
        is_temporary: true,
    })
}

fn version(object: &Value) -> Option<String> {
    object.pointer("/metadata/resourceVersion")?.as_str().map(str::to_owned)
}

fn unnamed(api_version: &str, kind: &str) -> ObjectId {
    ObjectId {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: String::new(),
        name: String::new(),
    }
}

fn failure(id: &ObjectId, error: &kube::Error) -> Failure {
    let is_temporary =
        discovery::code(error).is_none_or(|code| matches!(code, 404 | 409 | 429 | 500..));
    Failure { id: id.clone(), message: error_chain(error), is_temporary }
}

/// Above the longest time-out of an admission webhook, which is 30 s.
const REQUEST_MAX: Duration = Duration::from_secs(35);
/// Objects in one page of a list.
const PAGE: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_hangs_is_not_waited_for() {
        let id = unnamed("v1", "Service");
        let silent = std::future::pending::<()>();
        let failure = within(Duration::ZERO, &id, silent).await.unwrap_err();
        assert!(failure.is_temporary);
        assert_eq!(failure.message, "the server gives no answer within 0 s");
    }
}
