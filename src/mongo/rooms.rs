//! The rooms that there are: a walk over the index by name, one seek per room, however many messages it has.

use std::{fmt, str::FromStr, time::Duration};

use futures::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{RawDocumentBuf, doc},
    error::Error,
    options::Hint,
};

use super::{
    History, ReadError, Scope,
    document::decode,
    id::{hex, unhex},
    place::{HistoryPlace, Way},
    scan::{More, is_missing_index},
    schema::{room_key, to_nobody},
};
use crate::{
    cursor::ClusterTime,
    message::{DEFAULT_ROOM, InvalidText, Message, NAME_CHARS_MAX, RoomName},
};

/// How long one step of the walk may take.
const SEEK_TIME_MAX: Duration = Duration::from_secs(2);
/// How many names that break the contract one page passes over. They cost a step each, and anybody who writes into
/// MongoDB can make any number of them: behind so many the page ends, and the next one goes on.
const INVALID_NAMES_MAX: usize = 200;
/// How many documents of a room are looked at for its newest message: at first, as a few may break the contract, and at
/// most. A room whose newest thousand documents all break it is not listed.
const NEWEST_DOCUMENTS_FIRST: usize = 4;
const NEWEST_DOCUMENTS_MAX: usize = 1_000;
/// After how many documents that were looked at in vain a page ends, and the next one goes on.
const VAIN_DOCUMENTS_MAX: usize = 4_000;

/// A room and its newest message.
#[derive(Debug, Clone)]
pub struct RoomSummary {
    /// The room.
    pub room: RoomName,
    /// Its newest message.
    pub newest: Message,
}

/// One page of the rooms, by name.
#[derive(Debug, Clone)]
pub struct RoomsPage {
    /// In the order of their names' bytes. May be shorter than asked for although there are others.
    pub rooms: Vec<RoomSummary>,
    /// Where the next page begins; `None` at the end.
    pub after: Option<RoomsPlace>,
}

/// A place in the list of rooms: after a room or, where a page had to end among names that are none of rooms, among
/// those. Such a place is written in a way that can be no room's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomsPlace {
    /// After this room.
    After(RoomName),
    /// At this text, whatever it is.
    At(String),
}

/// No room's name has a part `.`.
const PLACE_MARK: &str = "./";
/// The longest text in a place, in bytes: as many characters as a name may have, and one more.
const PLACE_BYTES_MAX: usize = 4 * (NAME_CHARS_MAX + 1) + 1;

impl fmt::Display for RoomsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoomsPlace::After(room) => f.write_str(room.as_str()),
            RoomsPlace::At(text) => write!(f, "{PLACE_MARK}{}", hex(text.as_bytes())),
        }
    }
}

impl FromStr for RoomsPlace {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let place = text.strip_prefix(PLACE_MARK).filter(|digits| (2..=2 * PLACE_BYTES_MAX).contains(&digits.len()));
        match place.and_then(unhex).and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(text) => Ok(RoomsPlace::At(text)),
            None => RoomName::normalise(text).map(RoomsPlace::After),
        }
    }
}

