//! The compiled routes of one listener or service: host, then path, then predicates.
//!
//! Built once when configuration changes, so that a request costs a few hash lookups: no
//! regular expression is run unless a route has one, and nothing is allocated.
//!
//! Precedence is the derive order of [`Precedence`]; candidates are kept sorted by it, so
//! the first that matches is the answer.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::decision::{RequestHead, Trail};
use crate::hosts::HostTable;
use crate::name::Hostname;
use crate::route::{HeaderMatch, HttpRoute, PathMatch, QueryMatch, RouteMatch, Rule};

/// Routes by host.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    hosts: HostTable<PathTable>,
    routes: usize,
}

impl RouteTable {
    /// Adds every rule of a route under the hostnames it has here; none means every host.
    ///
    /// `index` is the place of the route in its snapshot.
    pub fn add(&mut self, route: &Arc<HttpRoute>, index: u32, hostnames: &[Hostname]) {
        self.routes += 1;
        if hostnames.is_empty() {
            self.hosts.slot(None, PathTable::default).add(route, index);
        }
        for hostname in hostnames {
            self.hosts.slot(Some(hostname), PathTable::default).add(route, index);
        }
    }

    /// Sorts the candidates; called once after the last [`RouteTable::add`].
    pub fn finish(&mut self) {
        self.hosts.for_each_mut(PathTable::sort);
    }

    /// How many routes are attached.
    pub fn len(&self) -> usize {
        self.routes
    }

    /// Whether no route is attached.
    pub fn is_empty(&self) -> bool {
        self.routes == 0
    }

    /// The rule for a request: of the most specific hostname whose routes match it.
    pub fn find(&self, head: &RequestHead<'_>, trail: &mut Trail) -> Option<&Matched> {
        self.hosts.covering(head.host).find_map(|paths| paths.find(head, trail))
    }
}

/// A rule, with the match that chose it.
#[derive(Debug, Clone)]
pub struct Matched {
    /// The route.
    pub route: Arc<HttpRoute>,
    /// Place of the route in its snapshot.
    pub route_index: u32,
    /// Index of the rule in the route.
    pub rule_index: usize,
    /// Bytes of the request path that a prefix match covers, without a trailing slash; 0
    /// for other matches and for the prefix `/`.
    pub prefix_bytes: usize,
    precedence: Precedence,
    predicates: Option<Box<RouteMatch>>,
}

impl Matched {
    /// The rule itself.
    pub fn rule(&self) -> &Rule {
        &self.route.rules[self.rule_index]
    }
}

/// What goes first among matches of one hostname; smaller goes first.
///
/// Spec: HTTPRouteRule.matches: "1. 'Exact' path match. 2. 'Prefix' path match with
/// largest number of characters. 3. Method match. 4. Largest number of header matches.
/// 5. Largest number of query param matches. If ties still exist across multiple Routes
/// … 1. The oldest Route based on creation timestamp. 2. The Route appearing first in
/// alphabetical order by '{namespace}/{name}'. … within an HTTPRoute … the FIRST matching
/// rule (in list order)." Regular expressions go between exact and prefix, longer ones
/// first, since an expression is written to be more special than a catch-all prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Precedence {
    path_kind: u8,
    path_bytes: Reverse<usize>,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    created: i64,
    route: String,
    rule: usize,
    alternative: usize,
}

/// The rules of one hostname, by path.
#[derive(Debug, Clone, Default)]
struct PathTable {
    exact: HashMap<Box<str>, Vec<Matched>>,
    regex: Vec<Matched>,
    /// By prefix without trailing slash; `/` is the empty text.
    prefix: HashMap<Box<str>, Vec<Matched>>,
    /// Path elements of the deepest prefix, which bounds the lookups of one request.
    prefix_depth_max: usize,
}

impl PathTable {
    fn add(&mut self, route: &Arc<HttpRoute>, index: u32) {
        for (rule, content) in route.rules.iter().enumerate() {
            for (alternative, matching) in content.matches.iter().enumerate() {
                self.add_match(route, index, (rule, alternative), matching);
            }
        }
    }

    fn add_match(
        &mut self,
        route: &Arc<HttpRoute>,
        route_index: u32,
        (rule, alternative): (usize, usize),
        matching: &RouteMatch,
    ) {
        let (path_kind, path_bytes) = match &matching.path {
            PathMatch::Exact(path) => (0, path.len()),
            PathMatch::Regex(pattern) => (1, pattern.as_str().len()),
            PathMatch::Prefix(path) => (2, path.trim_end_matches('/').len()),
        };
        let simple = matching.method.is_none()
            && matching.headers.is_empty()
            && matching.query.is_empty()
            && path_kind != 1;
        let matched = Matched {
            route: Arc::clone(route),
            route_index,
            rule_index: rule,
            prefix_bytes: if path_kind == 2 { path_bytes } else { 0 },
            precedence: Precedence {
                path_kind,
                path_bytes: Reverse(path_bytes),
                method: Reverse(matching.method.is_some()),
                headers: Reverse(matching.headers.len()),
                query: Reverse(matching.query.len()),
                created: route.created,
                route: route.name.clone(),
                rule,
                alternative,
            },
            predicates: (!simple).then(|| Box::new(matching.clone())),
        };
        match &matching.path {
            PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default().push(matched),
            PathMatch::Regex(_) => self.regex.push(matched),
            PathMatch::Prefix(path) => {
                let path = path.trim_end_matches('/');
                self.prefix_depth_max = self.prefix_depth_max.max(path.matches('/').count());
                self.prefix.entry(path.into()).or_default().push(matched);
            }
        }
    }

