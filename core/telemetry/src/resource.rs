//! Who reports: the OTLP resource of a role.

/// Who reports: attributes of every span, log record and metric of one role.
///
/// Spec: OpenTelemetry semantic conventions, `service.*`, `k8s.cluster.name`, `cloud.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    attributes: Vec<(&'static str, String)>,
}

impl Resource {
    /// A resource with its `service.name`, for example `isthmus-ingress`.
    pub fn new(service: &str) -> Self {
        Self { attributes: vec![("service.name", service.to_owned())] }
    }

    /// Sets `service.namespace`.
    #[must_use]
    pub fn with_namespace(self, namespace: &str) -> Self {
        self.with("service.namespace", namespace)
    }

    /// Sets `k8s.cluster.name`.
    #[must_use]
    pub fn with_cluster(self, cluster: &str) -> Self {
        self.with("k8s.cluster.name", cluster)
    }

    /// Sets `cloud.region` and `cloud.availability_zone`.
    #[must_use]
    pub fn with_locality(self, region: &str, zone: &str) -> Self {
        self.with("cloud.region", region).with("cloud.availability_zone", zone)
    }

    /// Sets `service.instance.id`, for example the name of the pod.
    #[must_use]
    pub fn with_instance(self, instance: &str) -> Self {
        self.with("service.instance.id", instance)
    }

    /// Sets `service.version`.
    #[must_use]
    pub fn with_version(self, version: &str) -> Self {
        self.with("service.version", version)
    }

    /// The attributes in the order they were set.
    pub(crate) fn attributes(&self) -> &[(&'static str, String)] {
        &self.attributes
    }

    fn with(mut self, key: &'static str, value: &str) -> Self {
        self.attributes.retain(|(name, _)| *name != key);
        if !value.is_empty() {
            self.attributes.push((key, value.to_owned()));
        }
        self
    }
}
