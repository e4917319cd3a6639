//! Small state that must outlive the pod: a Secret with one entry for each file.
//!
//! The state belongs to the leader. Every write names the version that was read or
//! written last, so a process that has lost the lead without knowing it cannot undo what
//! its successor wrote; it gets [`KeepError::Conflict`] and must end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::apply::FIELD_MANAGER;
use crate::discovery::code;

/// One Secret that this process owns while it leads.
pub struct Keeper {
    api: Api<Secret>,
    name: String,
    version: Option<String>,
}

/// The entries of the Secret, by file name.
pub type Entries = BTreeMap<String, Vec<u8>>;

/// Why state is not read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Somebody else wrote it meanwhile, so this process does not lead any more.
    #[error("Secret {name} was written by another process: this one does not lead any more")]
    Conflict {
        /// The Secret.
        name: String,
    },
    /// The API server refuses or does not answer.
    #[error("Secret {name} cannot be {action}")]
    Request {
        /// The Secret.
        name: String,
        /// What was tried.
        action: &'static str,
        /// What the client says.
        source: Box<kube::Error>,
    },
    /// The API server does not answer in time.
    #[error("Secret {name} cannot be {action}: no answer within {} s", REQUEST_MAX.as_secs())]
    Timeout {
        /// The Secret.
        name: String,
        /// What was tried.
        action: &'static str,
    },
}

impl Keeper {
    /// Names the Secret; nothing is sent yet.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), version: None }
    }

    /// Reads the entries; `None` when there is no Secret yet.
    ///
    /// # Errors
    ///
    /// [`KeepError`]; nothing is assumed to be absent because it could not be read.
    pub async fn load(&mut self) -> Result<Option<Entries>, KeepError> {
        let found = timeout(REQUEST_MAX, self.api.get_opt(&self.name)).await;
        let found = found.map_err(|_| self.timeout("read"))?;
        let found = found.map_err(|error| self.request("read", error))?;
        let Some(secret) = found else {
            self.version = None;
            return Ok(None);
        };
        self.version = secret.metadata.resource_version;
        let data = secret.data.unwrap_or_default();
        Ok(Some(data.into_iter().map(|(name, bytes)| (name, bytes.0)).collect()))
    }

    /// Replaces the entries, or creates the Secret if [`Keeper::load`] found none.
    ///
    /// # Errors
    ///
    /// [`KeepError::Conflict`] when it is not as it was last read or written.
    pub async fn save(&mut self, entries: Entries) -> Result<(), KeepError> {
        let labels = [
            ("app.kubernetes.io/part-of", FIELD_MANAGER),
            ("app.kubernetes.io/component", "authority"),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let data = entries.into_iter().map(|(name, bytes)| (name, ByteString(bytes))).collect();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(labels.into()),
                resource_version: self.version.clone(),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..Secret::default()
        };
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = async {
            match self.version {
                None => self.api.create(&parameters, &secret).await,
                Some(_) => self.api.replace(&self.name, &parameters, &secret).await,
            }
        };
        let written = timeout(REQUEST_MAX, written).await.map_err(|_| self.timeout("written"))?;
        let written = written.map_err(|error| match code(&error) {
            Some(409) => KeepError::Conflict { name: self.name.clone() },
            _ => self.request("written", error),
        })?;
        self.version = written.metadata.resource_version;
        Ok(())
    }

    fn request(&self, action: &'static str, source: kube::Error) -> KeepError {
        KeepError::Request { name: self.name.clone(), action, source: Box::new(source) }
    }

    fn timeout(&self, action: &'static str) -> KeepError {
        KeepError::Timeout { name: self.name.clone(), action }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({})", self.name)
    }
}

/// How long the API server may take for one request.
const REQUEST_MAX: Duration = Duration::from_secs(5);
