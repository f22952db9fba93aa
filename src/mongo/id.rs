//! A document's `_id` as text, and back.
//!
//! An ObjectId is its 24 hexadecimal digits. Other types are tagged. The text form is injective for ids that
//! can stand in one collection together (MongoDB's unique index takes 1, 1.0 and `NumberLong(1)` for the same id),
//! and its order is MongoDB's order of `_id` wherever that is cheap: between types, and within numbers, strings,
//! binary data, dates and booleans. So a client that places messages by (date, id) as texts sees the server's order.
//! Documents and the rarer types are written as their bytes: injective, in an order of their own.
//!
//! ```text
//! before ObjectIds:  -n<16 hex><3 hex>  number     -s<hex>  string    -d..<hex>  document and others    -x<hex>  binary
//! ObjectIds:         65a1b2c3d4e5f60718293a4b
//! after ObjectIds:   zb0 zb1  boolean   zd<16 hex>  date   zt<16 hex>  timestamp   zz..<hex>  others
//! ```

use mongodb::bson::{
    Binary, Bson, DateTime, RawBsonRef, RawDocumentBuf, Timestamp,
    oid::ObjectId,
    raw::cstr,
    spec::{BinarySubtype, ElementType},
};

use crate::message::{ID_BYTES_MAX, MessageId};

/// The text form of `_id`, or `None` if it is larger than [`ID_BYTES_MAX`].
pub(super) fn id_of(value: RawBsonRef<'_>) -> Option<MessageId> {
    let text = match value {
        RawBsonRef::ObjectId(id) => id.to_hex(),
        RawBsonRef::Int32(number) => number_text(f64::from(number), 0),
        RawBsonRef::Int64(number) => int64_text(number),
        RawBsonRef::Double(number) => number_text(number, 0),
        RawBsonRef::String(text) if text.len() <= ID_BYTES_MAX => format!("-s{}", hex(text.as_bytes())),
        RawBsonRef::Binary(binary) if binary.bytes.len() <= ID_BYTES_MAX => {
            // MongoDB compares the length first, then the subtype.
            let (length, subtype) = (binary.bytes.len(), u8::from(binary.subtype));
            format!("-x{length:04x}{subtype:02x}{}", hex(binary.bytes))
        }
        RawBsonRef::Boolean(value) => format!("zb{}", u8::from(value)),
        RawBsonRef::DateTime(date) => format!("zd{:016x}", ordered(date.timestamp_millis())),
        RawBsonRef::Timestamp(time) => format!("zt{:08x}{:08x}", time.time, time.increment),
        other => {
            let bytes = value_bytes(other)?;
            // What can not be read back is no id that anybody could ask for.
            from_value_bytes(other.element_type() as u8, &bytes)?;
            let before_object_ids = matches!(
                other.element_type(),
                ElementType::MinKey
                    | ElementType::Undefined
                    | ElementType::Null
                    | ElementType::Decimal128
                    | ElementType::Symbol
                    | ElementType::EmbeddedDocument
            );
            let tag = if before_object_ids { "-d" } else { "zz" };
            format!("{tag}{:02x}{}", other.element_type() as u8, hex(&bytes))
        }
    };
    Some(MessageId::from_text_form(text))
}

/// The longest text that [`id_of`] makes: a tag, a type and [`ID_BYTES_MAX`] bytes in hexadecimal digits.
const TEXT_BYTES_MAX: usize = 16 + 2 * ID_BYTES_MAX;