    fn sort(&mut self) {
        let by_precedence = |list: &mut Vec<Matched>| {
            list.sort_by(|a, b| a.precedence.cmp(&b.precedence));
        };
        self.exact.values_mut().for_each(by_precedence);
        self.prefix.values_mut().for_each(by_precedence);
        by_precedence(&mut self.regex);
    }

    fn find(&self, head: &RequestHead<'_>, trail: &mut Trail) -> Option<&Matched> {
        let first = |list: &'_ Vec<Matched>, trail: &mut Trail| -> Option<usize> {
            list.iter().position(|candidate| candidate.accepts(head, trail))
        };
        if let Some(list) = self.exact.get(head.path)
            && let Some(at) = first(list, trail)
        {
            return list.get(at);
        }
        if let Some(at) = first(&self.regex, trail) {
            return self.regex.get(at);
        }
        if self.prefix.is_empty() {
            return None;
        }
        for end in prefix_ends(head.path, self.prefix_depth_max) {
            if let Some(list) = self.prefix.get(&head.path[..end])
                && let Some(at) = first(list, trail)
            {
                return list.get(at);
            }
        }
        None
    }
}

/// The ends of the element-wise prefixes of a path, longest first, of at most `depth_max`
/// elements.
fn prefix_ends(path: &str, depth_max: usize) -> impl Iterator<Item = usize> {
    // `/a/b` has the prefixes ``, `/a` and `/a/b`: each ends before a slash or at the end.
    let mut ends = [0usize; PREFIX_DEPTH_LIMIT + 1];
    let mut count = 0;
    let slashes = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for end in slashes.take(depth_max.min(PREFIX_DEPTH_LIMIT) + 1) {
        ends[count] = end;
        count += 1;
    }
    (0..count).rev().map(move |index| ends[index])
}

impl Matched {
    fn accepts(&self, head: &RequestHead<'_>, trail: &mut Trail) -> bool {
        let accepted = match &self.predicates {
            None => true,
            Some(matching) => accepts(matching, head),
        };
        trail.candidate(&self.route.name, self.rule_index, accepted);
        accepted
    }
}

fn accepts(matching: &RouteMatch, head: &RequestHead<'_>) -> bool {
    let path = match &matching.path {
        PathMatch::Regex(pattern) => pattern.is_match(head.path),
        // The table's key has matched already.
        PathMatch::Exact(_) | PathMatch::Prefix(_) => true,
    };
    path && matching.method.as_ref().is_none_or(|method| method == head.method)
        && matching.headers.iter().all(|want| header_matches(want, head))
        && matching.query.iter().all(|want| query_matches(want, head.query.unwrap_or("")))
}

/// Every value must match and there must be one: a request with two values, of which one
/// matches, is ambiguous and not taken.
fn header_matches(want: &HeaderMatch, head: &RequestHead<'_>) -> bool {
    let mut values = head.headers.get_all(&want.name).iter().peekable();
    values.peek().is_some() && values.all(|value| want.value.matches(value.as_bytes()))
}

fn query_matches(want: &QueryMatch, query: &str) -> bool {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(name, _)| decoded_equals(name, want.name.as_bytes()))
        .is_some_and(|(_, value)| want.value.matches(&decode(value)))
}

fn decoded_equals(text: &str, want: &[u8]) -> bool {
    if text.bytes().any(|b| b == b'%' || b == b'+') {
        decode(text) == want
    } else {
        text.as_bytes() == want
    }
}

/// Decodes `%xx` and `+`, as HTML forms write them; a broken escape stays as it is.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = bytes.get(at + 1..at + 3).filter(|_| byte == b'%').and_then(|hex| {
            let text = std::str::from_utf8(hex).ok()?;
            u8::from_str_radix(text, 16).ok()
        });
        match escape {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    out
}

