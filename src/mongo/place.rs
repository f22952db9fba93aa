//! A place in a history: (effective date, `_id`), with the `_id` as BSON, so that a page goes on exactly where the
//! one before it ended, whatever the type of its last `_id`.

use std::{cmp::Ordering, fmt, str::FromStr};

use mongodb::bson::{Bson, Document, RawBson, RawBsonRef, doc, oid::ObjectId};

use super::id::{from_value_bytes, hex, to_value_bytes, unhex};

/// The largest `_id` that a token spells out, in bytes. A larger one, or one of bytes that can not be read, is that of
/// no valid message; a token then counts how many documents it lies after the last place that can be spelt out.
const ID_BYTES_MAX: usize = 1_024;
/// The most documents that a token counts. When more such ids stand in a row, all of one millisecond, a page goes on
/// at the next older millisecond, so that nobody can make a page cost more than this.
const PASSED_MAX: usize = 1_000;

/// A direction through a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the newest to the oldest.
    Older,
    /// From the oldest to the newest.
    Newer,
}

impl Way {
    /// The other one.
    pub(super) fn back(self) -> Self {
        match self {
            Way::Older => Way::Newer,
            Way::Newer => Way::Older,
        }
    }
}

/// A place beyond which a page begins, on either way: opaque to clients, URL-safe.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPlace {
    /// Milliseconds since 1970; may be negative.
    pub(super) millis: i64,
    /// `None`: beyond everything at `millis`, whichever the way.
    pub(super) id: Option<Bson>,
    /// So many documents after that place were passed already: towards older ones, or negative towards newer ones. On
    /// the other way they count for nothing.
    passed: i32,
}

impl HistoryPlace {
    /// The place of a document; without its `_id` when that can not be spelt out.
    pub(super) fn document(millis: i64, id: Option<RawBsonRef<'_>>) -> Self {
        let id = id.and_then(|id| {
            let (kind, bytes) = to_value_bytes(id);
            if bytes.len() <= ID_BYTES_MAX { from_value_bytes(kind, &bytes) } else { None }
        });
        Self { millis, id, passed: 0 }
    }

    /// Beyond everything at `millis`.
    pub(super) fn whole(millis: i64) -> Self {
        Self { millis, id: None, passed: 0 }
    }

    /// How many documents were passed already on this way.
    pub(super) fn passed_on(&self, way: Way) -> usize {
        let passed = match way {
            Way::Older => self.passed,
            Way::Newer => self.passed.saturating_neg(),
        };
        usize::try_from(passed).unwrap_or(0)
    }

    fn with_passed(&self, way: Way, passed: usize) -> Self {
        // The bound of a token is far below that of the type.
        let passed = i32::try_from(passed).unwrap_or(i32::MAX);
        let passed = if way == Way::Older { passed } else { -passed };
        Self { passed, ..self.clone() }
    }

    /// The place after the last of `places`, which are those of documents that follow `from` on this way. `from` is absent
    /// before the newest of all.
    pub(super) fn after(way: Way, from: Option<&Self>, places: &[Self]) -> Option<Self> {
        let last = places.last()?;
        let newest = Self::whole(i64::MAX);
        let (spelt, passed) = match places.iter().rposition(|place| place.id.is_some()) {
            Some(at) => (&places[at], places.len() - 1 - at),
            None => {
                let spelt = from.unwrap_or(&newest);
                (spelt, spelt.passed_on(way) + places.len())
            }
        };
        Some(if passed <= PASSED_MAX { spelt.with_passed(way, passed) } else { last.with_passed(way, 0) })
    }

    /// The place from which the way back to `from` begins, when `places` were met between the two.
    pub(super) fn way_back(way: Way, from: &Self, places: &[Self]) -> Self {
        if let Some(at) = places.iter().position(|place| place.id.is_some()) {
            return places[at].with_passed(way.back(), at);
        }
        // Nothing here can be spelt out, so that none of it is a message. Some of the same time may come once more.
        let edge = places.first().unwrap_or(from).millis;
        Self::whole(match way {
            Way::Older => edge.saturating_sub(1),
            Way::Newer => edge.saturating_add(1),
        })
    }

