//! Whether a socket has room for another packet.
//!
//! The library keeps a bounded channel for each socket and can not be awaited for room in it; it also puts its own pings
//! there, and takes a session whose ping finds no room for dead. So a client that is slow, but reads, must never find
//! the channel filled to the brim by us: a place is always left.

use std::{cell::Cell, collections::VecDeque, ptr};

use serde::{Serialize, Serializer, ser::Error as _};
use socketioxide::{SendError, SocketError, extract::SocketRef};

use super::PACKETS_WAITING_MAX;

/// How many places must be free before one of them is taken.
const PLACES: u32 = 2;
/// The most bytes of packets that wait for one client, and one packet besides.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// What a socket says when it is asked for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    Full,
    /// The socket is closed.
    Gone,
}

impl Room {
    /// Asks for so many places. The library tells of room only when something is sent, so this begins to send something that
    /// fails to become JSON: while it does, it holds a place, and in its turn asks for the next one. Nothing is sent in the
    /// end.
    fn of_places(socket: &SocketRef, places: u32) -> Self {
        let question = Question { socket, places: places - 1, is_asked: Cell::new(false), room: Cell::new(Room::Free) };
        match socket.emit("", &question) {
            Err(SendError::Socket(SocketError::InternalChannelFull)) => Room::Full,
            Err(SendError::Socket(_)) => Room::Gone,
            Err(SendError::Serialize(_)) | Ok(()) => question.room.get(),
        }
    }
}

/// Whether a socket has left its namespace, or its connection is over. The library takes one for connected that leaves while
/// it joins, and nobody is told of that: so it is looked for where the library keeps those that are there.
pub(super) fn has_left(socket: &SocketRef) -> bool {
    let listed = socket.broadcast().get_socket(socket.id);
    // Another one with the same id has come back over the same connection.
    let is_listed = listed.is_some_and(|listed| ptr::eq(&*listed, &**socket));
    !is_listed || Room::of_places(socket, 1) == Room::Gone
}

/// What one client was sent last, of which some may wait: packets are bounded in number by the library, and in bytes here.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The bytes of the last packets, oldest first.
    sizes: VecDeque<usize>,
}

impl Waiting {
    /// Whether there is room for another packet.
    pub(super) fn room(&self, socket: &SocketRef) -> Room {
        Room::of_places(socket, self.places())
    }

    /// Counts a packet that was sent.
    pub(super) fn note(&mut self, bytes: usize) {
        if self.sizes.len() == PACKETS_WAITING_MAX {
            self.sizes.pop_front();
        }
        self.sizes.push_back(bytes);
    }

    /// How many places must be free, so that those that wait are no more bytes than may: it is the newest ones that wait.
    fn places(&self) -> u32 {
        let mut bytes = 0;
        let fits = |size: &&usize| {
            bytes += **size;
            bytes <= WAITING_BYTES_MAX
        };
        let count = self.sizes.iter().rev().take_while(fits).count();
        if count == self.sizes.len() { PLACES } else { PLACES.max((PACKETS_WAITING_MAX - count) as u32) }
    }
}

struct Question<'a> {
    socket: &'a SocketRef,
    /// Places to ask for while this one is held.
    places: u32,
    /// It may be asked for its JSON more than once, and each of the places below it then, too.
    is_asked: Cell<bool>,
    room: Cell<Room>,
}

impl Serialize for Question<'_> {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        if self.places > 0 && !self.is_asked.replace(true) {
            self.room.set(Room::of_places(self.socket, self.places));
        }
        Err(S::Error::custom("it was only asked for room"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_packets_leave_room_for_fewer() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.places(), PLACES);
        for _ in 0..100 {
            waiting.note(200);
            assert_eq!(waiting.places(), PLACES, "small ones are bounded in number");
        }
        for _ in 0..5 {
            waiting.note(16 * 1024);
        }
        assert_eq!(waiting.places() as usize, PACKETS_WAITING_MAX - 4, "four of them may wait");
        waiting.note(WAITING_BYTES_MAX + 1);
        assert_eq!(waiting.places() as usize, PACKETS_WAITING_MAX, "nothing else may");
        for _ in 0..PACKETS_WAITING_MAX {
            waiting.note(200);
        }
        assert_eq!(waiting.places(), PLACES);
    }
}
