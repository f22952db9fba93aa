//! A place in a history: (effective date, `_id`), with the `_id` as BSON, so that a page goes on exactly where the
//! one before it ended, whatever the type of its last `_id`.

use std::{cmp::Ordering, fmt, str::FromStr};

use mongodb::bson::{Bson, RawBson, RawBsonRef, oid::ObjectId};

use super::id::{from_value_bytes, hex, to_value_bytes, unhex};

/// The largest `_id` that a token spells out, in bytes. A larger one, or one of bytes that can not be read, is that of
/// no valid message; a token then counts how many documents it lies after the last place that can be spelt out.
const ID_BYTES_MAX: usize = 1_024;
/// The most documents that a token counts. When more such ids stand in a row, all of one millisecond, a page goes on
/// at the next older millisecond, so that nobody can make a page cost more than this.
const PASSED_MAX: usize = 1_000;

/// "Older than this place": opaque to clients, URL-safe.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    /// Milliseconds since 1970; may be negative.
    pub(super) millis: i64,
    /// `None`: older than everything at `millis`.
    pub(super) id: Option<Bson>,
    /// So many documents after that place were passed already.
    pub(super) passed: usize,
}

impl Before {
    /// Older than a document; without its `_id` when that can not be spelt out.
    pub(super) fn document(millis: i64, id: Option<RawBsonRef<'_>>) -> Self {
        let id = id.and_then(|id| {
            let (kind, bytes) = to_value_bytes(id);
            if bytes.len() <= ID_BYTES_MAX { from_value_bytes(kind, &bytes) } else { None }
        });
        Self { millis, id, passed: 0 }
    }

    /// The place after the last of `places`, which are those of documents that follow `before`.
    pub(super) fn after<'a>(before: Option<&'a Self>, places: &'a [Self]) -> Option<Self> {
        let last = places.last()?;
        let newest = Self { millis: i64::MAX, id: None, passed: 0 };
        let (spelt, passed) = match places.iter().rposition(|place| place.id.is_some()) {
            Some(at) => (&places[at], places.len() - 1 - at),
            None => {
                let spelt = before.unwrap_or(&newest);
                (spelt, spelt.passed + places.len())
            }
        };
        match passed {
            0..=PASSED_MAX => Some(Self { passed, ..spelt.clone() }),
            _ => Some(Self { passed: 0, ..last.clone() }),
        }
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

    /// The smallest ObjectId that does not lie before this place, as the upper bound of a scan of documents
    /// that have their date from their ObjectId. `None`: all ObjectIds lie before it.
    pub(super) fn object_id_bound(&self) -> Option<ObjectId> {
        let seconds = self.millis.div_euclid(1_000);
        let whole_second_is_before = self.millis.rem_euclid(1_000) != 0;
        if whole_second_is_before {
            return first_object_id_of(seconds + 1);
        }
        match &self.id {
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

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.millis as u64)?;
        if let Some(id) = self.id.clone().and_then(|id| RawBson::try_from(id).ok()) {
            let (kind, bytes) = to_value_bytes(id.as_raw_bson_ref());
            write!(f, "-{kind:02x}{}", hex(&bytes))?;
        }
        if self.passed > 0 {
            write!(f, ".{}", self.passed)?;
        }
        Ok(())
    }
}

/// The text is no place that this server gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a place in the history; use the `before` of the page before, unchanged")]
pub struct InvalidBefore;

impl FromStr for Before {
    type Err = InvalidBefore;

    fn from_str(text: &str) -> Result<Self, InvalidBefore> {
        let read = || {
            let (text, passed) = match text.split_once('.') {
                Some((text, passed)) => (text, passed.parse().ok().filter(|passed| *passed <= PASSED_MAX)?),
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
        read().ok_or(InvalidBefore)
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

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
            let before = Before { millis: -62_135_596_800_000, id, passed: 0 };
            assert_eq!(before.to_string().parse(), Ok(before.clone()));
            let before = Before { passed: 7, ..before };
            assert_eq!(before.to_string().parse(), Ok(before));
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
        ] {
            assert_eq!(garbage.parse::<Before>(), Err(InvalidBefore), "{garbage}");
        }
        assert!("0".repeat(1_000_000).parse::<Before>().is_err());
    }

    #[test]
    fn object_ids_are_cut_where_the_merged_order_is() {
        let oid = |seconds: i64| first_object_id_of(seconds).unwrap();
        let bound = |millis, id| Before { millis, id, passed: 0 }.object_id_bound();
        assert_eq!(bound(5_500, None), Some(oid(6)));
        assert_eq!(bound(5_000, None), Some(oid(5)));
        assert_eq!(bound(5_000, Some(Bson::Int32(1))), Some(oid(5)), "numbers sort before ObjectIds");
        assert_eq!(bound(5_000, Some(Bson::Boolean(true))), Some(oid(6)), "booleans sort after them");
        assert_eq!(bound(5_000, Some(Bson::ObjectId(oid(9)))), Some(oid(6)));
        assert_eq!(bound(5_000, Some(Bson::ObjectId(oid(1)))), Some(oid(5)));
        assert_eq!(bound(-1, None), Some(oid(0)));
        assert_eq!(bound(i64::MAX / 2, None), None);
    }
}
