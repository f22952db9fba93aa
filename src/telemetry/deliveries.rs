//! What goes out to clients, and how long after it was written.
//!
//! A busy server hands over a hundred thousand messages a second, so counting one must cost next to nothing: each
//! thread counts in a line of memory of its own, and looks at the clock for one delivery in sixteen. On a quiet server
//! that would be too seldom, so it also does for the first one after each [`Deliveries::begin_round`].
//!
//! The histogram is our own because the status page reads it back, which the library's does not allow.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Upper bounds of the buckets of `corriente_delivery_delay_seconds`, in milliseconds.
const BOUNDS_MILLIS: [u64; 14] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000];
/// One delivery of so many is looked at.
const SAMPLED_EVERY: u64 = 16;
/// More than a machine has cores for most of us; with more threads than that, some share.
const SHARDS: usize = 32;

/// Counts deliveries. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Deliveries(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    shards: [Shard; SHARDS],
    round: AtomicU32,
    /// Per bucket, not cumulated; the last one is for what is beyond all bounds.
    buckets: [AtomicU64; BOUNDS_MILLIS.len() + 1],
    sum_millis: AtomicU64,
}

/// Two cache lines, as processors fetch them in pairs: no thread waits for another one's count.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    count: AtomicU64,
    round: AtomicU32,
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
}

impl Deliveries {
    /// Counts `count` changes that were handed to a client's connection together. `written_millis` is when the first of
    /// them was written, by MongoDB's clock in milliseconds since 1970; `None` for what a client had missed, whose delay
    /// says when it came back and nothing about this server.
    pub fn note(&self, count: usize, written_millis: Option<u64>) {
        let shard = &self.0.shards[SHARD.with(|shard| *shard)];
        let before = shard.count.fetch_add(count as u64, Ordering::Relaxed);
        let Some(written_millis) = written_millis else {
            return;
        };
        let round = self.0.round.load(Ordering::Relaxed);
        let is_next = before / SAMPLED_EVERY != (before + count as u64) / SAMPLED_EVERY;
        if is_next || shard.round.load(Ordering::Relaxed) != round {
            shard.round.store(round, Ordering::Relaxed);
            self.observe(millis_since(written_millis));
        }
    }

    fn observe(&self, millis: u64) {
        let bucket = BOUNDS_MILLIS.partition_point(|bound| *bound < millis);
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum_millis.fetch_add(millis, Ordering::Relaxed);
    }

    /// From here on the next delivery of each thread is looked at, however few there are.
    pub fn begin_round(&self) {
        self.0.round.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.shards.iter().map(|shard| shard.count.load(Ordering::Relaxed)).sum()
    }

    /// The delays that were looked at so far.
    pub fn delays(&self) -> Delays {
        Delays(std::array::from_fn(|bucket| self.0.buckets[bucket].load(Ordering::Relaxed)))
    }

    /// The same as a metric of its own.
    pub(super) fn histogram(&self) -> impl EncodeMetric + fmt::Debug + Send + Sync + 'static {
        DelayHistogram(self.0.clone())
    }

    /// The count as a metric of its own.
    pub(super) fn counter(&self) -> impl EncodeMetric + fmt::Debug + Send + Sync + 'static {
        DeliveryCounter(self.clone())
    }
}

/// How long ago that was by this machine's clock, which may be behind MongoDB's.
pub fn millis_since(written_millis: u64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_sub(written_millis)
}

/// How many delays fell into each bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays([u64; BOUNDS_MILLIS.len() + 1]);

impl Delays {
    /// Those that came after `earlier` was taken.
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|bucket| self.0[bucket].saturating_sub(earlier.0[bucket])))
    }

    /// The delay that so large a part of them was below (0.5 is the median), between the bounds of its bucket as if they
    /// were spread evenly there; beyond all bounds, the last bound. `None` when there were none.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let all: u64 = self.0.iter().sum();
        let wanted = part * all as f64;
        let mut below = 0;
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            if (below + count) as f64 >= wanted {
                let from = bucket.checked_sub(1).map_or(0, |bucket| BOUNDS_MILLIS[bucket]) as f64;
                let to = BOUNDS_MILLIS.get(bucket).map_or(from, |bound| *bound as f64);
                let share = (wanted - below as f64) / *count as f64;
                return Some(Duration::from_secs_f64((from + (to - from) * share) / 1_000.0));
            }
            below += count;
        }
        None
    }
}

#[derive(Debug)]
struct DelayHistogram(Arc<Inner>);

impl EncodeMetric for DelayHistogram {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let counts = self.0.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let bounds = BOUNDS_MILLIS.iter().map(|millis| *millis as f64 / 1_000.0).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let sum = self.0.sum_millis.load(Ordering::Relaxed) as f64 / 1_000.0;
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[derive(Debug)]
struct DeliveryCounter(Deliveries);

impl EncodeMetric for DeliveryCounter {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.0.count(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_some_are_looked_at() {
        let deliveries = Deliveries::default();
        deliveries.begin_round();
        let looked_at = |deliveries: &Deliveries| deliveries.delays().0.iter().sum::<u64>();
        let now = || Some(millis_since(0));
        deliveries.note(1, now());
        assert_eq!(looked_at(&deliveries), 1, "the first one of a round");
        for _ in 1..160 {
            deliveries.note(1, now());
        }
        assert_eq!((deliveries.count(), looked_at(&deliveries)), (160, 11));
        deliveries.note(100, now());
        assert_eq!((deliveries.count(), looked_at(&deliveries)), (260, 12), "once for those that go out together");
        deliveries.note(100, None);
        assert_eq!((deliveries.count(), looked_at(&deliveries)), (360, 12), "not what was missed");
        deliveries.begin_round();
        deliveries.note(1, now());
        assert_eq!((deliveries.count(), looked_at(&deliveries)), (361, 13));
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let deliveries = Deliveries::default();
        assert_eq!(deliveries.delays().quantile(0.5), None);
        let earlier = deliveries.delays();
        for millis in [0, 1, 3, 4, 4, 4, 15, 15, 150, 60_000] {
            deliveries.observe(millis);
        }
        let delays = deliveries.delays().since(&earlier);
        let millis = |part| delays.quantile(part).unwrap().as_secs_f64() * 1_000.0;
        assert_eq!(millis(0.2), 1.0);
        assert_eq!(millis(0.6), 5.0);
        assert_eq!(millis(0.5), 4.25);
        assert_eq!(millis(1.0), 30_000.0);
        assert_eq!(delays.since(&delays).quantile(0.99), None);
    }
}