impl History {
    /// At most `limit` rooms that come after `after`, each with its newest message.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn rooms(
        &self,
        after: Option<&RoomsPlace>,
        limit: usize,
        at_least: ClusterTime,
    ) -> Result<RoomsPage, ReadError> {
        self.within_deadline(async {
            let mut session = self.session_at(at_least).await?;
            let mut walk = Walk::after(after);
            let mut rooms: Vec<RoomSummary> = Vec::new();
            let mut vain = 0;
            loop {
                let room = match walk.next(self, &mut session).await? {
                    Step::Room(room) => room,
                    Step::End => return Ok(RoomsPage { rooms, after: None }),
                    Step::Pause => break,
                };
                let scope = Scope::Room(room.clone());
                if let Some(newest) = self.newest(&mut session, &scope, &mut vain).await? {
                    if rooms.len() == limit {
                        break;
                    }
                    rooms.push(RoomSummary { room, newest });
                }
                if vain >= VAIN_DOCUMENTS_MAX {
                    break;
                }
            }
            // A full page was read beyond its end, to know whether there are others.
            let after = match rooms.last() {
                Some(last) if rooms.len() == limit => RoomsPlace::After(last.room.clone()),
                _ => RoomsPlace::At(walk.from),
            };
            Ok(RoomsPage { rooms, after: Some(after) })
        })
        .await
    }

    /// The newest message of a room. Adds to `vain` how many documents were looked at for nothing.
    async fn newest(
        &self,
        session: &mut ClientSession,
        room: &Scope,
        vain: &mut usize,
    ) -> Result<Option<Message>, ReadError> {
        let mut scan = self.scan(session, room, Way::Older);
        let mut place: Option<HistoryPlace> = None;
        let (mut documents_max, mut examined) = (NEWEST_DOCUMENTS_FIRST, 0);
        loop {
            let rows = scan.read(place.as_ref(), documents_max).await?;
            if let Some(message) = rows.rows.iter().find_map(|row| decode(&row.document).ok()) {
                return Ok(Some(message));
            }
            examined += rows.rows.len();
            *vain += rows.rows.len();
            if rows.more == More::No || examined >= NEWEST_DOCUMENTS_MAX {
                return Ok(None);
            }
            place = HistoryPlace::after(Way::Older, place.as_ref(), &rows.places());
            documents_max = (8 * documents_max).min(NEWEST_DOCUMENTS_MAX - examined);
        }
    }

    /// The name of the first room at `from` or after it, as it stands in the index.
    async fn room_at(&self, session: &mut ClientSession, from: &str) -> Result<Option<Vec<u8>>, Error> {
        let mut filter = to_nobody();
        filter.insert("room", doc! { "$gte": from });
        let messages = self.deployment.messages();
        let find = || {
            let find = messages.find(filter.clone()).sort(doc! { "room": 1 }).limit(1);
            find.projection(doc! { "_id": 0, "room": 1 }).max_time(SEEK_TIME_MAX)
        };
        let mut cursor = match find().hint(Hint::Keys(room_key())).session(&mut *session).await {
            Err(error) if is_missing_index(&error) => find().session(&mut *session).await?,
            found => found?,
        };
        let document = cursor.stream(session).try_next().await?;
        Ok(document.and_then(|document| bytes_of_only_text(&document)))
    }
}

/// The bytes of the text that is the only field of a document, also when they are no UTF-8.
fn bytes_of_only_text(document: &RawDocumentBuf) -> Option<Vec<u8>> {
    // The document's length, the type of a string, a name that ends with NUL, the string's length.
    let field = document.as_bytes().get(4..)?.strip_prefix(b"\x02room\0")?;
    let (length, text) = field.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_le_bytes(*length)).ok()?;
    text.get(..length.checked_sub(1)?).map(<[u8]>::to_vec)
}

/// A walk over the rooms by name.
struct Walk {
    /// What comes next is at this text or after it.
    from: String,
    invalid_names: usize,
    /// `general` also has the messages that name no room, which the index by name can not meet.
    general_is_due: bool,
}

/// What a walk has come to.
enum Step {
    /// A room whose name keeps the contract.
    Room(RoomName),
    /// So many names that break it that it is time to pause.
    Pause,
    /// Nothing comes after.
    End,
}

impl Walk {
    fn after(place: Option<&RoomsPlace>) -> Self {
        let from = match place {
            // Every text is at or after the empty one, which is no name.
            None => text_after(""),
            Some(RoomsPlace::After(room)) => text_after(room.as_str()),
            Some(RoomsPlace::At(text)) => text.clone(),
        };
        let general_is_due = from.as_str() <= DEFAULT_ROOM;
        Self { from, invalid_names: 0, general_is_due }
    }

    async fn next(&mut self, history: &History, session: &mut ClientSession) -> Result<Step, Error> {
        loop {
            if self.invalid_names >= INVALID_NAMES_MAX {
                return Ok(Step::Pause);
            }
            let mut found = history.room_at(session, &self.from).await?;
            if self.general_is_due && found.as_deref().is_none_or(|name| name >= DEFAULT_ROOM.as_bytes()) {
                self.general_is_due = false;
                found = Some(DEFAULT_ROOM.into());
            }
            let Some(name) = found else {
                return Ok(Step::End);
            };
            let room = std::str::from_utf8(&name).ok().and_then(|name| RoomName::parse(name).ok());
            let Some(beyond) = text_beyond(&name) else {
                return Ok(Step::End);
            };
            self.from = beyond;
            match room {
                Some(room) => return Ok(Step::Room(room)),
                None => self.invalid_names += 1,
            }
        }
    }
}

