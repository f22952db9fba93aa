//! Who is here, as a count: how many sessions follow each room, on this server and on the others.
//!
//! A session that comes or goes changes a number in memory, and nothing else. Every five seconds at most the
//! [`Keeper`] writes this server's numbers, when they are others than before, and every twenty in any case, with a few
//! words on how the server is; the others' are read when somebody asks. A message costs nothing here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    message::RoomName,
    mongo::{Others, PRESENCE_SECS_MAX, PresenceError, PresenceStore, ROOMS_PER_SERVER_MAX, ServerReport},
    topic::Topic,
};

/// How often this server's numbers may be written, in seconds.
const WRITE_SECS_MIN: u64 = 5;
/// After how many seconds they are written again although they are the same: three times before they expire.
const REFRESH_SECS: u64 = 20;
/// For how many seconds the others' numbers, once read, are good enough.
const READ_SECS_MIN: u64 = 5;
/// How long to leave MongoDB alone after it has said that we may not, in seconds.
const FORBIDDEN_PAUSE_SECS: u64 = 600;

/// Counts sessions and tells how many there are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Presence(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    own: Mutex<Own>,
    /// How this server is.
    report: watch::Receiver<ServerReport>,
    /// Held while they are read, so that of many who ask at once one reads for all.
    others: tokio::sync::Mutex<ReadOthers>,
    store: PresenceStore,
    faults: Mutex<Faults>,
}

/// This server's numbers. A blocking lock, as nothing waits while it is held.
#[derive(Debug, Default)]
struct Own {
    /// No room with nobody in it.
    here: HashMap<RoomName, u32>,
    /// How often a number has changed.
    changes: u64,
}

/// The other servers' numbers, as they were read at last.
#[derive(Debug, Default)]
struct ReadOthers {
    said: Arc<Others>,
    /// When that was tried.
    asked_at: Option<Instant>,
    /// When it succeeded.
    read_at: Option<Instant>,
}

/// What fails, so that it is logged once and not with each attempt.
#[derive(Debug, Default)]
struct Faults {
    reading: Fault,
    writing: Fault,
}

#[derive(Debug, Default)]
struct Fault {
    is_failing: bool,
    /// No attempt before this.
    pause_until: Option<Instant>,
}

/// What the collection is used for. A user may have the right to one and not to the other.
#[derive(Debug, Clone, Copy)]
enum Use {
    Read,
    Write,
}

impl Faults {
    fn of(&mut self, purpose: Use) -> &mut Fault {
        match purpose {
            Use::Read => &mut self.reading,
            Use::Write => &mut self.writing,
        }
    }

    fn are_none(&self) -> bool {
        !self.reading.is_failing && !self.writing.is_failing
    }
}

/// A server over this database, as far as it is known here.
#[derive(Debug, Clone)]
pub struct KnownServer {
    /// What it says of itself.
    pub report: ServerReport,
    /// How many seconds ago it said so.
    pub said_secs_ago: u64,
    /// It is this one.
    pub is_this: bool,
}

/// Opens the count of one server, and the task that must run so that other servers know of it, and by `report` of how it
/// is.
pub fn open(store: PresenceStore, report: watch::Receiver<ServerReport>) -> (Presence, Keeper) {
    let shared = Shared { own: Mutex::default(), report, others: Default::default(), store, faults: Mutex::default() };
    let presence = Presence(Arc::new(shared));
    let keeper = Keeper { presence: presence.clone(), said: Vec::new(), said_at: None, is_unsure: false, changes: 0 };
    (presence, keeper)
}

impl Presence {
    /// A session follows this topic from now on. To be followed by one [`Self::leave`].
    pub fn enter(&self, topic: &Topic) {
        if let Topic::Room(room) = topic {
            let mut own = self.own();
            own.changes += 1;
            *own.here.entry(room.clone()).or_default() += 1;
        }
    }

    /// A session does not follow this topic any longer.
    pub fn leave(&self, topic: &Topic) {
        if let Topic::Room(room) = topic {
            let mut own = self.own();
            own.changes += 1;
            if let Some(here) = own.here.get_mut(room) {
                *here = here.saturating_sub(1);
                if *here == 0 {
                    own.here.remove(room);
                }
            }
        }
    }

    /// How many sessions follow each of these rooms on all servers: on this one just now, on the others as it was read
    /// at most five seconds ago, and written at most five before. When MongoDB can not be asked these are left out.
    pub async fn here(&self, rooms: &[RoomName]) -> Vec<u64> {
        let others = self.others().await;
        let own = self.own();
        let of = |room| {
            let here = own.here.get(room).copied().unwrap_or_default();
            others.here.get(room).copied().unwrap_or_default() + u64::from(here)
        };
        rooms.iter().map(of).collect()
    }

