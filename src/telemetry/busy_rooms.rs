//! How much is written in each room.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::message::RoomName;

/// The most rooms that are counted between two calls of [`BusyRooms::take`]. A room that is new beyond them is not:
/// where ten thousand rooms are written to within seconds, none of them stands out.
const ROOMS_MAX: usize = 10_000;

/// New messages by room, since they were last taken. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct BusyRooms(Arc<Mutex<HashMap<RoomName, u32>>>);

impl BusyRooms {
    /// Counts one message in each of these rooms, one of which may stand there several times.
    pub fn note<'a>(&self, rooms: impl Iterator<Item = &'a RoomName>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for room in rooms {
            if let Some(count) = counts.get_mut(room) {
                *count = count.saturating_add(1);
            } else if counts.len() < ROOMS_MAX {
                counts.insert(room.clone(), 1);
            }
        }
    }

    /// The counts since the last call.
    pub fn take(&self) -> HashMap<RoomName, u32> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_counted_up_to_a_bound() {
        let room = |name: String| RoomName::parse(&name).unwrap();
        let rooms: Vec<RoomName> = (0..ROOMS_MAX + 5).map(|n| room(n.to_string())).collect();
        let busy = BusyRooms::default();
        busy.note(rooms.iter().chain([&rooms[0], &rooms[ROOMS_MAX]]));
        let counts = busy.take();
        assert_eq!(counts.len(), ROOMS_MAX);
        assert_eq!((counts[&rooms[0]], counts[&rooms[1]]), (2, 1));
        assert!(busy.take().is_empty());
    }
}
