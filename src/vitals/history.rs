//! What happened between two readings of the counters, for the last quarter of an hour.

use std::{collections::VecDeque, time::Duration};

use chrono::{DateTime, SubsecRound, Utc};
use tokio::time::Instant;

use crate::telemetry::{Delays, EventLabels, Metrics, TRANSPORTS, TransportLabels};

/// How many samples are kept: 15 minutes, in some 20 KB.
pub(super) const SAMPLES_MAX: usize = 180;

/// Five seconds of the server's life.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When they ended.
    pub at: DateTime<Utc>,
    /// How far the server was behind MongoDB then.
    pub lag: Duration,
    /// Half of the deliveries that were looked at took less. `None`: there were none.
    pub delay_median: Option<Duration>,
    /// 99 of 100 took less.
    pub delay_p99: Option<Duration>,
    /// New messages, whoever wrote them.
    pub messages_per_second: f64,
    /// Changes that were handed to connections.
    pub deliveries_per_second: f64,
    /// Sessions that were open then.
    pub connections: u64,
}

/// The counters at one moment.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    read_at: Instant,
    messages: u64,
    deliveries: u64,
    delays: Delays,
}

impl Counters {
    pub(super) fn read(metrics: &Metrics) -> Self {
        let inserts = metrics.events.get(&EventLabels { kind: "insert" }).map_or(0, |inserts| inserts.get());
        Self {
            read_at: Instant::now(),
            messages: inserts,
            deliveries: metrics.deliveries.count(),
            delays: metrics.deliveries.delays(),
        }
    }

    /// What happened since `earlier`.
    pub(super) fn sample(&self, earlier: &Self, lag: Duration, connections: u64) -> Sample {
        let secs = self.read_at.duration_since(earlier.read_at).as_secs_f64().max(0.001);
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / secs;
        let delays = self.delays.since(&earlier.delays);
        Sample {
            // As it is told: who asks for what came after it must not be given it again.
            at: Utc::now().trunc_subsecs(3),
            lag,
            delay_median: delays.quantile(0.5),
            delay_p99: delays.quantile(0.99),
            messages_per_second: per_second(self.messages, earlier.messages),
            deliveries_per_second: per_second(self.deliveries, earlier.deliveries),
            connections,
        }
    }
}

/// Open sessions of each transport.
pub(super) fn connections(metrics: &Metrics) -> Vec<(&'static str, u64)> {
    let of = |transport| {
        let gauge = metrics.connections.get(&TransportLabels { transport });
        (transport, gauge.map_or(0, |gauge| u64::try_from(gauge.get()).unwrap_or_default()))
    };
    TRANSPORTS.map(of).into()
}

/// Appends, and forgets what is older than a quarter of an hour.
pub(super) fn remember(samples: &mut VecDeque<Sample>, sample: Sample) {
    while samples.len() >= SAMPLES_MAX {
        samples.pop_front();
    }
    samples.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::millis_since;

    #[tokio::test]
    async fn a_sample_is_what_happened_between_two_readings() {
        let metrics = Metrics::default();
        let inserts = metrics.events.get_or_create_owned(&EventLabels { kind: "insert" });
        inserts.inc_by(7);
        let before = Counters::read(&metrics);
        inserts.inc_by(10);
        metrics.deliveries.note(16, Some(millis_since(0)));
        let after = Counters { read_at: before.read_at + Duration::from_secs(5), ..Counters::read(&metrics) };
        let sample = after.sample(&before, Duration::from_millis(3), 2);
        assert_eq!((sample.messages_per_second, sample.deliveries_per_second), (2.0, 3.2));
        assert!(sample.delay_median.is_some() && sample.delay_median <= sample.delay_p99, "{sample:?}");
        let quiet = Counters::read(&metrics).sample(&Counters::read(&metrics), Duration::ZERO, 0);
        assert_eq!((quiet.messages_per_second, quiet.delay_median), (0.0, None));

        let mut samples = VecDeque::new();
        for connections in 0..SAMPLES_MAX as u64 + 3 {
            remember(&mut samples, Sample { connections, ..quiet.clone() });
        }
        assert_eq!((samples.len(), samples[0].connections), (SAMPLES_MAX, 3));
    }
}
