use std::time::{Duration, SystemTime};

use isthmus_certs::{Authority, AuthorityOptions};

use super::agree::{Disagreement, Standing, check, standing};
use super::*;

fn invitation(cluster: &str) -> Invitation {
    let folder = tempfile::tempdir().unwrap();
    let trust_domain = TrustDomain::new(&format!("{cluster}.demo")).unwrap();
    let options = AuthorityOptions::new(folder.path().join("state"), trust_domain.clone());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let authority = Authority::open(options, now).unwrap();
    Invitation {
        cluster: ClusterId::new(cluster).unwrap(),
        clusterset: ObjectName::new("demo").unwrap(),
        trust_domain,
        addresses: vec!["203.0.113.7:15443".to_owned(), "gw.example.com:443".to_owned()],
        bundle: String::from_utf8(authority.bundle().to_jwks()).unwrap(),
    }
}

fn everything() -> LinkOptions {
    let rule = AccessRule {
        namespaces: vec![NamePattern::Any],
        names: vec![NamePattern::Any],
        ports: vec![],
    };
    LinkOptions { name: None, import: vec![rule.clone()], export: vec![rule] }
}

#[test]
fn an_invitation_survives_its_config_map_and_its_token() {
    let mut a = invitation("a");
    for addresses in [a.addresses.clone(), Vec::new()] {
        a.addresses = addresses;
        assert_eq!(Invitation::from_config_map(&a.to_config_map()).unwrap(), a);
        let token = a.encode();
        assert!(token.starts_with("isthmus-link-1.") && !token.contains(char::is_whitespace));
        assert_eq!(Invitation::decode(&format!(" {token}\n")).unwrap(), a);
    }
}

#[test]
fn a_token_that_was_cut_or_changed_anywhere_is_noticed() {
    let token = invitation("a").encode();
    for end in 0..token.len() {
        assert!(Invitation::decode(&token[..end]).is_err(), "cut at {end}");
    }
    for at in (0..token.len()).step_by(7) {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(Invitation::decode(&changed).is_err(), "changed at {at}");
    }
    assert_eq!(Invitation::decode(&token[..token.len() - 3]), Err(TokenError::Damaged));
}

#[test]
fn what_is_no_token_is_told_from_one_of_another_version() {
    assert_eq!(Invitation::decode("eyJhbGciOi.J9"), Err(TokenError::Unknown));
    assert_eq!(Invitation::decode(""), Err(TokenError::Unknown));
    let other = Invitation::decode("isthmus-link-2.abc.def");
    assert_eq!(other, Err(TokenError::Version { found: "isthmus-link-2".to_owned() }));
    assert_eq!(Invitation::decode(&"x".repeat(300_000)), Err(TokenError::TooLong));
}

#[test]
fn a_config_map_that_is_not_whole_names_its_key() {
    let good = invitation("a").to_config_map();
    let error = |key: &str, value: Value| {
        let mut bad = good.clone();
        bad["data"][key] = value;
        Invitation::from_config_map(&bad).unwrap_err().to_string()
    };
    assert_eq!(error("trustDomain", Value::Null), "trustDomain is missing");
    assert_eq!(error("cluster", json!("Not A Name")), "cluster is not legal");
    assert_eq!(
        error("addresses", json!("nowhere")),
        "addresses: \"nowhere\" is not of the form host:port"
    );
    assert_eq!(error("addresses", json!("a:1 ".repeat(17))), "addresses has more than 16 entries");
    assert_eq!(error("bundle.json", json!("{}")), "bundle.json is not a trust bundle of a.demo");
    let of_b = json!(invitation("b").bundle);
    assert_eq!(error("bundle.json", of_b), "bundle.json is not a trust bundle of a.demo");
}

