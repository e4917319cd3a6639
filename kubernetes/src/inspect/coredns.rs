//! Whether CoreDNS sends `clusterset.local` to us. Pure: the Corefile is a text.

/// What a Corefile says of the stub domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StubDomain {
    /// No server block has the zone.
    Absent,
    /// A server block has the zone and forwards it to these addresses.
    Forwarded {
        /// The addresses as they are written, without the zone of the directive.
        to: Vec<String>,
    },
    /// A server block has the zone and forwards nothing.
    NotForwarded,
}

/// Looks for the server block of [`ZONE`] in a Corefile.
///
/// Spec: CoreDNS Corefile syntax: server blocks `zone... { directive... }`, comments from
/// `#` to the end of the line.
pub fn stub_domain(corefile: &str) -> StubDomain {
    let mut depth = 0_usize;
    let mut is_ours = false;
    let mut found = StubDomain::Absent;
    for line in corefile.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if depth == 0 && !line.is_empty() {
            let zones = line.trim_end_matches('{').split([' ', '\t', ',']);
            is_ours = zones.map(zone).any(|zone| zone == ZONE);
            if is_ours && found == StubDomain::Absent {
                found = StubDomain::NotForwarded;
            }
        }
        let mut words = line.split_whitespace();
        if is_ours && depth >= 1 && matches!(words.next(), Some("forward")) {
            let to: Vec<String> =
                words.skip(1).take_while(|word| *word != "{").map(str::to_owned).collect();
            if !to.is_empty() {
                found = StubDomain::Forwarded { to };
            }
        }
        depth += line.matches('{').count();
        depth = depth.saturating_sub(line.matches('}').count());
    }
    found
}

/// The host of an upstream: `10.0.0.10` of `dns://10.0.0.10:53`.
pub fn host(upstream: &str) -> &str {
    let rest = upstream.split_once("://").map_or(upstream, |(_, rest)| rest);
    if let Some((address, _)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match rest.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => rest,
    }
}

/// The zone of a server block's address: `clusterset.local` of `dns://clusterset.local.:53`.
fn zone(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split(':').next().unwrap_or_default().trim_end_matches('.')
}

/// The zone of services of the clusterset.
pub const ZONE: &str = "clusterset.local";
/// The ConfigMap that people edit.
pub const CONFIG_MAP: &str = "coredns";
/// Its namespace.
pub const NAMESPACE: &str = "kube-system";

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = ".:53 {\n    errors\n    forward . /etc/resolv.conf {\n       max_concurrent 1000\n    }\n    # clusterset.local is not here\n}\n";

    #[test]
    fn the_block_of_the_zone_is_found_whatever_is_around_it() {
        assert_eq!(stub_domain(PLAIN), StubDomain::Absent);
        for block in [
            "clusterset.local:53 {\n    errors\n    forward . 10.96.0.7\n}\n",
            "# BEGIN isthmus\nclusterset.local. {\n  forward clusterset.local 10.96.0.7 {\n    prefer_udp\n  }\n}\n# END\n",
            "example.org dns://clusterset.local:53 {\n\tforward . 10.96.0.7\n}\n",
        ] {
            let to = vec!["10.96.0.7".to_owned()];
            let want = StubDomain::Forwarded { to };
            assert_eq!(stub_domain(&format!("{PLAIN}{block}")), want, "{block}");
            assert_eq!(stub_domain(&format!("{block}{PLAIN}")), want, "{block}");
        }
    }

    #[test]
    fn a_block_without_a_forward_is_told_from_none() {
        let block = "clusterset.local {\n  errors\n}\n";
        assert_eq!(stub_domain(&format!("{PLAIN}{block}")), StubDomain::NotForwarded);
        assert_eq!(stub_domain(""), StubDomain::Absent);
        assert_eq!(stub_domain("}}}{{{\nforward"), StubDomain::Absent);
    }

    #[test]
    fn an_upstream_is_read_in_every_form() {
        for text in ["10.0.0.1", "10.0.0.1:53", "dns://10.0.0.1:53"] {
            assert_eq!(host(text), "10.0.0.1");
        }
        for text in ["fd00::1", "[fd00::1]:53", "tls://[fd00::1]:853"] {
            assert_eq!(host(text), "fd00::1");
        }
    }
}
