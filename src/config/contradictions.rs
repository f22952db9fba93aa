//! Settings that are each right by themselves and make no sense together, or no sense to MongoDB.

use std::time::Duration;

use super::{Config, KEEP_ALIVE_SECS, PER_ADDRESS_MAX, REPLAY_BYTES_MAX};
use crate::listener::TrustedProxy;

/// What MongoDB has no databases with in their names, on any system, and how long these may be, in bytes.
const NOT_IN_DATABASES: &[char] = &['/', '\\', '.', ' ', '"', '$', '*', '<', '>', ':', '|', '?', '\0'];
const DATABASE_BYTES_MAX: usize = 63;
/// The largest body of a request, in bytes, which has to fit into the room of all.
const BODY_BYTES_MAX: usize = 64 * 1024;

impl Config {
    /// Finds what makes no sense.
    ///
    /// # Errors
    /// One sentence for each contradiction: which settings, why, and what to do.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut faults = Vec::new();
        let mut expect = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        let (all, each) = (self.connections_max, self.connections_per_address_max);
        expect(
            each <= all || each == PER_ADDRESS_MAX,
            format!(
                "CONNECTIONS_PER_ADDRESS_MAX ({each}) is more than CONNECTIONS_MAX ({all}), which bounds all addresses together: lower the one or raise the other"
            ),
        );
        let (all, each) = (self.replays_kept_bytes_max, self.replay_bytes_max);
        expect(
            each <= all || each == REPLAY_BYTES_MAX,
            format!(
                "REPLAY_BYTES_MAX ({each}) is more than REPLAYS_KEPT_BYTES_MAX ({all}), which bounds all replays together: lower the one or raise the other"
            ),
        );
        let bodies = self.bodies_bytes_max;
        expect(
            bodies >= BODY_BYTES_MAX,
            format!(
                "BODIES_BYTES_MAX ({bodies}) is less than the body of one request may have ({BODY_BYTES_MAX}), which would wait in vain: raise it"
            ),
        );
        let (silence, keep_alive) = (self.silence_secs, self.keep_alive_secs);
        expect(
            2 * keep_alive <= silence || keep_alive == KEEP_ALIVE_SECS,
            format!(
                "KEEP_ALIVE_SECS ({keep_alive}) is more than half of SILENCE_SECS ({silence}): connections would be closed before their clients were asked for a sign of life; lower the one or raise the other"
            ),
        );
        for (name, is_set) in
            [("VALIDATOR", self.validator), ("PRE_IMAGES", self.pre_images), ("KEEP_DAYS", self.keep_days.is_some())]
        {
            expect(
                !(self.read_only && is_set),
                format!(
                    "{name} changes the collection, and READ_ONLY says that nothing is to be changed: leave one of them out"
                ),
            );
        }
        let is_proxied = self.trust_proxy.iter().any(|proxy| *proxy != TrustedProxy::Nobody);
        expect(
            is_proxied || !self.sender_header.is_set(),
            format!(
                "SENDER_HEADER ({}) is believed only in requests of a proxy that is trusted, and TRUST_PROXY names none, so that nobody could write: name the proxy by its address, or leave SENDER_HEADER out",
                self.sender_header
            ),
        );
        let base = self.base_path.as_str();
        expect(
            !["/livez", "/readyz", "/metrics"].contains(&base),
            format!("BASE_PATH ({base}) is a path at which operators ask each server: choose another one"),
        );
        let collection = &self.collection;
        expect(
            !collection.is_empty() && !collection.starts_with("system.") && !collection.contains(['$', '\0']),
            format!(
                "COLLECTION ({collection:?}) must not be empty, begin with `system.` or hold a `$`: MongoDB has none of that name"
            ),
        );
        let database = self.database.as_deref().unwrap_or_default();
        expect(
            !database.contains(NOT_IN_DATABASES) && database.len() <= DATABASE_BYTES_MAX,
            format!(
                "DATABASE ({database:?}) must have {DATABASE_BYTES_MAX} bytes at most and none of / \\ . \" $ * < > : | ? or blanks: MongoDB has none of that name"
            ),
        );
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// How often a client for which nothing happens is told something. Where [`Self::silence_secs`] is short, more often
    /// than by default.
    pub fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive_secs).min(Duration::from_secs(self.silence_secs) / 2)
    }

    pub(super) fn connections_of_address_max(&self) -> usize {
        self.connections_per_address_max.min(self.connections_max)
    }

    pub(super) fn bytes_of_replay_max(&self) -> usize {
        self.replay_bytes_max.min(self.replays_kept_bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn faults(flags: &[&str]) -> Vec<String> {
        Config::parse_from(["corriente"].iter().chain(flags)).check().err().unwrap_or_default()
    }

    #[test]
    fn contradictions_are_named_with_both_sides() {
        for (flags, sides) in [
            (
                &["--connections-max", "10", "--connections-per-address-max", "11"][..],
                ["CONNECTIONS_PER_ADDRESS_MAX (11)", "CONNECTIONS_MAX (10)"],
            ),
            (
                &["--replay-bytes-max", "2000", "--replays-kept-bytes-max", "1000"],
                ["REPLAY_BYTES_MAX (2000)", "REPLAYS_KEPT_BYTES_MAX (1000)"],
            ),
            (&["--keep-alive-secs", "20", "--silence-secs", "30"], ["KEEP_ALIVE_SECS (20)", "SILENCE_SECS (30)"]),
            (&["--bodies-bytes-max", "65535"], ["BODIES_BYTES_MAX (65535)", "65536"]),
            (&["--read-only", "--validator"], ["VALIDATOR", "READ_ONLY"]),
            (&["--read-only", "--pre-images"], ["PRE_IMAGES", "READ_ONLY"]),
            (&["--read-only", "--keep-days", "7"], ["KEEP_DAYS", "READ_ONLY"]),
            (&["--sender-header", "X-User"], ["SENDER_HEADER (x-user)", "TRUST_PROXY"]),
            (&["--sender-header", "X-User", "--trust-proxy", "false"], ["SENDER_HEADER", "TRUST_PROXY"]),
            (&["--collection", "system.x"], ["COLLECTION", "system.x"]),
            (&["--database", "a.b"], ["DATABASE", "a.b"]),
        ] {
            let found = faults(flags);
            assert!(found.len() == 1 && sides.iter().all(|side| found[0].contains(side)), "{flags:?}: {found:?}");
        }
        assert_eq!(faults(&["--read-only", "--validator", "--database", " "]).len(), 2, "all are told at once");
    }

    #[test]
    fn a_default_gives_way_to_a_smaller_bound_around_it() {
        let config = |flags: &[&str]| Config::parse_from(["corriente"].iter().chain(flags));
        assert_eq!(faults(&[]), [""; 0]);
        assert_eq!(
            faults(&["--connections-max", "10", "--replays-kept-bytes-max", "10", "--silence-secs", "4"]),
            [""; 0]
        );
        assert_eq!(config(&["--connections-max", "10"]).door_limits().connections_per_address_max, 10);
        assert_eq!(config(&["--replays-kept-bytes-max", "10"]).replay_limits().bytes_max, 10);
        assert_eq!(config(&["--silence-secs", "4"]).keep_alive(), Duration::from_secs(2));
        assert_eq!(config(&[]).keep_alive(), Duration::from_secs(25));
    }
}
