//! How much one client may ask for: messages and requests per second, by address and by sender.
//!
//! Each limit is a bucket (GCRA, by the crate `governor`) that holds ten seconds' worth, so a burst is welcome and only
//! who goes on and on is refused. What is refused is answered with a 429 that says when to come back; over a socket the
//! connection goes on, unless its client takes no notice.
//!
//! The buckets are a table of fixed size, into which an address or a sender falls by a hash that nobody outside can know:
//! whatever clients do, it takes the same memory and nothing is ever evicted. Two that fall into one bucket share it. To
//! empty the buckets of others, somebody would have to use up each of them at its full rate.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, StateStore},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};
use tracing::warn;

use crate::{
    listener::ClientNetwork,
    message::UserName,
    telemetry::{Metrics, ReasonLabels, Seldom, show_from_start},
};

/// How many seconds' worth may be used at once.
const BURST_SECS: u32 = 10;
/// A rate above this is none: no server is that fast.
const PER_SEC_MAX: u32 = 1_000_000;
/// How many buckets a limit has. Eight bytes each, so half a megabyte; of a thousand clients at once about eight share a
/// bucket with another one.
const BUCKETS: usize = 1 << 16;
/// How many reads of one address MongoDB is asked at once: about as many as the driver has connections, so that those of
/// others are never far behind. They take milliseconds, so that many people at one address do not notice.
const READS_AT_ONCE_MAX: usize = 8;
/// How long a read may wait for its turn, in seconds: as long as MongoDB may take to answer it.
const TURN_SECS_MAX: u64 = 5;
/// How many addresses there are turns for, as for [`BUCKETS`].
const TURNS: usize = 1 << 14;
/// How often a connection may be refused within [`NOTICE_SECS`] before it is closed.
const REFUSALS_MAX: u32 = 500;
const NOTICE_SECS: u64 = 60;

/// What is allowed, each per second; 0 = no limit.
#[derive(Debug, Clone, Copy)]
pub struct RateLimits {
    /// Messages of one address.
    pub messages_per_address: u32,
    /// Messages of one sender from one address.
    pub messages_per_sender: u32,
    /// Requests, and frames over sockets, of one address.
    pub requests_per_address: u32,
}

/// Counts what clients do. Cheap to clone.
#[derive(Clone)]
pub struct Rates(Arc<Inner>);

struct Inner {
    messages_per_address: Limit,
    messages_per_sender: Limit,
    requests_per_address: Limit,
    /// Empty where there is no limit of requests.
    turns: Box<[Semaphore]>,
    /// So that nobody can choose who shares a bucket with whom.
    hasher: RandomState,
    metrics: Metrics,
    refusals: Seldom,
}

/// It was too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}; try again in {retry_after_secs} s", what = .bound.sentence())]
pub struct TooMany {
    /// What it was too much for.
    pub bound: Bound,
    /// When it would not be.
    pub retry_after_secs: u32,
}

/// The limits, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// [`RateLimits::messages_per_address`]
    MessagesPerAddress,
    /// [`RateLimits::messages_per_sender`]
    MessagesPerSender,
    /// [`RateLimits::requests_per_address`]
    RequestsPerAddress,
    /// Of the reads of one address that wait for MongoDB.
    ReadsAtOnce,
}

impl Bound {
    /// All of them.
    const ALL: [Bound; 4] =
        [Bound::MessagesPerAddress, Bound::MessagesPerSender, Bound::RequestsPerAddress, Bound::ReadsAtOnce];

    fn as_str(self) -> &'static str {
        match self {
            Bound::MessagesPerAddress => "messages per address",
            Bound::MessagesPerSender => "messages per sender",
            Bound::RequestsPerAddress => "requests per address",
            Bound::ReadsAtOnce => "reads at once",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Bound::MessagesPerAddress => "too many messages come from your address, so this one was not stored",
            Bound::MessagesPerSender => "too many messages come under this name, so this one was not stored",
            Bound::ReadsAtOnce => "too many reads of your address wait for the database",
            Bound::RequestsPerAddress => "too many requests come from your address, so this one was not looked at",
        }
    }
}

