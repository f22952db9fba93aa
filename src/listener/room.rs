//! Memory that all clients share, and of which no network may take more than its part: whoever fills that keeps waiting
//! itself, and nobody else, as long as fewer than eight networks do.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::network::ClientNetwork;

/// Which part of a room is for one network at most.
const SHARES: usize = 8;

/// The room, in units of whoever has made it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Room {
    all: Arc<Semaphore>,
    all_max: usize,
    share_max: usize,
    /// Networks of which nobody is here have no entry.
    shares: Arc<Mutex<HashMap<ClientNetwork, Share>>>,
}

struct Share {
    own: Arc<Semaphore>,
    tenants: usize,
}

impl Room {
    /// Of so many units. A network may have an eighth, but `share_min` in any case.
    pub(super) fn new(units_max: usize, share_min: usize) -> Self {
        // Permits are asked for as `u32`.
        let all_max = units_max.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let share_max = (all_max / SHARES).max(share_min).clamp(1, all_max);
        Self { all: Arc::new(Semaphore::new(all_max)), all_max, share_max, shares: Arc::default() }
    }

    /// One request of a network, which has taken nothing yet.
    pub(super) fn enter(&self, network: ClientNetwork) -> Arc<Tenant> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Share { own: Arc::new(Semaphore::new(self.share_max)), tenants: 0 };
        let share = shares.entry(network).or_insert_with(new);
        share.tenants += 1;
        Arc::new(Tenant { room: self.clone(), network, own: share.own.clone() })
    }
}

/// Who takes of a room.
pub(super) struct Tenant {
    room: Room,
    network: ClientNetwork,
    own: Arc<Semaphore>,
}

impl Tenant {
    /// Takes so many units when they are free. What is larger than a network's part takes all of that, and what is larger
    /// than the room all of it.
    pub(super) fn try_take(self: &Arc<Self>, units: usize) -> Option<Taken> {
        let (of_own, of_all) = self.counts(units);
        let own = self.own.clone().try_acquire_many_owned(of_own).ok()?;
        let all = self.room.all.clone().try_acquire_many_owned(of_all).ok()?;
        Some(Taken { own, all, _tenant: self.clone() })
    }

    /// The same, and waits for it: first for its own part, so that it holds nothing of others meanwhile.
    pub(super) async fn take(self: &Arc<Self>, units: usize) -> Option<Taken> {
        let (of_own, of_all) = self.counts(units);
        // Nobody closes the semaphores.
        let own = self.own.clone().acquire_many_owned(of_own).await.ok()?;
        let all = self.room.all.clone().acquire_many_owned(of_all).await.ok()?;
        Some(Taken { own, all, _tenant: self.clone() })
    }

    fn counts(&self, units: usize) -> (u32, u32) {
        // Both are at most what `u32` holds: see `Room::new`.
        let count = |max: usize| u32::try_from(units.min(max)).unwrap_or(u32::MAX);
        (count(self.room.share_max), count(self.room.all_max))
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        let mut shares = self.room.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get_mut(&self.network) {
            share.tenants -= 1;
            if share.tenants == 0 {
                shares.remove(&self.network);
            }
        }
    }
}

/// A part of the room, as long as it lives.
pub(super) struct Taken {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
    /// After what it holds: the entry of a network stays as long as something is taken of it.
    _tenant: Arc<Tenant>,
}

impl Taken {
    /// Gives one unit back.
    pub(super) fn give_back_one(&mut self) {
        drop(self.all.split(1));
        if self.own.num_permits() > self.all.num_permits() {
            drop(self.own.split(1));
        }
    }

    /// Adds what the same request has taken besides.
    pub(super) fn merge(&mut self, more: Taken) {
        self.own.merge(more.own);
        self.all.merge(more.all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> ClientNetwork {
        ClientNetwork::of(text.parse().unwrap())
    }

    #[test]
    fn a_network_has_an_eighth_and_leaves_nothing_behind() {
        let room = Room::new(80, 1);
        let (one, same, other) =
            (room.enter(network("2001:db8::1")), room.enter(network("2001:db8::2")), room.enter(network("192.0.2.1")));
        let (first, second) = (one.try_take(6), same.try_take(4));
        assert!(first.is_some() && second.is_some());
        assert!(one.try_take(1).is_none() && same.try_take(1).is_none(), "its part is taken");
        assert!(other.try_take(10).is_some(), "another one has its own");
        drop((first, one));
        assert!(same.try_take(7).is_none() && same.try_take(6).is_some());
        drop((second, same, other));
        assert!(room.shares.lock().unwrap().is_empty());
        assert_eq!(room.all.available_permits(), 80);
    }

    #[test]
    fn what_is_larger_than_a_part_takes_all_of_it_until_little_is_left() {
        let room = Room::new(80, 1);
        let tenant = room.enter(network("192.0.2.1"));
        let mut large = tenant.try_take(30).unwrap();
        assert_eq!(room.all.available_permits(), 50, "it counts whole for all");
        assert!(tenant.try_take(1).is_none());
        (0..20).for_each(|_| large.give_back_one());
        assert!(tenant.try_take(1).is_none(), "ten are left");
        large.give_back_one();
        assert!(tenant.try_take(1).is_some());
    }
}
