//! ClusterSetIPs: one address for each import, from a range of this cluster.
//!
//! The address is derived from the name, so a cluster that lost its state gives nearly all
//! imports their old addresses again; a collision moves on to the next free address. Once
//! given, an address stays for the life of the import.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::proto::ServiceName;

/// A range that is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VipRangeInvalid {
    /// The text is not `<IPv4 address>/<prefix length>`.
    #[error("the range {value:?} of ClusterSetIPs is not of the form a.b.c.d/n")]
    Form {
        /// The text, cut to 80 characters.
        value: String,
    },
    /// The range is too small or too large.
    #[error("the range of ClusterSetIPs has a prefix length of {prefix}, 8 to 28 are allowed")]
    Prefix {
        /// The prefix length.
        prefix: u8,
    },
}

/// The addresses that imports of this cluster get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipRange {
    base: u32,
    prefix: u8,
}

impl VipRange {
    /// Makes a range; bits of `address` below the prefix are dropped.
    ///
    /// # Errors
    ///
    /// [`VipRangeInvalid::Prefix`] when the prefix length is not 8 to 28.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, VipRangeInvalid> {
        if !(8..=28).contains(&prefix) {
            return Err(VipRangeInvalid::Prefix { prefix });
        }
        Ok(Self { base: address.to_bits() & (u32::MAX << (32 - prefix)), prefix })
    }

    /// Whether the address is one of the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                address.to_bits() & (u32::MAX << (32 - self.prefix)) == self.base
            }
            IpAddr::V6(_) => false,
        }
    }

    /// Addresses that may be given: without the first and the last.
    fn usable(&self) -> u32 {
        (1 << (32 - self.prefix)) - 2
    }

    fn nth(&self, n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self.base + 1 + n % self.usable()))
    }
}

impl std::str::FromStr for VipRange {
    type Err = VipRangeInvalid;

    fn from_str(value: &str) -> Result<Self, VipRangeInvalid> {
        let form = || VipRangeInvalid::Form { value: value.chars().take(80).collect() };
        let (address, prefix) = value.split_once('/').ok_or_else(form)?;
        let address = address.parse().map_err(|_| form())?;
        Self::new(address, prefix.parse().map_err(|_| form())?)
    }
}

/// Which import has which address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipPool {
    range: VipRange,
    given: BTreeMap<ServiceName, IpAddr>,
    taken: BTreeSet<IpAddr>,
}

impl VipPool {
    /// A pool with addresses that were given before; what is outside of the range, or
    /// doubled, is given anew.
    pub fn new(range: VipRange, given: impl IntoIterator<Item = (ServiceName, IpAddr)>) -> Self {
        let mut pool = Self { range, given: BTreeMap::new(), taken: BTreeSet::new() };
        for (name, address) in given {
            if range.contains(address) && pool.taken.insert(address) {
                pool.given.insert(name, address);
            }
        }
        pool
    }

    /// The address of an import; `None` when the range is used up.
    pub fn address(&mut self, name: &ServiceName) -> Option<IpAddr> {
        if let Some(address) = self.given.get(name) {
            return Some(*address);
        }
        let start = place(name) % self.range.usable();
        let candidates = (0..self.range.usable()).map(|n| self.range.nth(start + n));
        let free = candidates.into_iter().find(|address| !self.taken.contains(address))?;
        self.taken.insert(free);
        self.given.insert(name.clone(), free);
        Some(free)
    }

    /// Takes back the addresses of imports that are gone.
    pub fn retain(&mut self, keep: impl Fn(&ServiceName) -> bool) {
        let taken = &mut self.taken;
        self.given.retain(|name, address| {
            let kept = keep(name);
            if !kept {
                taken.remove(address);
            }
            kept
        });
    }

    /// All addresses that are given.
    pub fn given(&self) -> &BTreeMap<ServiceName, IpAddr> {
        &self.given
    }
}

/// FNV-1a: the same in every release, which the standard hasher does not promise.
fn place(name: &ServiceName) -> u32 {
    let bytes = name.to_string();
    let hash = bytes
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // The upper half of FNV is mixed better than the lower.
    (hash >> 16) ^ hash
}

#[cfg(test)]
mod tests {
    use isthmus_model::Label;

    use super::*;

    fn name(n: usize) -> ServiceName {
        ServiceName::new(Label::new("shop").unwrap(), Label::new(&format!("s{n}")).unwrap())
    }

    #[test]
    fn addresses_stay_and_are_never_given_twice() {
        let range: VipRange = "127.64.9.9/24".parse().unwrap();
        let mut pool = VipPool::new(range, []);
        let first: Vec<_> = (0..254).map(|n| pool.address(&name(n)).unwrap()).collect();
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 254);
        assert_eq!(pool.address(&name(254)), None);
        assert!(first.iter().all(|address| range.contains(*address)));
        pool.retain(|name| name.name.as_str() != "s7");
        assert_eq!(pool.address(&name(254)), Some(first[7]));
        assert_eq!(pool.address(&name(8)), Some(first[8]));
    }

    #[test]
    fn a_restored_pool_gives_the_same_addresses() {
        let range: VipRange = "127.64.0.0/16".parse().unwrap();
        let mut pool = VipPool::new(range, []);
        let address = pool.address(&name(1)).unwrap();
        let mut restored = VipPool::new(range, pool.given().clone());
        assert_eq!(restored.address(&name(1)), Some(address));
        assert_eq!(VipPool::new(range, []).address(&name(1)), Some(address));
    }

    #[test]
    fn odd_ranges_are_refused() {
        for bad in ["127.0.0.0", "127.0.0.0/30", "127.0.0.0/4", "x/16", "::1/16", "1.2.3.4/x"] {
            assert!(bad.parse::<VipRange>().is_err(), "{bad}");
        }
    }
}