/// Path elements that a prefix match may have; deeper ones are refused by `config`.
pub const PREFIX_DEPTH_LIMIT: usize = 64;

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::*;
    use crate::route::{Pattern, ValueMatch};

    fn rule(matches: Vec<RouteMatch>) -> Rule {
        let (name, filters, backends) = (None, vec![], vec![]);
        Rule { name, matches, filters, backends, timeouts: Default::default(), retry: None }
    }

    fn prefix(path: &str) -> RouteMatch {
        RouteMatch { path: PathMatch::Prefix(path.into()), ..RouteMatch::default() }
    }

    fn exact(path: &str) -> RouteMatch {
        RouteMatch { path: PathMatch::Exact(path.into()), ..RouteMatch::default() }
    }

    fn table(routes: Vec<(&str, i64, Vec<RouteMatch>)>) -> RouteTable {
        let mut table = RouteTable::default();
        for (name, created, matches) in routes {
            let rules = matches.into_iter().map(|m| rule(vec![m])).collect();
            let route = HttpRoute {
                kind: Default::default(),
                name: name.into(),
                created,
                parents: vec![],
                rules,
            };
            table.add(&Arc::new(route), 0, &[]);
        }
        table.finish();
        table
    }

    fn find(table: &RouteTable, target: &str, headers: &[(&str, &str)]) -> Option<String> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let head = RequestHead { method: &Method::GET, host: "h", path, query, headers: &map };
        let found = table.find(&head, &mut Trail::off())?;
        Some(format!("{}#{}", found.route.name, found.rule_index))
    }

    #[test]
    fn exact_goes_before_regex_before_the_longest_prefix() {
        let regex = RouteMatch {
            path: PathMatch::Regex(Pattern::new("/api/v[0-9]").unwrap()),
            ..RouteMatch::default()
        };
        let table = table(vec![(
            "r",
            0,
            vec![prefix("/"), prefix("/api/"), exact("/api/v1"), regex, prefix("/api/v2/x")],
        )]);
        let check = |path: &str, want: &str| {
            assert_eq!(find(&table, path, &[]).as_deref(), Some(want), "{path}");
        };
        check("/api/v1", "r#2");
        check("/api/v2", "r#3");
        check("/api/v2/x", "r#4");
        check("/api/v2/x/y", "r#4");
        check("/api/v2/xy", "r#1");
        check("/api", "r#1");
        check("/api/", "r#1");
        check("/apiv2", "r#0");
        check("/", "r#0");
    }

    #[test]
    fn more_predicates_win_then_the_older_route_then_its_name() {
        let with_header = |count: usize| RouteMatch {
            headers: (0..count)
                .map(|n| HeaderMatch {
                    name: HeaderName::try_from(format!("x-{n}")).unwrap(),
                    value: ValueMatch::Exact("1".into()),
                })
                .collect(),
            ..prefix("/")
        };
        let table = table(vec![
            ("b", 5, vec![prefix("/")]),
            ("a", 5, vec![prefix("/")]),
            ("young", 9, vec![with_header(1), with_header(2)]),
            ("method", 9, vec![RouteMatch { method: Some(Method::PUT), ..prefix("/") }]),
        ]);
        assert_eq!(find(&table, "/", &[]).unwrap(), "a#0");
        assert_eq!(find(&table, "/", &[("x-0", "1")]).unwrap(), "young#0");
        assert_eq!(find(&table, "/", &[("x-0", "1"), ("x-1", "1")]).unwrap(), "young#1");
    }

    #[test]
    fn a_header_with_a_second_value_does_not_match() {
        let matching = RouteMatch {
            headers: vec![HeaderMatch {
                name: HeaderName::from_static("x-role"),
                value: ValueMatch::Exact("user".into()),
            }],
            ..prefix("/")
        };
        let table = table(vec![("r", 0, vec![matching])]);
        assert!(find(&table, "/", &[("x-role", "user")]).is_some());
        assert!(find(&table, "/", &[("x-role", "user"), ("x-role", "admin")]).is_none());
        assert!(find(&table, "/", &[("x-role", "user,admin")]).is_none());
        assert!(find(&table, "/", &[]).is_none());
    }

    #[test]
    fn query_parameters_are_decoded_and_the_first_counts() {
        let matching = RouteMatch {
            query: vec![QueryMatch { name: "q a".into(), value: ValueMatch::Exact("x&y".into()) }],
            ..prefix("/")
        };
        let table = table(vec![("r", 0, vec![matching])]);
        assert!(find(&table, "/?q+a=x%26y", &[]).is_some());
        assert!(find(&table, "/?z=1&q%20a=x%26y&q+a=no", &[]).is_some());
        assert!(find(&table, "/?q+a=no&q+a=x%26y", &[]).is_none());
        assert!(find(&table, "/?q+a=%zz", &[]).is_none());
    }

    #[test]
    fn a_path_of_many_slashes_costs_a_bounded_number_of_lookups() {
        let path = "/".repeat(100_000);
        assert_eq!(prefix_ends(&path, 3).count(), 4);
        assert_eq!(prefix_ends("/a/b", 9).collect::<Vec<_>>(), [4, 2, 0]);
        assert_eq!(prefix_ends("/", 9).collect::<Vec<_>>(), [1, 0]);
    }
}