impl Rates {
    /// Nothing has happened yet.
    pub fn new(limits: RateLimits, metrics: &Metrics) -> Self {
        show_from_start(&metrics.refusals, Bound::ALL.map(|bound| ReasonLabels { reason: bound.as_str() }));
        let limit = |per_sec| Limit::new(per_sec, DefaultClock::default());
        let turns = if limits.requests_per_address == 0 { 0 } else { TURNS };
        Self(Arc::new(Inner {
            messages_per_address: limit(limits.messages_per_address),
            messages_per_sender: limit(limits.messages_per_sender),
            requests_per_address: limit(limits.requests_per_address),
            turns: std::iter::repeat_with(|| Semaphore::new(READS_AT_ONCE_MAX)).take(turns).collect(),
            hasher: RandomState::new(),
            metrics: metrics.clone(),
            refusals: Seldom::default(),
        }))
    }

    /// Counts a request, or a frame over a socket.
    ///
    /// # Errors
    /// When it is one too many.
    pub fn request(&self, from: ClientNetwork) -> Result<(), TooMany> {
        let key = self.0.hasher.hash_one(from);
        self.judge(&self.0.requests_per_address, key, Bound::RequestsPerAddress, from)
    }

    /// Waits until MongoDB may be asked for this address. It is its turn until what is returned is dropped.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn turn(&self, from: ClientNetwork) -> Result<Option<SemaphorePermit<'_>>, TooMany> {
        if self.0.turns.is_empty() {
            return Ok(None);
        }
        let turns = &self.0.turns[self.0.hasher.hash_one(from) as usize % TURNS];
        match timeout(Duration::from_secs(TURN_SECS_MAX), turns.acquire()).await {
            // Nobody closes the semaphore.
            Ok(turn) => Ok(turn.ok()),
            Err(_) => Err(self.refuse(Bound::ReadsAtOnce, from, Duration::from_secs(1))),
        }
    }

    /// Counts a message, which is a request besides.
    ///
    /// A sender is a name at an address: names are claims, and whoever writes under somebody's name from elsewhere must not
    /// be able to silence that person.
    ///
    /// # Errors
    /// When it is one too many.
    pub fn message(&self, from: ClientNetwork, sender: &UserName) -> Result<(), TooMany> {
        let key = self.0.hasher.hash_one(from);
        self.judge(&self.0.messages_per_address, key, Bound::MessagesPerAddress, from)?;
        let key = self.0.hasher.hash_one((from, sender));
        self.judge(&self.0.messages_per_sender, key, Bound::MessagesPerSender, from)
    }

    fn judge(&self, limit: &Limit, key: u64, bound: Bound, from: ClientNetwork) -> Result<(), TooMany> {
        limit.use_up(key).map_or(Ok(()), |wait| Err(self.refuse(bound, from, wait)))
    }

    fn refuse(&self, bound: Bound, from: ClientNetwork, wait: Duration) -> TooMany {
        self.0.metrics.refusals.get_or_create(&ReasonLabels { reason: bound.as_str() }).inc();
        if let Some(count) = self.0.refusals.count() {
            warn!("refused what {from} asked for: too many {} ({count} refusals so far)", bound.as_str());
        }
        let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        TooMany { bound, retry_after_secs: u32::try_from(whole.max(1)).unwrap_or(u32::MAX) }
    }
}

/// One limit. `None`: there is none.
struct Limit<C: Clock = DefaultClock>(Option<RateLimiter<u64, Buckets, C, NoOpMiddleware<C::Instant>>>);

impl<C: Clock> Limit<C> {
    fn new(per_sec: u32, clock: C) -> Self {
        let quota = NonZeroU32::new(per_sec).filter(|per_sec| per_sec.get() <= PER_SEC_MAX).map(|per_sec| {
            let burst = per_sec.saturating_mul(NonZeroU32::new(BURST_SECS).unwrap_or(NonZeroU32::MIN));
            Quota::per_second(per_sec).allow_burst(burst)
        });
        Self(quota.map(|quota| RateLimiter::new(quota, Buckets::new(), clock)))
    }

