//! Who is connected: counted in all and per address, so that one address can not take the places of all.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// The count. Cheap to clone.
#[derive(Clone)]
pub(super) struct Guests {
    counts: Arc<Mutex<Counts>>,
    all_max: usize,
    per_address_max: usize,
}

#[derive(Default)]
struct Counts {
    all: usize,
    /// Addresses without a connection have no entry.
    per_address: HashMap<IpAddr, usize>,
}

/// One connection; it counts until it is dropped.
pub(super) struct Guest {
    counts: Arc<Mutex<Counts>>,
    address: IpAddr,
}

impl Guests {
    pub(super) fn new(all_max: usize, per_address_max: usize) -> Self {
        Self { counts: Arc::default(), all_max, per_address_max }
    }

    /// Counts one more connection of `address`; `None` when that is one too many.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Guest> {
        let address = network_of(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = counts.per_address.get(&address).copied().unwrap_or(0);
        if counts.all >= self.all_max || of_address >= self.per_address_max {
            return None;
        }
        counts.all += 1;
        counts.per_address.insert(address, of_address + 1);
        Some(Guest { counts: self.counts.clone(), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(count) = counts.per_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.per_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address. Of IPv6 a single customer has at least a /64 (RFC 6177).
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_can_not_take_all_places_and_places_come_back() {
        let guests = Guests::new(3, 2);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = guests.admit(address("192.0.2.1"));
        let second = guests.admit(address("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(guests.admit(address("192.0.2.1")).is_none(), "one too many of this address");
        let other = guests.admit(address("2001:db8::1"));
        assert!(other.is_some());
        assert!(guests.admit(address("192.0.2.9")).is_none(), "one too many in all");
        drop((first, other));
        let network = [guests.admit(address("2001:db8::2")), guests.admit(address("2001:db8::3"))];
        assert!(network.iter().all(Option::is_some));
        drop((second, network));
        assert!(guests.counts.lock().unwrap().per_address.is_empty());
    }
}