/// The `_id` that has this text form, or `None` if there is none.
pub(super) fn bson_of(text: &str) -> Option<Bson> {
    // Before anything is read: a longer text could hold documents so deep that reading them overflows the stack.
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    if text.len() == 24 && MessageId::parse_object_id(text).is_some() {
        return ObjectId::parse_str(text).ok().map(Bson::ObjectId);
    }
    let (tag, rest) = (text.get(..2)?, text.get(2..)?);
    match tag {
        "-n" => number_of(rest),
        "-s" => String::from_utf8(unhex(rest)?).ok().map(Bson::String),
        "-x" => {
            let subtype = BinarySubtype::from(*unhex(rest.get(4..6)?)?.first()?);
            let bytes = unhex(rest.get(6..)?)?;
            Some(Bson::Binary(Binary { subtype, bytes }))
        }
        "zb" => match rest {
            "0" => Some(Bson::Boolean(false)),
            "1" => Some(Bson::Boolean(true)),
            _ => None,
        },
        "zd" => Some(Bson::DateTime(DateTime::from_millis(unordered(word(rest)?)))),
        "zt" => {
            let word = word(rest)?;
            Some(Bson::Timestamp(Timestamp { time: (word >> 32) as u32, increment: word as u32 }))
        }
        "-d" | "zz" => {
            let (kind, bytes) = (unhex(rest.get(..2)?)?, unhex(rest.get(2..)?)?);
            from_value_bytes(*kind.first()?, &bytes)
        }
        _ => None,
    }
}

/// The bytes of a value as BSON writes it, without type and key; `None` if over [`ID_BYTES_MAX`].
fn value_bytes(value: RawBsonRef<'_>) -> Option<Vec<u8>> {
    let bytes = document_with(value);
    // int32 length, type byte, the empty key's NUL; then the value; then the document's NUL.
    let value = bytes.get(6..bytes.len() - 1)?;
    (value.len() <= ID_BYTES_MAX).then(|| value.to_vec())
}

fn document_with(value: RawBsonRef<'_>) -> Vec<u8> {
    let mut document = RawDocumentBuf::new();
    document.append(cstr!(""), value);
    document.into_bytes()
}

/// The value of BSON type `kind` with these bytes, if they are one.
pub(super) fn from_value_bytes(kind: u8, value: &[u8]) -> Option<Bson> {
    // MongoDB itself can not compare with Undefined, which is long deprecated.
    if kind == ElementType::Undefined as u8 {
        return None;
    }
    let length = i32::try_from(value.len() + 7).ok()?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend([kind, 0]);
    bytes.extend(value);
    bytes.push(0);
    let document = RawDocumentBuf::from_bytes(bytes).ok()?;
    let mut elements = document.iter();
    let (_, value) = elements.next()?.ok()?;
    // More elements after the first would mean that the bytes smuggled in another field.
    elements.next().is_none().then_some(())?;
    Bson::try_from(value).ok()
}

/// The type and the bytes of any value, whatever its size: for [`from_value_bytes`].
pub(super) fn to_value_bytes(value: RawBsonRef<'_>) -> (u8, Vec<u8>) {
    let bytes = document_with(value);
    (value.element_type() as u8, bytes[6..bytes.len() - 1].to_vec())
}

/// An integer is the largest double that is not above it, and the rest: beyond 2^53 doubles have gaps.
fn int64_text(number: i64) -> String {
    let mut double = number as f64;
    if double as i128 > i128::from(number) {
        double = double.next_down();
    }
    number_text(double, (i128::from(number) - double as i128) as u16)
}

/// A double's bits, turned so that their order is that of the numbers; then the rest of an integer.
fn number_text(double: f64, rest: u16) -> String {
    let double = if double == 0.0 { 0.0 } else { double }; // -0.0 and 0.0 are one id
    let bits = if double.is_nan() {
        0 // MongoDB sorts NaN before every number and has one of it.
    } else {
        let bits = double.to_bits();
        bits ^ if double.is_sign_negative() { u64::MAX } else { 1 << 63 }
    };
    format!("-n{bits:016x}{rest:03x}")
}

fn number_of(text: &str) -> Option<Bson> {
    if text.len() != 19 || !text.is_ascii() {
        return None;
    }
    let bits = word(&text[..16])?;
    let rest = i64::from_str_radix(&text[16..], 16).ok()?;
    if bits == 0 {
        return Some(Bson::Double(f64::NAN));
    }
    let double = f64::from_bits(if bits >> 63 == 1 { bits ^ (1 << 63) } else { !bits });
    let in_range = double >= -(2f64.powi(63)) && double < 2f64.powi(63);
    if double.fract() == 0.0 && in_range {
        // MongoDB compares by value, so a double of this value is found by it too.
        return (double as i64).checked_add(rest).map(Bson::Int64);
    }
    (rest == 0).then_some(Bson::Double(double))
}