#[test]
fn a_cluster_link_is_one_that_the_configuration_takes() {
    let mut a = invitation("a");
    let link = a.to_cluster_link(&everything());
    assert_eq!(link["spec"]["dial"], true);
    assert_eq!(link["spec"]["import"], json!([{"namespaces": ["*"], "names": ["*"]}]));
    for addresses in [a.addresses.clone(), Vec::new()] {
        a.addresses = addresses;
        let link = a.to_cluster_link(&everything());
        let text = link.to_string();
        let documents = isthmus_config::SourceDocument::split("l.yaml", &text);
        let mut index = isthmus_config::Index::new();
        let outcome = index.apply(&documents, 0);
        assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
        let read = index.objects().cluster_links.values().next().unwrap();
        assert_eq!(read.addresses, a.addresses);
        assert_eq!(read.dial, !a.addresses.is_empty());
        assert_eq!(read.jwks(), Some(a.bundle.as_str()));
    }
}

#[test]
fn the_addresses_of_a_service_are_those_that_other_clusters_reach() {
    let service = |kind: &str, more: Value| {
        let mut value =
            json!({"spec": {"type": kind, "ports": [{"port": 15443}, {"port": 15443}]}});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        addresses(&value)
    };
    let ingress = json!({"status": {"loadBalancer": {"ingress": [
        {"ip": "203.0.113.7"}, {"ip": "2001:db8::1"}, {"hostname": "lb.example.com"}, {}]}}});
    assert_eq!(
        service("LoadBalancer", ingress.clone()),
        ["203.0.113.7:15443", "[2001:db8::1]:15443", "lb.example.com:15443"]
    );
    assert!(service("LoadBalancer", json!({})).is_empty());
    assert!(service("ClusterIP", ingress).is_empty());
    assert!(addresses(&json!(null)).is_empty());
    let external = json!({"spec": {"type": "NodePort", "externalIPs": ["198.51.100.1"], "ports": [{"port": 1}]}});
    assert_eq!(addresses(&external), ["198.51.100.1:1"]);
    let given = json!({"metadata": {"annotations": {ADDRESSES_ANNOTATION: "gw.example:443, bad, [::1]:5"}}});
    assert_eq!(service("ClusterIP", given), ["gw.example:443", "[::1]:5"]);
}

#[test]
fn clusters_that_cannot_be_linked_are_told_why() {
    let (a, b) = (invitation("a"), invitation("b"));
    assert_eq!(check(&a, &b), Ok(()));
    assert!(matches!(check(&a, &a), Err(Disagreement::SameCluster { .. })));
    let same = Invitation { trust_domain: a.trust_domain.clone(), ..b.clone() };
    assert!(matches!(check(&a, &same), Err(Disagreement::SameTrustDomain { .. })));
    let other = Invitation { clusterset: ObjectName::new("x").unwrap(), ..b.clone() };
    let error = check(&a, &other).unwrap_err().to_string();
    assert!(error.starts_with("cluster a is in clusterset demo and cluster b in x"), "{error}");
    let hidden = |of: &Invitation| Invitation { addresses: Vec::new(), ..of.clone() };
    assert_eq!(check(&a, &hidden(&b)), Ok(()));
    let error = check(&hidden(&a), &hidden(&b)).unwrap_err().to_string();
    assert!(error.starts_with("neither a nor b has an address yet"), "{error}");
}

#[test]
fn a_link_that_exists_is_known_by_its_authority() {
    let (a, again) = (invitation("a"), invitation("a"));
    let link = a.to_cluster_link(&everything());
    assert_eq!(standing(&[], &a, "a"), Standing::Absent);
    let of = |link: &Value, invitation| standing(std::slice::from_ref(link), invitation, "a");
    assert_eq!(of(&link, &a), Standing::Known { name: "a".to_owned() });
    // The same names, and keys that were made anew.
    assert_eq!(of(&link, &again), Standing::OtherAuthority { name: "a".to_owned() });
    let mut moved = link.clone();
    moved["spec"]["cluster"] = json!("z");
    assert_eq!(of(&moved, &a), Standing::OtherAuthority { name: "a".to_owned() });
    moved["spec"]["trustDomain"] = json!("z.demo");
    assert_eq!(of(&moved, &a), Standing::NameTaken { cluster: "z".to_owned() });
    let mut kept = link;
    kept["spec"]["bundle"] = json!({"configMapRef": {"name": "a"}});
    assert_eq!(of(&kept, &a), Standing::KeptElsewhere { name: "a".to_owned() });
}