    /// Where the `_id` sorts among ObjectIds, in MongoDB's order of types
    /// (<https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/>).
    pub(super) fn order_beside_object_ids(&self) -> Ordering {
        match self.id {
            Some(Bson::ObjectId(_)) => Ordering::Equal,
            Some(
                Bson::Boolean(_)
                | Bson::DateTime(_)
                | Bson::Timestamp(_)
                | Bson::RegularExpression(_)
                | Bson::DbPointer(_)
                | Bson::JavaScriptCode(_)
                | Bson::JavaScriptCodeWithScope(_)
                | Bson::MaxKey,
            ) => Ordering::Greater,
            _ => Ordering::Less,
        }
    }

    /// The ObjectIds of documents that have their date from it and lie beyond this place, as a condition on `_id`.
    /// `None`: there can be none.
    pub(super) fn object_ids_beyond(&self, way: Way) -> Option<Document> {
        match (way, self.object_id_cut(way)) {
            (Way::Older, Some(cut)) => Some(doc! { "$lt": cut }),
            (Way::Older, None) => Some(Document::new()),
            (Way::Newer, Some(cut)) if self.id == Some(Bson::ObjectId(cut)) => Some(doc! { "$gt": cut }),
            (Way::Newer, Some(cut)) => Some(doc! { "$gte": cut }),
            (Way::Newer, None) => None,
        }
    }

    /// The smallest ObjectId that is not older than this place, by its time and then by `_id`. `None`: all are older.
    fn object_id_cut(&self, way: Way) -> Option<ObjectId> {
        let seconds = self.millis.div_euclid(1_000);
        let whole_second_is_older = self.millis.rem_euclid(1_000) != 0;
        if whole_second_is_older {
            return first_object_id_of(seconds + 1);
        }
        match &self.id {
            None if way == Way::Newer => first_object_id_of(seconds + 1),
            None => first_object_id_of(seconds),
            Some(Bson::ObjectId(id)) => match first_object_id_of(seconds) {
                // An ObjectId of another second stands beside a field `date`; the order within this second is by id.
                Some(first) if id.bytes() < first.bytes() => Some(first),
                Some(_) => match first_object_id_of(seconds + 1) {
                    Some(end) if id.bytes() >= end.bytes() => Some(end),
                    _ => Some(*id),
                },
                None => None,
            },
            Some(_) if self.order_beside_object_ids().is_gt() => first_object_id_of(seconds + 1),
            Some(_) => first_object_id_of(seconds),
        }
    }
}

/// The smallest ObjectId whose time is `seconds`; `None` beyond the last one that there can be (year 2106).
pub(super) fn first_object_id_of(seconds: i64) -> Option<ObjectId> {
    let mut bytes = [0; 12];
    if seconds >= 0 {
        bytes[..4].copy_from_slice(&u32::try_from(seconds).ok()?.to_be_bytes());
    }
    Some(ObjectId::from_bytes(bytes))
}

impl fmt::Display for HistoryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.millis as u64)?;
        if let Some(id) = self.id.clone().and_then(|id| RawBson::try_from(id).ok()) {
            let (kind, bytes) = to_value_bytes(id.as_raw_bson_ref());
            write!(f, "-{kind:02x}{}", hex(&bytes))?;
        }
        if self.passed != 0 {
            write!(f, ".{}", self.passed)?;
        }
        Ok(())
    }
}

/// The text is no place that this server gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a place in the history; use the `before` or `after` of another page, unchanged")]
pub struct InvalidPlace;

