//! Who is connected: counted in all and per address, so that one address can not take the places of all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::network::ClientNetwork;

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
    per_address: HashMap<ClientNetwork, usize>,
}

/// One connection, or one request over a connection that carries many; it counts until it is dropped.
pub struct Guest {
    counts: Arc<Mutex<Counts>>,
    takes_place: bool,
    address: Option<ClientNetwork>,
}

/// Goes with a request: counts what outlives it for the client who has sent it.
#[derive(Clone)]
pub struct GuestBook {
    guests: Guests,
    network: ClientNetwork,
}

impl GuestBook {
    pub(super) fn new(guests: Guests, network: ClientNetwork) -> Self {
        Self { guests, network }
    }

    /// Counts one more for this client, until what is returned is dropped; `None` when that is one too many.
    pub fn admit(&self) -> Option<Guest> {
        self.guests.admit_request(self.network, false)
    }
}

impl Guests {
    pub(super) fn new(all_max: usize, per_address_max: usize) -> Self {
        Self { counts: Arc::default(), all_max, per_address_max }
    }

    /// Counts one more connection of `address`; `None` when that is one too many.
    pub(super) fn admit(&self, address: ClientNetwork) -> Option<Guest> {
        self.count(true, Some(address))
    }

    /// Counts one more connection of a proxy, which may have as many as there are places.
    pub(super) fn admit_proxy(&self) -> Option<Guest> {
        self.count(true, None)
    }

    /// Counts one more request or stream of `address` over a connection that is not its own alone. Over one that carries
    /// many at once it takes a place like a connection.
    pub(super) fn admit_request(&self, address: ClientNetwork, takes_place: bool) -> Option<Guest> {
        self.count(takes_place, Some(address))
    }

    fn count(&self, takes_place: bool, address: Option<ClientNetwork>) -> Option<Guest> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = address.map_or(0, |address| counts.per_address.get(&address).copied().unwrap_or(0));
        let is_full = takes_place && counts.all >= self.all_max;
        if is_full || (address.is_some() && of_address >= self.per_address_max) {
            return None;
        }
        counts.all += usize::from(takes_place);
        if let Some(address) = address {
            counts.per_address.insert(address, of_address + 1);
        }
        Some(Guest { counts: self.counts.clone(), takes_place, address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= usize::from(self.takes_place);
        let Some(address) = self.address else {
            return;
        };
        if let Some(count) = counts.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.per_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_can_not_take_all_places_and_places_come_back() {
        let guests = Guests::new(3, 2);
        let address = |text: &str| ClientNetwork::of(text.parse().unwrap());
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

    #[test]
    fn behind_a_proxy_its_clients_are_counted_and_not_the_proxy() {
        let guests = Guests::new(5, 1);
        let address = |text: &str| ClientNetwork::of(text.parse().unwrap());
        let connections = [guests.admit_proxy(), guests.admit_proxy(), guests.admit_proxy()];
        assert!(connections.iter().all(Option::is_some));
        let one = guests.admit_request(address("192.0.2.1"), true);
        assert!(one.is_some() && guests.admit_request(address("192.0.2.1"), true).is_none());
        let other = guests.admit_request(address("192.0.2.2"), true);
        assert!(other.is_some() && guests.admit_proxy().is_none(), "one too many in all");
        assert!(guests.admit_request(address("192.0.2.3"), false).is_some(), "the connection has a place");
        drop((one, other, connections));
        let counts = guests.counts.lock().unwrap();
        assert!(counts.per_address.is_empty() && counts.all == 0);
    }
}
