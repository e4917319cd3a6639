//! Places for connections: so many in all, and so many for each address.
//!
//! A bound on all connections alone lets one client take every place, before it has shown
//! who it is. The bound of an address is what one client may have; it must leave room for
//! everybody who shares an address, as the processes of one machine do, or the pods of a
//! node that hides them behind its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of one listener.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    of_address_max: usize,
    addresses: BTreeMap<IpAddr, Arc<Semaphore>>,
}

/// A connection's place, which is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_address: OwnedSemaphorePermit,
}

/// Why a connection has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// The address has as many as one may have.
    #[error("too many connections of one address")]
    Address,
    /// All places are taken.
    #[error("too many connections")]
    All,
}

impl Places {
    /// `max` places in all, of which one address may have `of_address_max`.
    pub fn new(max: usize, of_address_max: usize) -> Self {
        let all = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        let of_address_max = of_address_max.min(Semaphore::MAX_PERMITS);
        Self { all, of_address_max, addresses: BTreeMap::new() }
    }

    /// Takes a place for a connection from `address`. An IPv4 address that is written as
    /// one of IPv6 is the same address.
    ///
    /// # Errors
    ///
    /// [`NoPlace`]: the connection should be closed at once.
    pub fn take(&mut self, address: IpAddr) -> Result<Place, NoPlace> {
        if self.addresses.len() >= ADDRESSES_SWEEP {
            // A permit keeps its semaphore, so one that is held here only has none.
            self.addresses.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let of_all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| NoPlace::All)?;
        let new = || Arc::new(Semaphore::new(self.of_address_max));
        let of_address = self.addresses.entry(address.to_canonical()).or_insert_with(new);
        let of_address = Arc::clone(of_address).try_acquire_owned();
        Ok(Place { _of_all: of_all, _of_address: of_address.map_err(|_| NoPlace::Address)? })
    }
}

/// Addresses at which those without a connection are forgotten.
const ADDRESSES_SWEEP: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn one_address_cannot_take_the_places_of_others() {
        let mut places = Places::new(4, 2);
        let mut own: Vec<_> = (0..2).map(|_| places.take(address(1)).unwrap()).collect();
        assert_eq!(places.take(address(1)).unwrap_err(), NoPlace::Address);
        let IpAddr::V4(same) = address(1) else { unreachable!() };
        let same = places.take(same.to_ipv6_mapped().into());
        assert_eq!(same.unwrap_err(), NoPlace::Address, "the same address in another form");
        let others = [places.take(address(2)).unwrap(), places.take(address(2)).unwrap()];
        assert_eq!(places.take(address(3)).unwrap_err(), NoPlace::All);
        own.pop();
        let again = places.take(address(1));
        assert!(again.is_ok(), "an ended connection gives its place back");
        drop(others);
    }

    #[test]
    fn a_refused_address_takes_no_place_of_all() {
        let mut places = Places::new(2, 1);
        let _own = places.take(address(1)).unwrap();
        for _ in 0..3 {
            assert_eq!(places.take(address(1)).unwrap_err(), NoPlace::Address);
        }
        assert!(places.take(address(2)).is_ok());
    }

    #[test]
    fn addresses_without_a_connection_are_forgotten() {
        let mut places = Places::new(2, 1);
        let held = places.take(address(0));
        for n in 1..=u32::try_from(ADDRESSES_SWEEP).unwrap() {
            drop(places.take(address(n)));
        }
        assert!(held.is_ok() && places.addresses.len() < 3, "{}", places.addresses.len());
        assert!(places.addresses.contains_key(&address(0)));
    }
}