fn ordered(number: i64) -> u64 {
    (number as u64) ^ (1 << 63)
}

fn unordered(word: u64) -> i64 {
    (word ^ (1 << 63)) as i64
}

fn word(text: &str) -> Option<u64> {
    let hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Bytes as small hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The reverse of [`hex`].
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{RawBson, doc};

    use super::*;

    fn text(value: &Bson) -> String {
        let raw = RawBson::try_from(value.clone()).unwrap();
        id_of(raw.as_raw_bson_ref()).unwrap().as_str().to_owned()
    }

    #[test]
    fn every_type_reads_back() {
        let ids = [
            Bson::ObjectId(ObjectId::new()),
            Bson::String("ñ/?".into()),
            Bson::Int64(-5),
            Bson::Int64(i64::MAX),
            Bson::Int64(i64::MIN),
            Bson::Double(0.5),
            Bson::Double(1e300),
            Bson::Double(f64::NEG_INFINITY),
            Bson::Boolean(true),
            Bson::DateTime(DateTime::from_millis(-1)),
            Bson::Timestamp(Timestamp { time: 7, increment: 8 }),
            Bson::Document(doc! { "a": 1, "b": { "c": "x" } }),
            Bson::Null,
            Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] }),
            Bson::Decimal128("1.50".parse().unwrap()),
        ];
        for id in ids {
            let text = text(&id);
            assert_eq!(bson_of(&text), Some(id), "{text}");
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{text}");
        }
    }

    #[test]
    fn equal_numbers_of_different_types_are_one_id() {
        assert_eq!(text(&Bson::Int32(1)), text(&Bson::Double(1.0)));
        assert_eq!(text(&Bson::Int32(1)), text(&Bson::Int64(1)));
        assert_eq!(text(&Bson::Double(0.0)), text(&Bson::Double(-0.0)));
        assert_ne!(text(&Bson::Int64(i64::MAX)), text(&Bson::Int64(i64::MAX - 1)));
    }

    #[test]
    fn texts_sort_as_mongodb_sorts_ids() {
        let ascending = [
            Bson::Double(f64::NAN),
            Bson::Double(f64::NEG_INFINITY),
            Bson::Int64(i64::MIN),
            Bson::Int64(-10),
            Bson::Double(-9.5),
            Bson::Int32(0),
            Bson::Int32(9),
            Bson::Int32(10),
            Bson::Int64((1 << 53) + 1),
            Bson::Int64((1 << 53) + 2),
            Bson::Double(1e300),
            Bson::String("a".into()),
            Bson::String("ab".into()),
            Bson::String("b".into()),
            Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![9] }),
            Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![0, 0] }),
            Bson::ObjectId(ObjectId::from_bytes([0; 12])),
            Bson::ObjectId(ObjectId::from_bytes([255; 12])),
            Bson::Boolean(false),
            Bson::Boolean(true),
            Bson::DateTime(DateTime::from_millis(-1)),
            Bson::DateTime(DateTime::from_millis(1)),
        ];
        let texts: Vec<String> = ascending.iter().map(text).collect();
        assert!(texts.is_sorted(), "{texts:#?}");
    }

    #[test]
    fn an_oversize_id_has_no_text_and_garbage_has_no_id() {
        let long = RawBson::String("x".repeat(ID_BYTES_MAX + 1));
        assert!(id_of(long.as_raw_bson_ref()).is_none());
        let deep = format!("-d03{}", "10000000030000".repeat(2_000));
        for garbage in
            [deep.as_str(), "-d06", "", "-", "-n", "-nzz", "zb7", "-d0z", "-d03ff", "zz", "é", "-s0", "$ne", "../x"]
        {
            assert_eq!(bson_of(garbage), None, "{garbage}");
        }
    }
}