/// The first text that comes after this one.
fn text_after(text: &str) -> String {
    format!("{text}\0")
}

/// The first text after a name that can be a room's name, or at least begin like one. `None`: none can.
fn text_beyond(name: &[u8]) -> Option<String> {
    let readable_bytes = std::str::from_utf8(name).map_or_else(|error| error.valid_up_to(), str::len);
    let (readable, rest) = name.split_at(readable_bytes);
    let readable = std::str::from_utf8(readable).unwrap_or_default();
    if readable.chars().count() > NAME_CHARS_MAX {
        // All that begin like this are too long: they are passed in one step, and a place stays short.
        let beginning: Vec<char> = readable.chars().take(NAME_CHARS_MAX + 1).collect();
        return text_above(beginning);
    }
    if rest.is_empty() {
        return Some(text_after(readable));
    }
    // What is no UTF-8 can not be asked for. Between it and the text with the first larger character stands no text.
    match char_above(rest) {
        Some(next) => Some(format!("{readable}{next}")),
        None => text_above(readable.chars().collect()),
    }
}

/// The first text that comes after all that begin with these characters.
fn text_above(mut beginning: Vec<char>) -> Option<String> {
    while let Some(last) = beginning.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            beginning.push(next);
            return Some(beginning.into_iter().collect());
        }
    }
    None
}

/// The first character whose UTF-8 comes after these bytes.
fn char_above(bytes: &[u8]) -> Option<char> {
    // The numbers of surrogates, which are no characters, count as the first character after them.
    let char_of = |number: u32| char::from_u32(number).unwrap_or('\u{e000}');
    let (mut low, mut end) = (0, char::MAX as u32 + 1);
    while low < end {
        let middle = low + (end - low) / 2;
        if char_of(middle).encode_utf8(&mut [0; 4]).as_bytes() > bytes {
            end = middle;
        } else {
            low = middle + 1;
        }
    }
    (low <= char::MAX as u32).then(|| char_of(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_a_name_nothing_is_left_out_that_can_be_a_rooms_name() {
        let beyond = |name: &[u8]| text_beyond(name);
        assert_eq!(beyond(b"dev").as_deref(), Some("dev\0"));
        assert_eq!(beyond("ñ".repeat(64).as_bytes()), Some(format!("{}\0", "ñ".repeat(64))));
        assert_eq!(beyond("a".repeat(1_000).as_bytes()), Some(format!("{}b", "a".repeat(64))));
        assert_eq!(beyond(format!("b{}", "\u{10ffff}".repeat(70)).as_bytes()).as_deref(), Some("c"));
        assert_eq!(beyond("\u{10ffff}".repeat(70).as_bytes()), None);
        // A stray byte of the middle of a character comes before all that begin one of several bytes.
        assert_eq!(beyond(b"a\x80z").as_deref(), Some("a\u{80}"));
        assert_eq!(beyond(b"a\xc3").as_deref(), Some("a\u{c0}"));
        assert_eq!(beyond(b"a\xc3z").as_deref(), Some("a\u{c0}"));
        assert_eq!(beyond(b"a\xed\xa0\x80").as_deref(), Some("a\u{e000}"), "half of a surrogate pair");
        assert_eq!(beyond(b"a\xff").as_deref(), Some("b"));
        assert_eq!(beyond(b"\xff"), None);
    }

    #[test]
    fn places_read_back_and_no_rooms_name_is_taken_for_one() {
        let room = RoomName::parse("a/b").unwrap();
        for place in
            [RoomsPlace::After(room), RoomsPlace::At("x \u{1}".into()), RoomsPlace::At("\u{10ffff}".repeat(65))]
        {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for refused in ["", "./", "./z", "./f", "./ff", ".", "../", &format!("./{}", "61".repeat(262))] {
            assert!(refused.parse::<RoomsPlace>().is_err(), "{refused}");
        }
    }
}