    /// All servers over this database: this one first, as it is now, and the others by name, as they said within the last
    /// minute. When MongoDB can not be asked these are left out.
    pub async fn servers(&self) -> Vec<KnownServer> {
        let own = self.0.report.borrow().clone();
        let others = self.others().await;
        let others = others.servers.iter().map(|(report, said_secs_ago)| KnownServer {
            report: report.clone(),
            said_secs_ago: *said_secs_ago,
            is_this: false,
        });
        std::iter::once(KnownServer { report: own, said_secs_ago: 0, is_this: true }).chain(others).collect()
    }

    async fn others(&self) -> Arc<Others> {
        let mut others = self.0.others.lock().await;
        let is_within =
            |since: Option<Instant>, secs| since.is_some_and(|since| since.elapsed() < Duration::from_secs(secs));
        if !is_within(others.asked_at, READ_SECS_MIN) && !self.is_paused(Use::Read) {
            let read = self.0.store.others().await;
            others.asked_at = Some(Instant::now());
            match self.heard(Use::Read, read) {
                Some(said) => {
                    others.said = Arc::new(said);
                    others.read_at = others.asked_at;
                }
                // What is known already is good for as long as its documents would be.
                None if is_within(others.read_at, PRESENCE_SECS_MAX) => {}
                None => others.said = Arc::default(),
            }
        }
        others.said.clone()
    }

    /// The rooms that most sessions follow, as many as are written.
    fn busiest(&self) -> (Vec<(RoomName, u32)>, u64) {
        let own = self.own();
        let changes = own.changes;
        let mut rooms: Vec<(RoomName, u32)> = own.here.iter().map(|(room, here)| (room.clone(), *here)).collect();
        drop(own);
        rooms.sort_by(|(a, here_a), (b, here_b)| here_b.cmp(here_a).then_with(|| a.cmp(b)));
        rooms.truncate(ROOMS_PER_SERVER_MAX);
        (rooms, changes)
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_paused(&self, purpose: Use) -> bool {
        let until = self.faults().of(purpose).pause_until;
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Takes note of how a question ended. Logged is only the first fault in a row.
    fn heard<T>(&self, purpose: Use, outcome: Result<T, PresenceError>) -> Option<T> {
        let mut faults = self.faults();
        let were_none = faults.are_none();
        match outcome {
            Ok(answer) => {
                *faults.of(purpose) = Fault::default();
                if !were_none && faults.are_none() {
                    info!("presence is counted over all servers again");
                }
                Some(answer)
            }
            Err(error) => {
                let pause = Duration::from_secs(FORBIDDEN_PAUSE_SECS);
                let pause_until = matches!(error, PresenceError::Forbidden(_)).then(|| Instant::now() + pause);
                *faults.of(purpose) = Fault { is_failing: true, pause_until };
                if were_none {
                    let collection = self.0.store.collection_name();
                    warn!("presence is not counted over all servers, as {collection} can not be used: {error}");
                }
                None
            }
        }
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.0.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes this server's numbers. It is the only one who does: a server that must not write does without it.
#[derive(Debug)]
pub struct Keeper {
    presence: Presence,
    /// What MongoDB has of us.
    said: Vec<(RoomName, u32)>,
    /// When that was written. `None`: MongoDB has nothing of us.
    said_at: Option<Instant>,
    /// A write failed, so that MongoDB may have something else.
    is_unsure: bool,
    /// The [`Own::changes`] that were seen to.
    changes: u64,
}

impl Keeper {
    /// Runs until `stop`, and then takes this server's numbers away.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(Duration::from_secs(WRITE_SECS_MIN));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            // Not within the select: a write that is broken off may come after the removal.
            self.write_if_due().await;
        }
        if (self.said_at.is_some() || self.is_unsure) && !self.presence.is_paused(Use::Write) {
            let removed = self.presence.0.store.remove().await;
            self.presence.heard(Use::Write, removed);
        }
    }

    async fn write_if_due(&mut self) {
        let is_old = self.said_at.is_none_or(|since| since.elapsed() >= Duration::from_secs(REFRESH_SECS));
        let must_write = is_old || self.is_unsure;
        if (self.changes == self.presence.own().changes && !must_write) || self.presence.is_paused(Use::Write) {
            return;
        }
        let (rooms, changes) = self.presence.busiest();
        // Who went may have come back.
        if rooms != self.said || must_write {
            let report = self.presence.0.report.borrow().clone();
            let written = self.presence.0.store.replace(&rooms, &report).await;
            self.is_unsure = self.presence.heard(Use::Write, written).is_none();
            if self.is_unsure {
                return;
            }
            self.said_at = Some(Instant::now());
            self.said = rooms;
        }
        self.changes = changes;
    }
}