    /// Takes one out of a bucket, or says how long it takes until there is one.
    fn use_up(&self, key: u64) -> Option<Duration> {
        let limiter = self.0.as_ref()?;
        limiter.check_key(&key).err().map(|not_until| not_until.wait_time_from(limiter.clock().now()))
    }
}

/// See the module.
struct Buckets(Box<[InMemoryState]>);

impl Buckets {
    fn new() -> Self {
        Self(std::iter::repeat_with(InMemoryState::default).take(BUCKETS).collect())
    }
}

impl StateStore for Buckets {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0[*key as usize % BUCKETS].measure_and_replace(&NotKeyed::NonKey, f)
    }
}

/// How often one connection was refused. A client that is told to wait, and goes on as if it had heard nothing, is let go.
#[derive(Debug, Default)]
pub struct Patience {
    refusals: u32,
    since: Option<Instant>,
}

impl Patience {
    /// Counts a refusal.
    ///
    /// # Errors
    /// When that is enough.
    pub fn lose(&mut self) -> Result<(), Lost> {
        let now = Instant::now();
        if self.since.is_none_or(|since| now - since >= Duration::from_secs(NOTICE_SECS)) {
            (self.refusals, self.since) = (0, Some(now));
        }
        self.refusals += 1;
        if self.refusals > REFUSALS_MAX { Err(Lost) } else { Ok(()) }
    }
}

/// A connection is not worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_as_much_as_time_brings() {
        let clock = FakeRelativeClock::default();
        let limit = Limit::new(2, clock.clone());
        assert_eq!((0..20).filter_map(|_| limit.use_up(1)).count(), 0, "ten seconds' worth");
        assert_eq!(limit.use_up(1), Some(Duration::from_millis(500)));
        assert_eq!(limit.use_up(2), None, "another one has a bucket of its own");
        clock.advance(Duration::from_millis(500));
        assert_eq!(limit.use_up(1), None);
        assert_eq!(limit.use_up(1), Some(Duration::from_millis(500)));
    }

    #[test]
    fn nothing_is_no_limit_and_neither_is_more_than_there_can_be() {
        for per_sec in [0, PER_SEC_MAX + 1, u32::MAX] {
            let limit = Limit::new(per_sec, FakeRelativeClock::default());
            assert!((0..10_000).all(|_| limit.use_up(1).is_none()));
        }
        assert!(Limit::new(PER_SEC_MAX, FakeRelativeClock::default()).use_up(1).is_none());
    }

    #[test]
    fn a_sender_is_a_name_at_an_address_and_an_address_has_a_limit_of_its_own() {
        let limits = RateLimits { messages_per_address: 2, messages_per_sender: 1, requests_per_address: 1 };
        let rates = Rates::new(limits, &Metrics::default());
        let at = |address: &str| ClientNetwork::of(address.parse().unwrap());
        let name = |name| UserName::parse(name).unwrap();
        let say = |address, sender, times| {
            (0..times).map(|_| rates.message(at(address), &name(sender))).find_map(Result::err).map(|too| too.bound)
        };
        assert_eq!(say("2001:db8::1", "Ana", 30), Some(Bound::MessagesPerSender));
        assert_eq!(say("2001:db8::2", "Luis", 30), Some(Bound::MessagesPerAddress), "of the same network");
        assert_eq!(say("192.0.2.1", "Ana", 1), None, "the same name from elsewhere");
        assert_eq!(rates.request(at("2001:db8::1")), Ok(()));
    }

    #[test]
    fn a_client_that_takes_no_notice_is_let_go() {
        let mut patience = Patience::default();
        assert!((0..REFUSALS_MAX).all(|_| patience.lose() == Ok(())));
        assert_eq!(patience.lose(), Err(Lost));
    }
}
