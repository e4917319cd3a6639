use super::*;

const MINIMAL: &str = "cluster: a\nclusterset: demo\n";

fn parse(text: &str) -> Result<Settings, SettingsError> {
    Settings::parse(text, Path::new("/etc/isthmus/cluster.yaml"))
}

fn valid(more: &str) -> Settings {
    parse(&format!("{MINIMAL}{more}")).unwrap()
}

/// Every message for the minimal settings and `more`, without the file.
fn refused(more: &str) -> Vec<String> {
    let text = parse(&format!("{MINIMAL}{more}")).unwrap_err().to_string();
    text.lines().map(|line| line.replace("/etc/isthmus/cluster.yaml:", "")).collect()
}

fn sidecar(name: &str, more: &str) -> String {
    format!("  - {{name: {name}, namespace: shop, {more}}}\n")
}

#[test]
fn two_fields_are_enough() {
    let settings = valid("");
    assert_eq!(settings.trust_domain.as_str(), "a.demo");
    assert_eq!(settings.manifests, Path::new("/etc/isthmus/manifests"));
    assert_eq!(settings.state, Path::new("/etc/isthmus/state"));
    assert_eq!(settings.ca_socket(), Path::new("/etc/isthmus/state/ca.sock"));
    assert_eq!(settings.eastwest.link, "127.0.0.1:15443".parse().unwrap());
    assert!(settings.worker_count() > 0);
    assert_eq!(settings.vip_range(), "243.0.0.0/16".parse());
    assert_eq!(settings.locality(), Locality::default());
}

#[test]
fn paths_are_relative_to_the_settings_file() {
    let settings = valid(
        "manifests: m\nstate: /var/lib/isthmus\ntelemetry: {accessLogFile: ./a.log}\n\
        ca: {userIntermediate: {chain: ./c, key: ../k, root: /r}}\n",
    );
    assert_eq!(settings.manifests, Path::new("/etc/isthmus/m"));
    assert_eq!(settings.state, Path::new("/var/lib/isthmus"));
    let target = settings.telemetry.access_log_options().target;
    let file = isthmus_telemetry::AccessLogTarget::File("/etc/isthmus/a.log".into());
    assert_eq!(target, file);
    let user = settings.authority_options().user_intermediate.unwrap();
    assert_eq!(user.chain, Path::new("/etc/isthmus/c"));
    assert_eq!(user.key, Path::new("/etc/isthmus/../k"));
    assert_eq!(user.roots, Path::new("/r"));
}

#[test]
fn a_field_that_cannot_be_read_is_named_with_its_line() {
    for (more, want) in [
        ("ingres: {}\n", "3: ingres: unknown field"),
        ("workers: many\n", "3: workers: is not a whole number"),
        (
            "drain:\n  delay: 0s\n  deadline: soon\n",
            "5: drain.deadline: \"soon\" is not a duration",
        ),
        ("ingress: {ports: {80: 99999}}\n", "3: ingress.ports.80: "),
        ("eastwest: {link: localhost}\n", "3: eastwest.link: "),
        ("controller: {clustersetRange: 10.0.0.0/30}\n", "3: controller.clustersetRange: "),
        ("sidecars:\n  - name: Bad\n", "4: sidecars[0].name: "),
        ("sidecars:\n  - name: a\n", "missing field `namespace`"),
        ("telemetry: {accessLog: some}\n", "3: telemetry.accessLog: "),
        ("cluster: b\n", "duplicate"),
        ("log: {format: text\n", ""),
        ("region: [\n", ""),
        ("region: !!binary x\n", ""),
    ] {
        let found = refused(more);
        assert_eq!(found.len(), 1, "{more}: {found:?}");
        assert!(found[0].contains(want), "{more}: {found:?}");
    }
    assert!(parse("").is_err());
    assert!(parse("clusterset: demo\n").unwrap_err().to_string().contains("cluster"));
}

#[test]
fn everything_that_is_out_of_range_is_reported_at_once() {
    let found = refused(
        "workers: 5000\ndrain: {deadline: 2h}\ntelemetry:\n  sampling: 1.5\n  admin: 0.0.0.0:15000\n  \
        otlp: ftp://x\ningress: {limits: {headerBytes: 10, streams: 0, headTimeout: 0s}}\n",
    );
    let want = [
        "3: workers: 5000 is not from 0 to 1024",
        "4: drain.deadline: 2h is not from 0s to 1h",
        "9: ingress.limits.headerBytes: 10 is not from 8192 to 1048576",
        "9: ingress.limits.streams: 0 is not from 1 to 10000",
        "9: ingress.limits.headTimeout: 0s is not from 1ms to 1h",
        "6: telemetry.sampling: 1.5 is not from 0.0 to 1.0",
        "7: telemetry.admin: is not a loopback address; the admin endpoint has no other guard",
        "8: telemetry.otlp: is not of the form http://host:port; TLS comes from the mesh",
    ];
    assert_eq!(found, want);
    assert_eq!(refused("telemetry: {sampling: .nan}\n").len(), 1);
}

