//! ClusterLinks.

use super::*;

#[test]
fn a_link_must_name_another_cluster_and_trust_domain() {
    let link = |name: &str, domain: &str| {
        format!(
            "---\napiVersion: isthmus.io/v1alpha1\nkind: ClusterLink\nmetadata: {{name: {name}}}\n\
             spec: {{trustDomain: {domain}, bundle: {{inline: '{{\"keys\":[]}}'}}}}\n"
        )
    };
    let text =
        [link("aws", "x.demo"), link("b", "aws.demo"), link("c", "c.demo"), link("d", "c.demo")];
    let found = problems(&run(&text.concat()));
    let want = [
        "ClusterLink aws: Accepted is false: Invalid: the link names this cluster itself",
        "ClusterLink b: Accepted is false: Invalid: the link names the trust domain of this cluster",
        "ClusterLink d: Accepted is false: Conflicted: ClusterLink c names the same cluster or trust domain",
    ];
    assert_eq!(found, want);
}