impl FromStr for HistoryPlace {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let is_countable = |passed: &i32| passed.unsigned_abs() as usize <= PASSED_MAX;
        let read = || {
            let (text, passed) = match text.split_once('.') {
                Some((text, passed)) => (text, passed.parse().ok().filter(is_countable)?),
                None => (text, 0),
            };
            let hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let millis = text.get(..16).filter(|digits| hex(digits))?;
            let millis = u64::from_str_radix(millis, 16).ok()? as i64;
            let id = match text.get(16..)? {
                "" => None,
                rest if rest.len() <= 2 * ID_BYTES_MAX + 3 => {
                    let rest = rest.strip_prefix('-')?;
                    let kind = *unhex(rest.get(..2)?)?.first()?;
                    Some(from_value_bytes(kind, &unhex(rest.get(2..)?)?)?)
                }
                _ => return None,
            };
            Some(Self { millis, id, passed })
        };
        read().ok_or(InvalidPlace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_whatever_the_type_of_the_id() {
        for id in [
            None,
            Some(Bson::ObjectId(ObjectId::new())),
            Some(Bson::Int32(7)),
            Some(Bson::String("ñ".into())),
            Some(Bson::Document(doc! { "a": 1 })),
            Some(Bson::Boolean(false)),
        ] {
            let place = HistoryPlace { millis: -62_135_596_800_000, id, passed: 0 };
            for passed in [0, 7, -7] {
                let place = HistoryPlace { passed, ..place.clone() };
                let text = place.to_string();
                assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)), "{text}");
                assert_eq!(text.parse(), Ok(place));
            }
        }
    }

    #[test]
    fn garbage_is_no_token() {
        for garbage in [
            "",
            "x",
            "-",
            "0000000000000000-",
            "0000000000000000-02ff",
            "000000000000000g",
            "é",
            "0000000000000000.1001",
            "0000000000000000.-1001",
            "0000000000000000.-2147483648",
        ] {
            assert_eq!(garbage.parse::<HistoryPlace>(), Err(InvalidPlace), "{garbage}");
        }
        assert!("0".repeat(1_000_000).parse::<HistoryPlace>().is_err());
    }

    #[test]
    fn object_ids_are_cut_where_the_merged_order_is() {
        let oid = |seconds: i64| first_object_id_of(seconds).unwrap();
        let bound = |millis, id| HistoryPlace { millis, id, passed: 0 }.object_id_cut(Way::Older);
        assert_eq!(bound(5_500, None), Some(oid(6)));
        assert_eq!(bound(5_000, None), Some(oid(5)));
        assert_eq!(bound(5_000, Some(Bson::Int32(1))), Some(oid(5)), "numbers sort before ObjectIds");
        assert_eq!(bound(5_000, Some(Bson::Boolean(true))), Some(oid(6)), "booleans sort after them");
        assert_eq!(bound(5_000, Some(Bson::ObjectId(oid(9)))), Some(oid(6)));
        assert_eq!(bound(5_000, Some(Bson::ObjectId(oid(1)))), Some(oid(5)));
        assert_eq!(bound(-1, None), Some(oid(0)));
        assert_eq!(bound(i64::MAX / 2, None), None);
    }

    #[test]
    fn what_lies_beyond_a_place_on_one_way_does_not_lie_beyond_it_on_the_other() {
        let oid = |seconds: i64| first_object_id_of(seconds).unwrap();
        let place = |millis, id| HistoryPlace { millis, id, passed: 0 };
        for (place, older, newer) in [
            (place(5_000, Some(Bson::ObjectId(oid(5)))), doc! { "$lt": oid(5) }, Some(doc! { "$gt": oid(5) })),
            (place(5_000, Some(Bson::Int32(1))), doc! { "$lt": oid(5) }, Some(doc! { "$gte": oid(5) })),
            (place(5_500, Some(Bson::Int32(1))), doc! { "$lt": oid(6) }, Some(doc! { "$gte": oid(6) })),
            (place(5_000, None), doc! { "$lt": oid(5) }, Some(doc! { "$gte": oid(6) })),
            (place(i64::MAX / 2, None), doc! {}, None),
        ] {
            assert_eq!(place.object_ids_beyond(Way::Older), Some(older), "{place}");
            assert_eq!(place.object_ids_beyond(Way::Newer), newer, "{place}");
        }
    }

    #[test]
    fn documents_that_were_passed_on_one_way_count_for_nothing_on_the_other() {
        let place = |millis, id: Option<i32>| HistoryPlace { millis, id: id.map(Bson::Int32), passed: 0 };
        let met = [place(9, None), place(8, Some(8)), place(7, None), place(7, None)];
        let next = HistoryPlace::after(Way::Older, None, &met).unwrap();
        assert_eq!((next.millis, next.passed_on(Way::Older), next.passed_on(Way::Newer)), (8, 2, 0));
        let back = HistoryPlace::way_back(Way::Older, &place(9, Some(9)), &met);
        assert_eq!((back.millis, back.passed_on(Way::Older), back.passed_on(Way::Newer)), (8, 0, 1));
        assert_eq!(HistoryPlace::way_back(Way::Older, &place(9, Some(9)), &[]), place(8, None));
        assert_eq!(HistoryPlace::way_back(Way::Newer, &place(9, Some(9)), &[]), place(10, None));
    }
}