#[test]
fn lifetimes_of_certificates_fit_each_other() {
    for (ca, field) in [
        ("svidLifetime: 1s", "ca.svidLifetime"),
        ("svidLifetime: 1h, intermediateLifetime: 1h", "ca.intermediateLifetime"),
        ("rootLifetime: 8d", "ca.rootLifetime"),
        ("rotationOverlap: 3000d", "ca.rotationOverlap"),
    ] {
        let found = refused(&format!("ca: {{{ca}}}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("3: {field}: ")), "{found:?}");
    }
    // Settings that pass are settings that the authority takes.
    let folder = tempfile::tempdir().unwrap();
    let mut options = valid("ca: {svidLifetime: 5s, intermediateLifetime: 10s, rootLifetime: 30s, rotationOverlap: 5s}\n").authority_options();
    options.state_dir = folder.path().join("ca");
    isthmus_certs::Authority::open(options, isthmus_runtime::clock::wall()).unwrap();
}

#[test]
fn two_listeners_have_two_addresses() {
    let found = refused("dns: {address: 127.0.0.1:15443}\n");
    assert_eq!(found, ["3: dns.address: 127.0.0.1:15443 is also eastwest.link"]);
    let found = refused("dns: {address: 0.0.0.0:15443}\n");
    assert_eq!(found, ["3: dns.address: 0.0.0.0:15443 is also eastwest.link"]);
    let found = refused("ingress: {ports: {80: 8080, 81: 8080}}\n");
    assert_eq!(found, ["3: ingress.ports.81: 127.0.0.1:8080 is also ingress.ports.80"]);
    let found = refused("dns: {address: 127.0.0.1:0}\n");
    assert_eq!(found, ["3: dns.address: port 0 is no port that others could know"]);
    valid("dns: {address: 127.0.0.2:15443}\n");
    valid("dns: {enabled: false, address: 127.0.0.1:15443}\n");
}

#[test]
fn sidecars_are_told_apart() {
    let first = sidecar("a", "address: 127.0.0.9, mesh: 127.0.0.9:15008");
    let with = |more: &str| format!("sidecars:\n{first}{}", sidecar("b", more));
    valid(&with("address: 127.0.0.8, mesh: 127.0.0.8:15008"));
    // One that names its ports goes before one that takes the rest.
    valid(&with("address: 127.0.0.9, ports: [1], mesh: 127.0.0.9:15009"));
    for (more, want) in [
        ("address: 127.0.0.9, mesh: 127.0.0.9:15009", "5: sidecars[1].address: sidecar shop/a"),
        (
            "address: 127.0.0.8, mesh: 127.0.0.9:15008",
            "5: sidecars[1].mesh: 127.0.0.9:15008 is also sidecars[0].mesh",
        ),
        ("address: 127.0.0.8, mesh: 0.0.0.0:15010", "5: sidecars[1].mesh: must be an address"),
        ("address: 0.0.0.0, mesh: 127.0.0.8:15008", "5: sidecars[1].address: "),
        (
            "address: 127.0.0.8, mesh: 127.0.0.8:1, outbound: 10.0.0.1:1",
            "5: sidecars[1].outbound: is not a loopback",
        ),
        (
            "address: 127.0.0.8, mesh: 127.0.0.8:1, tcp: [{listen: 10.0.0.1:1, service: a.b.svc.clusterset.local, port: 1}]",
            "5: sidecars[1].tcp[0].listen: is not a loopback",
        ),
    ] {
        let found = refused(&with(more));
        assert!(found[0].starts_with(want), "{more}: {found:?}");
    }
    let twice =
        format!("sidecars:\n{first}{}", sidecar("a", "address: 127.0.0.8, mesh: 127.0.0.8:1"));
    assert_eq!(refused(&twice), ["5: sidecars[1].name: shop/a appears twice"]);
}

#[test]
fn no_workload_gets_an_identity_of_our_own_roles() {
    let found = refused(
        "sidecars: [{name: x, namespace: isthmus-system, serviceAccount: isthmus-controller, \
        address: 127.0.0.9, mesh: 127.0.0.9:15008}]\n",
    );
    assert_eq!(
        found,
        ["3: sidecars[0].namespace: isthmus-system is reserved for the roles of the cluster"]
    );
}

#[test]
fn a_sidecar_is_found_by_its_name_when_that_is_unambiguous() {
    let settings = valid(
        "sidecars:\n  - {name: web, namespace: a, address: 127.0.0.7, mesh: 127.0.0.7:1}\n  \
        - {name: web, namespace: b, address: 127.0.0.8, mesh: 127.0.0.8:1, zone: z}\n  \
        - {name: db, namespace: b, address: 127.0.0.9, mesh: 127.0.0.9:1}\n",
    );
    assert_eq!(settings.sidecar("db").unwrap().full_name(), "b/db");
    assert_eq!(settings.sidecar("b/web").unwrap().full_name(), "b/web");
    assert_eq!(settings.sidecar("b/web").unwrap().locality(&settings), Locality::new("", "z"));
    assert!(matches!(settings.sidecar("web"), Err(UnknownSidecar::Ambiguous { .. })));
    let error = settings.sidecar("c/web").unwrap_err().to_string();
    assert_eq!(error, "the settings have no sidecar \"c/web\"; they have a/web, b/web, b/db");
    assert_eq!(settings.context().workloads.len(), 3);
}

#[test]
fn a_bomb_and_a_huge_file_are_refused_soon() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (from, to) in ["a", "b", "c", "d", "e", "f", "g", "h"]
        .iter()
        .zip(["b", "c", "d", "e", "f", "g", "h", "i"])
    {
        bomb.push_str(&format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 9].join(", ")));
    }
    assert!(parse(&bomb).is_err());
    assert!(parse(&"[".repeat(100_000)).is_err());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cluster.yaml");
    std::fs::write(&path, vec![b'#'; usize::try_from(FILE_BYTES_MAX).unwrap() + 1]).unwrap();
    assert!(Settings::load(&path).unwrap_err().to_string().contains("more than 4194304 bytes"));
    let absent = Settings::load(&folder.path().join("absent.yaml")).unwrap_err();
    assert!(absent.to_string().starts_with("cannot read the settings file"));
}

#[test]
fn the_settings_of_the_examples_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path().join("cluster.yaml");
        if path.exists() {
            Settings::load(&path).unwrap_or_else(|error| panic!("{error}"));
            count += 1;
        }
    }
    assert!(count > 0);
}
