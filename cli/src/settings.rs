//! The settings of one cluster, read once from `cluster.yaml`.
//!
//! Settings are what a process needs before it can read the user's objects: names,
//! addresses, folders, limits. They never change while a process runs. Text becomes
//! [`Settings`] in two steps: serde gives a value in which every field is parsed, and
//! `validate` looks at what fields mean to each other. An error names the file, the line,
//! the field and the reason, and all that validation finds is reported at once.
//!
//! # Flow
//!
//! 1. `yaml`: text within limits, and where in it a field stands.
//! 2. `file`, [`roles`], [`kubernetes`], [`telemetry`], [`sidecar`], `duration`: the
//!    fields.
//! 3. `validate`: rules between fields.
//! 4. [`sample`]: the documented sample, made from the fields' own documentation.

mod duration;

mod file;

pub(crate) mod kubernetes;

pub(crate) mod roles;

pub(crate) mod sample;

pub(crate) mod sidecar;

pub(crate) mod telemetry;

mod validate;

mod yaml;

use std::fmt;
use std::fs::File as OpenFile;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use isthmus_certs::{AuthorityOptions, UserIntermediate};
use isthmus_config::{Context, IngressContext, Workload};
use isthmus_federation::{VipRange, VipRangeInvalid};
use isthmus_model::{ClusterId, Locality, ObjectName, TrustDomain};

use self::file::File;
pub(crate) use self::kubernetes::KubernetesSettings;
pub(crate) use self::roles::{
    CaSettings, ControllerSettings, DnsSettings, DrainSettings, EastWestSettings, IngressSettings,
};
pub(crate) use self::sidecar::{SidecarSettings, TcpSettings};
pub(crate) use self::telemetry::{LogSettings, TelemetrySettings};

/// The settings of one cluster, valid and complete.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// The settings file, absolute.
    pub(crate) file: PathBuf,
    /// The id of the cluster.
    pub(crate) cluster: ClusterId,
    /// The clusterset that it belongs to.
    pub(crate) clusterset: ObjectName,
    /// The trust domain of its identities.
    pub(crate) trust_domain: TrustDomain,
    /// Its region; empty when unknown.
    pub(crate) region: String,
    /// Its zone; empty when unknown.
    pub(crate) zone: String,
    /// The folder of manifests, absolute.
    pub(crate) manifests: PathBuf,
    /// The folder of state, absolute.
    pub(crate) state: PathBuf,
    /// Data plane threads of each role; 0 means one for each core.
    pub(crate) workers: usize,
    /// How a process ends.
    pub(crate) drain: DrainSettings,
    /// North-south traffic.
    pub(crate) ingress: IngressSettings,
    /// Traffic between clusters.
    pub(crate) eastwest: EastWestSettings,
    /// The controller.
    pub(crate) controller: ControllerSettings,
    /// The certificate authority.
    pub(crate) ca: CaSettings,
    /// Names.
    pub(crate) dns: DnsSettings,
    /// The cluster, if it is one of Kubernetes.
    pub(crate) kubernetes: Option<KubernetesSettings>,
    /// Metrics, traces, access log, admin.
    pub(crate) telemetry: TelemetrySettings,
    /// The process log.
    pub(crate) log: LogSettings,
    /// Workloads with a sidecar.
    pub(crate) sidecars: Vec<SidecarSettings>,
}

