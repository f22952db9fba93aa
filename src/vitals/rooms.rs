//! Which rooms were written to most within the last quarter of an hour.

use std::collections::{HashMap, VecDeque};

use crate::message::RoomName;

/// How many of the busiest rooms are told.
const ROOMS_TOLD_MAX: usize = 10;
/// How many rooms of each sample count: one that is not among the first hundred within five seconds has no chance to be
/// among the first ten within a quarter of an hour, but by being just below them all the time.
const ROOMS_PER_SAMPLE_MAX: usize = 100;

/// Messages by room in a window of samples.
#[derive(Debug, Default)]
pub(super) struct RoomWindow {
    samples: VecDeque<Vec<(RoomName, u32)>>,
    totals: HashMap<RoomName, u64>,
    /// Found out with each sample, as many may ask within it.
    busiest: Vec<(RoomName, u64)>,
}

impl RoomWindow {
    /// Adds what was counted since the last call, and forgets what is older than `samples_max` calls.
    pub(super) fn push(&mut self, counts: HashMap<RoomName, u32>, samples_max: usize) {
        let mut counts: Vec<(RoomName, u32)> = counts.into_iter().collect();
        counts.sort_unstable_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
        counts.truncate(ROOMS_PER_SAMPLE_MAX);
        for (room, count) in &counts {
            *self.totals.entry(room.clone()).or_default() += u64::from(*count);
        }
        self.samples.push_back(counts);
        while self.samples.len() > samples_max {
            for (room, count) in self.samples.pop_front().unwrap_or_default() {
                if let Some(total) = self.totals.get_mut(&room) {
                    *total -= u64::from(count);
                    if *total == 0 {
                        self.totals.remove(&room);
                    }
                }
            }
        }
        self.busiest = self.find_busiest();
    }

    /// The busiest rooms, and how many messages each of them had.
    pub(super) fn busiest(&self) -> Vec<(RoomName, u64)> {
        self.busiest.clone()
    }

    fn find_busiest(&self) -> Vec<(RoomName, u64)> {
        let mut rooms: Vec<(&RoomName, u64)> = self.totals.iter().map(|(room, total)| (room, *total)).collect();
        rooms.sort_unstable_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
        rooms.truncate(ROOMS_TOLD_MAX);
        rooms.into_iter().map(|(room, total)| (room.clone(), total)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_busy_while_its_messages_are_in_the_window() {
        let room = |name: &str| RoomName::parse(name).unwrap();
        let mut window = RoomWindow::default();
        let mut push = |counts: &[(&str, u32)]| {
            window.push(counts.iter().map(|(name, count)| (room(name), *count)).collect(), 2);
            window.busiest().into_iter().map(|(room, total)| (room.to_string(), total)).collect::<Vec<_>>()
        };
        let of =
            |rooms: &[(&str, u64)]| rooms.iter().map(|(name, total)| ((*name).to_owned(), *total)).collect::<Vec<_>>();
        assert_eq!(push(&[("a", 3), ("b", 1), ("c", 2)]), of(&[("a", 3), ("c", 2), ("b", 1)]));
        assert_eq!(push(&[("b", 4)]), of(&[("b", 5), ("a", 3), ("c", 2)]));
        assert_eq!(push(&[]), of(&[("b", 4)]));
        assert_eq!(push(&[]), of(&[]));
        assert!(window.totals.is_empty());
        let many: Vec<String> = (0..ROOMS_TOLD_MAX + 5).map(|n| n.to_string()).collect();
        window.push(many.iter().map(|name| (room(name), 1)).collect(), 2);
        assert_eq!(window.busiest().len(), ROOMS_TOLD_MAX);
    }
}
