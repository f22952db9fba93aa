//! When messages are meant to be sent.
//!
//! An open loop sends at the times of a schedule that knows nothing of the server. A message that leaves late because the
//! server was slow counts its delay from when it *should* have left; else a server that stands still for a second would
//! be charged with one slow message in place of all those that it kept from being sent (coordinated omission).

use std::{thread, time::Duration};

use tokio::sync::mpsc;

use super::stamp::{Nanos, now};

/// Equal steps from a beginning.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    pub start: Nanos,
    pub per_second: f64,
}

impl Schedule {
    /// When the `n`-th message is meant to leave. Counted from the start each time, so that rounding never adds up.
    pub fn time_of(&self, n: u64) -> Nanos {
        self.start + (n as f64 * 1e9 / self.per_second) as Nanos
    }

    /// Calls `send` with each number and time before `until`, when it comes. Returns early when `send` says `false`.
    /// A thread of its own keeps time to some 60 us; the timers of an async runtime only to a millisecond.
    pub fn keep(&self, until: Nanos, mut send: impl FnMut(u64, Nanos) -> bool) {
        for n in 0.. {
            let due = self.time_of(n);
            if due >= until {
                return;
            }
            let left = due.saturating_sub(now());
            if left > 0 {
                thread::sleep(Duration::from_nanos(left));
            }
            if !send(n, due) {
                return;
            }
        }
    }
}

/// Hands the times of a schedule to publishers in turn, from a thread of its own. The queues are as long as the server is
/// late; the length of the run bounds them.
pub fn deal(schedule: Schedule, until: Nanos, publishers: usize) -> Vec<mpsc::UnboundedReceiver<Nanos>> {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..publishers).map(|_| mpsc::unbounded_channel()).unzip();
    thread::spawn(move || {
        schedule.keep(until, |n, due| senders[(n % senders.len() as u64) as usize].send(due).is_ok());
    });
    receivers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_does_not_drift() {
        let schedule = Schedule { start: 5, per_second: 3.0 };
        assert_eq!(schedule.time_of(0), 5);
        assert_eq!(schedule.time_of(3), 1_000_000_005);
        assert_eq!(schedule.time_of(3_000_000), 1_000_000_000_000_005);
    }

    #[test]
    fn late_messages_keep_their_intended_times() {
        let schedule = Schedule { start: now(), per_second: 1_000.0 };
        let until = schedule.time_of(30);
        let mut kept = Vec::new();
        schedule.keep(until, |n, due| {
            if n == 3 {
                thread::sleep(Duration::from_millis(10));
            }
            assert!(now() >= due);
            kept.push(due);
            true
        });
        assert_eq!(kept, (0..30).map(|n| schedule.time_of(n)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn publishers_take_turns() {
        let schedule = Schedule { start: now(), per_second: 10_000.0 };
        let mut queues = deal(schedule, schedule.time_of(7), 3);
        let mut counts = Vec::new();
        for queue in &mut queues {
            let mut count = 0;
            while queue.recv().await.is_some() {
                count += 1;
            }
            counts.push(count);
        }
        assert_eq!(counts, [3, 2, 2]);
    }
}