impl Settings {
    /// Reads a settings file.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Read`] when the file cannot be read, [`SettingsError::Invalid`]
    /// with everything that is wrong with it.
    pub(crate) fn load(path: &Path) -> Result<Self, SettingsError> {
        let read_error = |source| SettingsError::Read { path: path.to_path_buf(), source };
        let file = OpenFile::open(path).map_err(read_error)?;
        let mut text = String::new();
        // One byte more than allowed tells a file that is too large from one that fits.
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(read_error)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            let reason = format!("the file has more than {FILE_BYTES_MAX} bytes");
            let problems = vec![Problem::new("", reason)];
            return Err(SettingsError::Invalid { path: path.to_path_buf(), problems });
        }
        Self::parse(&text, path)
    }

    /// Reads settings from text; paths in it are relative to the folder of `path`.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] as [`Settings::load`] does.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, SettingsError> {
        let invalid = |problems| SettingsError::Invalid { path: path.to_path_buf(), problems };
        let file: File = yaml::parse(text).map_err(|problem| invalid(vec![problem]))?;
        let absolute = std::path::absolute(path)
            .map_err(|source| SettingsError::Read { path: path.to_path_buf(), source })?;
        let settings = file.into_settings(absolute).map_err(|problem| {
            let line = yaml::line_of(text, &problem.field);
            invalid(vec![Problem { line, ..problem }])
        })?;
        let mut problems = validate::problems(&settings);
        if problems.is_empty() {
            return Ok(settings);
        }
        for problem in &mut problems {
            problem.line = yaml::line_of(text, &problem.field);
        }
        Err(invalid(problems))
    }

    /// Data plane threads of each role, with 0 resolved to the number of cores.
    pub(crate) fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            workers => workers,
        }
    }

    /// Where this process runs: by its pod, else where the cluster is.
    pub(crate) fn locality(&self) -> Locality {
        let cluster = Locality::new(&self.region, &self.zone);
        match &self.kubernetes {
            Some(own) => own.locality(cluster),
            None => cluster,
        }
    }

    /// The socket of the certificate authority.
    pub(crate) fn ca_socket(&self) -> PathBuf {
        self.state.join("ca.sock")
    }

    /// The options of the certificate authority; its state is `ca` in the state folder.
    pub(crate) fn authority_options(&self) -> AuthorityOptions {
        let mut options = AuthorityOptions::new(self.state.join("ca"), self.trust_domain.clone());
        options.svid_lifetime = self.ca.svid_lifetime;
        options.intermediate_lifetime = self.ca.intermediate_lifetime;
        options.root_lifetime = self.ca.root_lifetime;
        options.root_overlap = self.ca.rotation_overlap;
        options.user_intermediate = self.ca.user_intermediate.as_ref().map(|user| {
            let (chain, key) = (user.chain.clone(), user.key.clone());
            UserIntermediate { chain, key, roots: user.root.clone() }
        });
        options
    }

    /// The range of ClusterSetIPs, with `auto` resolved.
    ///
    /// # Errors
    ///
    /// [`VipRangeInvalid`] never happens for settings that were validated.
    pub(crate) fn vip_range(&self) -> Result<VipRange, VipRangeInvalid> {
        self.controller.clusterset_range.resolve()
    }

    /// What the translation of manifests knows besides the objects; no imports.
    pub(crate) fn context(&self) -> Context {
        let mut context = Context::new(self.cluster.clone(), self.trust_domain.clone());
        context.locality = self.locality();
        context.ingress =
            IngressContext { port_map: self.ingress.ports.clone(), ..IngressContext::default() };
        context.workloads = self.sidecars.iter().map(|sidecar| self.workload(sidecar)).collect();
        context
    }

    fn workload(&self, sidecar: &SidecarSettings) -> Workload {
        Workload {
            namespace: sidecar.namespace.clone(),
            name: sidecar.name.clone(),
            service_account: sidecar.service_account.clone(),
            labels: sidecar.labels.clone(),
            address: sidecar.address,
            ports: sidecar.ports.clone(),
            mesh: sidecar.mesh,
            locality: sidecar.locality(self),
        }
    }

    /// Finds a sidecar by `name` or `namespace/name`.
    ///
    /// # Errors
    ///
    /// [`UnknownSidecar`] when none has the name, or several namespaces have one.
    pub(crate) fn sidecar(&self, text: &str) -> Result<&SidecarSettings, UnknownSidecar> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let mut found = self.sidecars.iter().filter(|sidecar| {
            sidecar.name.as_str() == name
                && namespace.is_none_or(|namespace| sidecar.namespace.as_str() == namespace)
        });
        match (found.next(), found.next()) {
            (Some(sidecar), None) => Ok(sidecar),
            (None, _) => {
                let known = self.sidecars.iter().map(SidecarSettings::full_name).collect();
                Err(UnknownSidecar::Absent { name: text.to_owned(), known })
            }
            (Some(_), Some(_)) => Err(UnknownSidecar::Ambiguous { name: text.to_owned() }),
        }
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// Something in the file is not valid.
    #[error("{}", listed(path, problems))]
    Invalid {
        /// The file as given.
        path: PathBuf,
        /// What is not valid; never empty.
        problems: Vec<Problem>,
    },
    /// The file cannot be read.
    #[error("cannot read the settings file {}", path.display())]
    Read {
        /// The file as given.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// One thing that is wrong with a settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The line, from 1; `None` when it is unknown.
    pub(crate) line: Option<u64>,
    /// The field, for example `sidecars[1].mesh`; empty for the file as a whole.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) reason: String,
}

impl Problem {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { line: None, field: field.into(), reason: reason.into() }
    }
}

/// No sidecar, or more than one, has the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownSidecar {
    /// None has it.
    #[error("the settings have no sidecar {name:?}; they have {}", listing(known))]
    Absent {
        /// What was asked for.
        name: String,
        /// `namespace/name` of those that exist.
        known: Vec<String>,
    },
    /// Several have it.
    #[error("several namespaces have a sidecar {name:?}; say <namespace>/{name}")]
    Ambiguous {
        /// What was asked for.
        name: String,
    },
}

fn listing(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

struct Listed<'p>(&'p Path, &'p [Problem]);

fn listed<'p>(path: &'p Path, problems: &'p [Problem]) -> Listed<'p> {
    Listed(path, problems)
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.1.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:", self.0.display())?;
            if let Some(line) = problem.line {
                write!(f, "{line}:")?;
            }
            if !problem.field.is_empty() {
                write!(f, " {}:", problem.field)?;
            }
            write!(f, " {}", problem.reason)?;
        }
        Ok(())
    }
}

/// Bytes of a settings file; thousands of sidecars fit.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
