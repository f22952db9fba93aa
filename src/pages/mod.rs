//! The chat as pages: rendered by the server and whole without a script, made live by `templates/static/chat.js`.
//!
//! A page is a form and a history. Its form inserts, like every other writer, and its history carries the cursor
//! from which the browser goes on over the WebSocket. Nothing here pushes.
//!
//! - `chat` is a room or an inbox; `form` what its form sent; `row` one message; `text` the addresses and mentions in it; `rooms` is the list beside them.
//! - `part` is which part of a history is shown; `search` what a search has found, with its `marks`.
//! - `status` is how the server is.
//! - `texts` is every word, in two languages; `visitor` which of them, and what the browser remembers.
//! - `docs` is for those who write programs: the live side to be tried, and the kinds of problems.
//! - `answer` puts the headers on; `errors` are the pages that say what went wrong; `assets` the static files,
//!   and `compression` makes both small.

mod answer;
mod assets;
mod chat;
mod compression;
mod docs;
mod errors;
mod form;
mod marks;
mod part;
mod place;
mod rooms;
mod row;
mod search;
mod status;
mod text;
mod texts;
mod visitor;

pub(crate) use assets::{Stored, client_script, favicon, is_static, static_file};
pub(crate) use chat::{index, post_inbox, post_room, show_inbox, show_room};
pub use compression::compress_page;
pub(crate) use docs::{rest_page, show_problem, show_realtime};
pub(crate) use errors::{not_found, too_many};
pub use rooms::RoomList;
pub(crate) use rooms::list_rooms;
pub(crate) use status::show_status;

use crate::{
    base_path::BasePath,
    mongo::{History, Inserter},
    rates::Rates,
    watcher::WatcherStatus,
};

/// What the pages work with: given to each by poem as [`poem::web::Data`].
#[derive(Clone)]
pub struct Pages {
    /// What stands before every path.
    pub base: BasePath,
    /// Where messages are read.
    pub history: History,
    /// Where the forms write.
    pub inserter: Inserter,
    /// Bounds what one client writes.
    pub rates: Rates,
    /// Whence the cursor of a page comes.
    pub status: WatcherStatus,
    /// The collection's name, for the line that an empty room shows to those who have mongosh.
    pub collection: String,
    /// The rooms beside every page.
    pub rooms: RoomList,
    /// How many topics one connection may follow.
    pub topics_max: usize,
}
