//! Whether a socket has room for another packet.
//!
//! The library keeps a bounded channel for each socket and can not be awaited for room in it; it also puts its own pings
//! there, and takes a session whose ping finds no room for dead. So a client that is slow, but reads, must never find
//! the channel filled to the brim by us: a place is always left.

use std::cell::Cell;

use serde::{Serialize, Serializer, ser::Error as _};
use socketioxide::{SendError, SocketError, extract::SocketRef};

/// How many places must be free before one of them is taken.
const PLACES: u32 = 2;

/// What a socket says when it is asked for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    Full,
    /// The socket is closed.
    Gone,
}

impl Room {
    /// Asks. The library tells of room only when something is sent, so this begins to send something that fails to become
    /// JSON: while it does, it holds a place, and in its turn asks for the next one. Nothing is sent in the end.
    pub(super) fn of(socket: &SocketRef) -> Self {
        Self::of_places(socket, PLACES)
    }

    fn of_places(socket: &SocketRef, places: u32) -> Self {
        let question = Question { socket, places: places - 1, room: Cell::new(Room::Free) };
        match socket.emit("", &question) {
            Err(SendError::Socket(SocketError::InternalChannelFull)) => Room::Full,
            Err(SendError::Socket(_)) => Room::Gone,
            Err(SendError::Serialize(_)) | Ok(()) => question.room.get(),
        }
    }
}

struct Question<'a> {
    socket: &'a SocketRef,
    /// Places to ask for while this one is held.
    places: u32,
    room: Cell<Room>,
}

impl Serialize for Question<'_> {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        if self.places > 0 && self.room.get() == Room::Free {
            self.room.set(Room::of_places(self.socket, self.places));
        }
        Err(S::Error::custom("it was only asked for room"))
    }
}
