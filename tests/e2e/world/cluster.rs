//! What a test asks for: a cluster, in the words of an operator.

use super::address::ingress_port;

/// A cluster to be started.
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) zone: String,
    pub(crate) apps: Vec<App>,
    pub(crate) exports: Vec<String>,
    pub(crate) links: Vec<Link>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) manifests: Vec<(String, String)>,
    pub(crate) roles: Vec<Role>,
    pub(crate) settings: Vec<String>,
    pub(crate) limits: String,
}

impl Cluster {
    /// A cluster of the clusterset `e2e` whose roles all run in one process.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            region: format!("region-{name}"),
            zone: format!("zone-{name}"),
            apps: Vec::new(),
            exports: Vec::new(),
            links: Vec::new(),
            listeners: Vec::new(),
            manifests: Vec::new(),
            roles: vec![Role::Up],
            settings: Vec::new(),
            limits: "{}".into(),
        }
    }

    /// Adds a Gateway with one HTTP listener on port 80 for every host.
    pub(crate) fn gateway(self) -> Self {
        self.listener(Listener::http(80))
    }

    /// Adds a listener to the Gateway.
    pub(crate) fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Adds an application with its Service and EndpointSlice.
    pub(crate) fn app(mut self, app: App) -> Self {
        self.apps.push(app);
        self
    }

    /// Exports a service of the namespace `shop` to the clusterset.
    pub(crate) fn export(mut self, service: &str) -> Self {
        self.exports.push(service.into());
        self
    }

    /// Adds a link.
    pub(crate) fn link(mut self, link: Link) -> Self {
        self.links.push(link);
        self
    }

    /// Adds a route for a host; `rules` is YAML, one `- {...}` on each line.
    pub(crate) fn route(self, name: &str, host: &str, rules: &str) -> Self {
        let file = format!("route-{name}.yaml");
        self.manifest(&file, &http_route(name, host, rules))
    }

    /// Adds a manifest file.
    pub(crate) fn manifest(mut self, file: &str, text: &str) -> Self {
        self.manifests.push((file.into(), text.into()));
        self
    }

    /// Runs these roles as processes of their own instead of all in one.
    pub(crate) fn processes(mut self, roles: impl IntoIterator<Item = Role>) -> Self {
        self.roles = roles.into_iter().collect();
        self
    }

    /// Sets what a client of the ingress may use, as YAML.
    pub(crate) fn limits(mut self, limits: &str) -> Self {
        self.limits = limits.into();
        self
    }

    /// Adds a line to the settings.
    pub(crate) fn setting(mut self, line: &str) -> Self {
        self.settings.push(line.into());
        self
    }

    pub(crate) fn ingress_ports(&self) -> Vec<(u16, u16)> {
        let mut ports: Vec<u16> = self.listeners.iter().map(|listener| listener.port).collect();
        ports.dedup();
        ports.into_iter().map(|port| (port, ingress_port(port))).collect()
    }
}

/// A process of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// All roles.
    Up,
    /// The authority.
    Ca,
    /// The controller.
    Controller,
    /// Ingress and east-west gateway.
    Gateway,
    /// One sidecar.
    Sidecar(String),
}

impl Role {
    /// The name of its settings file, without the extension.
    pub(crate) fn file(&self) -> &str {
        match self {
            Self::Up => "cluster",
            Self::Ca => "ca",
            Self::Controller => "controller",
            Self::Gateway => "gateway",
            Self::Sidecar(name) => name,
        }
    }

    /// Its arguments, without the settings file.
    pub(crate) fn arguments(&self) -> Vec<&str> {
        match self {
            Self::Up => vec!["up"],
            Self::Ca => vec!["ca"],
            Self::Controller => vec!["controller"],
            Self::Gateway => vec!["gateway"],
            Self::Sidecar(name) => vec!["sidecar", "--name", name],
        }
    }
}

/// A listener of the cluster's one Gateway, `edge` in the namespace `shop`.
pub(crate) struct Listener {
    pub(crate) port: u16,
    pub(crate) hostname: Option<String>,
    /// Names of Secrets; none means plain HTTP.
    pub(crate) secrets: Vec<String>,
}

impl Listener {
    /// Plain HTTP for every host.
    pub(crate) fn http(port: u16) -> Self {
        Self { port, hostname: None, secrets: Vec::new() }
    }

    /// HTTPS for one host with the certificate in a Secret.
    pub(crate) fn https(port: u16, hostname: &str, secret: &str) -> Self {
        Self { port, hostname: Some(hostname.into()), secrets: vec![secret.into()] }
    }
}

