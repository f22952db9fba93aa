//! Who is woken when something is appended: the readers of its topics, and nobody else. With a thousand rooms a message
//! concerns one reader in a thousand, and waking the others would cost more than telling the one.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use slab::Slab;

use super::Entry;
use crate::{event::Before, topic::Topic};

/// By which one reader hears. Nothing in it is shared by readers, so a thousand of them that are woken at once do not
/// wait for each other.
#[derive(Debug)]
pub struct Ear {
    /// The first place since this was last taken at which there may be something; [`SILENT`] when there is none.
    first_place: AtomicU64,
    /// Where it stands among those that wait for their place; [`NOWHERE`] when it does not. Changed with the bells' lock.
    waiting_key: AtomicUsize,
    waker: AtomicWaker,
}

/// No log comes to this place.
const SILENT: u64 = u64::MAX;
/// No list has this key.
const NOWHERE: Key = Key::MAX;

impl Default for Ear {
    fn default() -> Self {
        Self { first_place: AtomicU64::new(SILENT), waiting_key: AtomicUsize::new(NOWHERE), waker: AtomicWaker::new() }
    }
}

impl Ear {
    /// Notes that there may be something from `place` on, without waking anybody yet.
    pub(super) fn note(&self, place: u64) {
        // Places only grow, so what was noted before stays.
        self.first_place.fetch_min(place, Ordering::AcqRel);
    }

    fn wake(&self) {
        self.waker.wake();
    }

    /// From where on there may be something, if anywhere. It is forgotten by that.
    pub(super) fn take(&self) -> Option<u64> {
        let place = self.first_place.swap(SILENT, Ordering::AcqRel);
        (place != SILENT).then_some(place)
    }

    /// The same, without forgetting it.
    pub(super) fn rung_at(&self) -> Option<u64> {
        let place = self.first_place.load(Ordering::Acquire);
        (place != SILENT).then_some(place)
    }

    fn is_rung(&self) -> bool {
        self.rung_at().is_some()
    }

    /// Ready when there may be something. Takes nothing.
    pub(super) fn poll_rung(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_rung() {
            // Registered before the second look: what comes after it wakes.
            self.waker.register(cx.waker());
            if !self.is_rung() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

/// Every ear, and the topics for which it listens.
#[derive(Debug, Default)]
pub(super) struct Bells {
    everyone: Slab<Arc<Ear>>,
    /// A topic that nobody follows has no list.
    topics: HashMap<Topic, Slab<Arc<Ear>>>,
    /// Readers whose place is still to come: the next append may bring it, whatever its topics.
    waiting: Slab<Arc<Ear>>,
}

/// Where an ear stands in a list, to be taken out again.
pub(super) type Key = usize;

impl Bells {
    pub(super) fn add(&mut self, ear: &Arc<Ear>) -> Key {
        self.everyone.insert(ear.clone())
    }

    pub(super) fn remove(&mut self, key: Key, ear: &Ear) {
        self.everyone.try_remove(key);
        self.waiting.try_remove(ear.waiting_key.swap(NOWHERE, Ordering::AcqRel));
    }

    pub(super) fn follow(&mut self, topic: &Topic, ear: &Arc<Ear>) -> Key {
        match self.topics.get_mut(topic) {
            Some(ears) => ears.insert(ear.clone()),
            None => self.topics.entry(topic.clone()).or_default().insert(ear.clone()),
        }
    }

    pub(super) fn unfollow(&mut self, topic: &Topic, key: Key) {
        if let Some(ears) = self.topics.get_mut(topic) {
            ears.try_remove(key);
            if ears.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    pub(super) fn wait(&mut self, ear: &Arc<Ear>) {
        if ear.waiting_key.load(Ordering::Acquire) == NOWHERE {
            ear.waiting_key.store(self.waiting.insert(ear.clone()), Ordering::Release);
        }
    }

    /// Those for whom there is something in `entries`: to be noted while the log can not be read, and woken when it can.
    pub(super) fn concerned(&mut self, entries: &[Arc<Entry>]) -> Concerned<'_> {
        let waiting = std::mem::take(&mut self.waiting);
        for (_, ear) in &waiting {
            ear.waiting_key.store(NOWHERE, Ordering::Release);
        }
        let events = || entries.iter().filter_map(|entry| entry.event.as_ref());
        if events().any(|event| event.before == Before::Unknown) {
            return Concerned { waiting, lists: vec![&self.everyone] };
        }
        let mut topics: Vec<Topic> = events().flat_map(|event| event.topics()).collect();
        if !topics.is_empty() {
            topics.push(Topic::All);
        }
        topics.sort_unstable();
        topics.dedup();
        let lists = topics.iter().filter_map(|topic| self.topics.get(topic)).collect();
        Concerned { waiting, lists }
    }

    /// How many of the ears with these keys were rung for something before `place` and have not read it. `None`: there
    /// are none with such keys, or above.
    pub(super) fn behind(&self, keys: Range<Key>, place: u64) -> Option<usize> {
        if keys.start >= self.everyone.capacity() {
            return None;
        }
        let ears = keys.filter_map(|key| self.everyone.get(key));
        Some(ears.filter(|ear| ear.first_place.load(Ordering::Relaxed) < place).count())
    }

    pub(super) fn everyone(&self) -> Concerned<'_> {
        Concerned { waiting: Slab::new(), lists: vec![&self.everyone] }
    }
}

/// Those who are to be rung.
pub(super) struct Concerned<'a> {
    waiting: Slab<Arc<Ear>>,
    lists: Vec<&'a Slab<Arc<Ear>>>,
}

impl Concerned<'_> {
    fn ears(&self) -> impl Iterator<Item = &Arc<Ear>> {
        std::iter::once(&self.waiting).chain(self.lists.iter().copied()).flatten().map(|(_, ear)| ear)
    }

    /// Notes that there may be something from `place` on.
    pub(super) fn note(&self, place: u64) {
        self.ears().for_each(|ear| ear.note(place));
    }

    pub(super) fn wake(&self) {
        self.ears().for_each(|ear| ear.wake());
    }
}
