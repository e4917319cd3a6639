//! Hostname tables: a value for the most specific pattern that covers a host.

use std::collections::HashMap;

use crate::name::Hostname;

/// Values by hostname pattern.
///
/// Looked up with a host in lower case, without port and trailing dot.
///
/// Spec: Gateway API: an exact name goes before a wildcard, a longer wildcard before a
/// shorter one, and everything before no hostname at all.
#[derive(Debug, Clone)]
pub struct HostTable<T> {
    exact: HashMap<Box<str>, T>,
    /// By suffix with its leading dot.
    wildcard: HashMap<Box<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), any: None }
    }
}

impl<T> HostTable<T> {
    /// The slot of a pattern; `None` is the pattern of every host.
    pub fn slot(&mut self, pattern: Option<&Hostname>, new: impl FnOnce() -> T) -> &mut T {
        match pattern {
            None => self.any.get_or_insert_with(new),
            Some(name) if name.is_wildcard() => {
                self.wildcard.entry(name.suffix().into()).or_insert_with(new)
            }
            Some(name) => self.exact.entry(name.as_str().into()).or_insert_with(new),
        }
    }

    /// The values whose patterns cover the host, the most specific first.
    pub fn covering<'t>(&'t self, host: &str) -> impl Iterator<Item = &'t T> {
        let suffixes = host.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| &host[at..]);
        let wildcards = if self.wildcard.is_empty() { None } else { Some(suffixes) };
        self.exact
            .get(host)
            .into_iter()
            .chain(wildcards.into_iter().flatten().filter_map(|suffix| self.wildcard.get(suffix)))
            .chain(self.any.as_ref())
    }

    /// The value of the most specific pattern that covers the host.
    pub fn best(&self, host: &str) -> Option<&T> {
        self.covering(host).next()
    }

    /// Applies a function to every value, in no particular order.
    pub fn for_each_mut(&mut self, mut apply: impl FnMut(&mut T)) {
        self.exact.values_mut().for_each(&mut apply);
        self.wildcard.values_mut().for_each(&mut apply);
        self.any.iter_mut().for_each(apply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_pattern_goes_first() {
        let mut table = HostTable::default();
        for pattern in ["a.b.test", "*.b.test", "*.test"] {
            *table.slot(Some(&Hostname::new(pattern).unwrap()), String::new) = pattern.into();
        }
        *table.slot(None, String::new) = "any".into();
        let all = |host| table.covering(host).map(String::as_str).collect::<Vec<_>>();
        assert_eq!(all("a.b.test"), ["a.b.test", "*.b.test", "*.test", "any"]);
        assert_eq!(all("x.y.b.test"), ["*.b.test", "*.test", "any"]);
        assert_eq!(all("b.test"), ["*.test", "any"]);
        assert_eq!(all("test"), ["any"]);
        assert_eq!(all(".test"), ["any"]);
        assert_eq!(table.best("c.b.test").unwrap(), "*.b.test");
        assert_eq!(table.best("other").unwrap(), "any");
    }
}