/// A link to another cluster.
pub(crate) struct Link {
    pub(crate) to: String,
    pub(crate) dial: bool,
    pub(crate) relayed: bool,
    pub(crate) import: Vec<String>,
    pub(crate) export: Vec<String>,
}

impl Link {
    /// A link that is dialled from here and lets every service of `shop` pass both ways.
    pub(crate) fn to(cluster: &str) -> Self {
        Self {
            to: cluster.into(),
            dial: true,
            relayed: false,
            import: vec!["*".into()],
            export: vec!["*".into()],
        }
    }

    /// A link that the other side dials.
    pub(crate) fn from(cluster: &str) -> Self {
        Self { dial: false, ..Self::to(cluster) }
    }

    /// Leads the link through a relay that remembers every byte.
    pub(crate) fn relayed(mut self) -> Self {
        self.relayed = true;
        self
    }

    /// Imports only these services.
    pub(crate) fn importing(mut self, services: &[&str]) -> Self {
        self.import = services.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Exports only these services to that cluster.
    pub(crate) fn exporting(mut self, services: &[&str]) -> Self {
        self.export = services.iter().map(|&name| name.to_owned()).collect();
        self
    }
}

/// An application with a Service of its name: port 80, in the namespace `shop`.
pub(crate) struct App {
    pub(crate) service: String,
    pub(crate) namespace: String,
    pub(crate) kind: Kind,
    pub(crate) meshed: bool,
    pub(crate) outbound: bool,
    pub(crate) inbound: bool,
    /// Its sidecar's mesh port is reached through a relay that remembers every byte.
    pub(crate) tapped: bool,
    /// Services that it reaches by opaque forwards on its own address, each on a port.
    pub(crate) forwards: Vec<(u16, String)>,
}

/// What an application speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// HTTP/1.1 and HTTP/2 without TLS; answers with JSON.
    Http,
    /// The same, with a Service that says that it speaks HTTP/2.
    Http2,
    /// Raw bytes, sent back.
    Echo,
    /// HTTP/1.1, remembering every byte.
    Recorder,
    /// Changes the protocol when asked and sends every byte back.
    Upgrader,
}

impl App {
    fn new(service: &str, kind: Kind) -> Self {
        Self {
            service: service.into(),
            namespace: "shop".into(),
            kind,
            meshed: false,
            outbound: false,
            inbound: false,
            tapped: false,
            forwards: Vec::new(),
        }
    }

    /// An HTTP application that says what reached it.
    pub(crate) fn http(service: &str) -> Self {
        Self::new(service, Kind::Http)
    }

    /// An HTTP application that is spoken to in HTTP/2.
    pub(crate) fn http2(service: &str) -> Self {
        Self::new(service, Kind::Http2)
    }

    /// A TCP application that sends every byte back.
    pub(crate) fn tcp(service: &str) -> Self {
        Self::new(service, Kind::Echo)
    }

    /// An HTTP/1.1 application that remembers every byte.
    pub(crate) fn recorder(service: &str) -> Self {
        Self::new(service, Kind::Recorder)
    }

    /// An application that speaks WebSocket, as far as a proxy can see.
    pub(crate) fn upgrader(service: &str) -> Self {
        Self::new(service, Kind::Upgrader)
    }

    /// Puts it into another namespace.
    pub(crate) fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Gives it a sidecar.
    pub(crate) fn meshed(mut self) -> Self {
        self.meshed = true;
        self
    }

    /// Gives it a sidecar with a port for its own calls.
    pub(crate) fn calling(mut self) -> Self {
        self.outbound = true;
        self.meshed()
    }

    /// Gives it a sidecar with a port that takes plaintext if policy allows it.
    pub(crate) fn with_inbound(mut self) -> Self {
        self.inbound = true;
        self.meshed()
    }

    /// Leads what others send to its sidecar through a relay that remembers every byte.
    pub(crate) fn tapped(mut self) -> Self {
        self.tapped = true;
        self.meshed()
    }

    /// Gives its sidecar an opaque forward to a host of the mesh.
    pub(crate) fn forwarding(mut self, port: u16, host: &str) -> Self {
        self.forwards.push((port, host.into()));
        self.meshed()
    }
}

/// An HTTPRoute of the Gateway `edge` for a host.
pub(crate) fn http_route(name: &str, host: &str, rules: &str) -> String {
    let rules: String = rules.trim().lines().map(|line| format!("    {}\n", line.trim())).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{host}]
  rules:
{rules}"
    )
}
