//! The data contract, against whatever other programs may write: what keeps it is shown, what breaks it is skipped,
//! live and in history alike, and costs no neighbour anything.

use std::collections::BTreeMap;

use mongodb::bson::{
    Binary, Bson, DateTime, Document, RawArrayBuf, RawDocumentBuf, Timestamp, doc, oid::ObjectId, raw::cstr,
    spec::BinarySubtype,
};
use serde_json::Value;

use crate::harness::{FreshDatabase, TestServer, contents};

/// A document, its content if that is a text, and the rule that it breaks, if any.
struct Case {
    document: RawDocumentBuf,
    content: String,
    breaks: Option<&'static str>,
}

impl Case {
    fn new(document: &Document, breaks: Option<&'static str>) -> Self {
        let content = document.get_str("content").unwrap_or_default().to_owned();
        Self { document: raw(document), content, breaks }
    }

    fn no_utf8(document: &Document, breaks: Option<&'static str>) -> Self {
        Self { document: no_utf8(document, 0), ..Self::new(document, breaks) }
    }
}

#[tokio::test]
async fn broken_documents_are_skipped_and_counted_and_their_neighbours_are_delivered() {
    skip_what_is_broken(&[]).await;
}

#[tokio::test]
async fn with_pre_images_too_broken_documents_are_skipped_and_counted() {
    skip_what_is_broken(&["--pre-images"]).await;
}

async fn skip_what_is_broken(flags: &[&str]) {
    let database = FreshDatabase::with_collection().await;
    let server = TestServer::start_on(database.name(), flags).await;
    let mut follower = server.follow("all=true").await;
    let cases = cases();
    insert_raw(&database, cases.iter().map(|case| &case.document)).await;

    // Live: the valid ones, in order, as they were written.
    let valid: Vec<&Case> = cases.iter().filter(|case| case.breaks.is_none()).collect();
    let mut delivered: BTreeMap<String, Value> = BTreeMap::new();
    for case in &valid {
        let frame = follower.expect("created").await;
        let message = &frame["message"];
        assert_eq!(message["content"], case.content, "{frame:.300}");
        delivered.insert(message["id"].as_str().unwrap().to_owned(), message.clone());
    }
    assert_eq!(delivered.len(), valid.len(), "ids are injective");

    // History: the same ones, each also by its id.
    let mut stored = BTreeMap::new();
    let mut query = "limit=7".to_owned();
    loop {
        let page = server.fetch(&format!("/api/messages?{query}")).await.json();
        for message in page["messages"].as_array().unwrap_or_else(|| panic!("{page}")) {
            let id = message["id"].as_str().unwrap().to_owned();
            assert_eq!(stored.insert(id.clone(), message.clone()), None, "{id} came twice");
        }
        match page["before"].as_str() {
            Some(before) => query = format!("limit=7&before={before}"),
            None => break,
        }
    }
    for (id, message) in &delivered {
        assert_eq!(stored.get(id), Some(message), "delivered, and not in history as it was");
        let read = server.fetch(&format!("/api/messages/{id}")).await;
        assert_eq!((read.status.as_u16(), &read.json()), (200, message), "{id}");
    }
    assert_eq!(stored.len(), delivered.len(), "in history and never delivered");

    // The rest is counted, each by the rule that it breaks.
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for reason in cases.iter().filter_map(|case| case.breaks) {
        *expected.entry(reason).or_default() += 1;
    }
    for (reason, count) in &expected {
        let series = format!("corriente_invalid_documents_total{{reason=\"{reason}\"}}");
        assert_eq!(server.metric(&series).await, *count, "{reason}");
    }
    assert_eq!(expected.len(), 7, "every reason was met: {expected:?}");

    // An update of a document of 15 MB, and one that makes a document of 15 MB.
    let messages = server.messages();
    let big = "x".repeat(15 << 20);
    messages.update_one(doc! { "big": { "$exists": true } }, doc! { "$set": { "content": "edited" } }).await.unwrap();
    assert_eq!(follower.expect("updated").await["message"]["content"], "edited");
    let small = ObjectId::new();
    messages.insert_one(doc! { "_id": small, "content": "small", "sender": "Ana" }).await.unwrap();
    messages.update_one(doc! { "_id": small }, doc! { "$set": { "content": "grown", "extra": &big } }).await.unwrap();
    follower.expect_next_content("small").await;
    assert_eq!(follower.expect("updated").await["message"]["content"], "grown");
    messages
        .update_one(doc! { "_id": small }, doc! { "$set": { "content": &big[..14 << 20], "extra": 1 } })
        .await
        .unwrap();
    let gone = follower.expect("deleted").await;
    assert_eq!(gone["id"], small.to_hex());
    server.fetch(&format!("/api/messages/{}", small.to_hex())).await.expect_problem(404, "not-found");

    // One and the same stream carried all of that.
    server.say("general", "the stream lives on").await;
    follower.expect_next_content("the stream lives on").await;
    let metrics = server.fetch("/metrics").await.text;
    let mut reopens = metrics.lines().filter(|line| line.starts_with("corriente_stream_reopens_total{"));
    assert!(reopens.all(|line| line.ends_with(" 0")), "{metrics}");
    server.stop().await;
}

/// Inserts documents as they are: the driver's own `insert_many` would look into them, and find that some are no UTF-8.
pub async fn insert_raw(database: &mongodb::Database, documents: impl Iterator<Item = &RawDocumentBuf>) {
    // A command, too, is at most 16 MB, and one of the documents is nearly that.
    const BATCH_BYTES_MAX: usize = 1 << 20;
    let mut documents = documents.peekable();
    while let Some(first) = documents.next() {
        let (mut batch, mut bytes) = (RawArrayBuf::new(), first.as_bytes().len());
        batch.push(first.clone());
        while let Some(document) = documents.next_if(|next| bytes + next.as_bytes().len() < BATCH_BYTES_MAX) {
            bytes += document.as_bytes().len();
            batch.push(document.clone());
        }
        let mut command = RawDocumentBuf::new();
        command.append(cstr!("insert"), "messages");
        command.append(cstr!("documents"), batch);
        let reply = database.run_raw_command(command).await.unwrap();
        assert!(!reply.contains_key("writeErrors"), "{reply}");
    }
}

/// Every rule broken in every way that we could think of, each between good neighbours.
fn cases() -> Vec<Case> {
    let far = |millis| Bson::DateTime(DateTime::from_millis(millis));
    let (first, last) = (-62_135_596_800_000, 253_402_300_799_999);
    let not_nfc = "Jose\u{301}";
    let binary = |bytes, subtype| Bson::Binary(Binary { subtype, bytes });
    let id = |value: Bson| with("_id", value);
    let deep = (0..100).fold(Bson::Int32(1), |inner, _| Bson::Document(doc! { "a": inner }));
    let reserved = "x".repeat(65);
    let table: Vec<(Option<&'static str>, Vec<Document>)> = vec![
        (
            Some("content"),
            fields("content", ["".into(), Bson::Null, 5.into(), true.into(), Bson::Array(vec!["x".into()])]),
        ),
        (
            Some("content"),
            fields("content", ["x".repeat(4_001).into(), "ñ".repeat(4_001).into(), "x".repeat(15 << 20).into()]),
        ),
        (Some("content"), vec![without("content"), doc! {}]),
        (
            Some("sender"),
            fields("sender", ["".into(), Bson::Null, 5.into(), " Ana".into(), "Ana ".into(), not_nfc.into()]),
        ),
        (
            Some("sender"),
            fields("sender", [reserved.clone().into(), "a\u{0}b".into(), "a\u{202e}b".into(), "a\nb".into()]),
        ),
        (Some("sender"), vec![without("sender")]),
        (Some("recipient"), fields("recipient", [1.5.into(), " ".into(), not_nfc.into(), reserved.clone().into()])),
        (Some("recipient"), fields("recipient", ["\u{0}".into(), doc! { "$gt": "" }.into(), false.into()])),
        (Some("room"), fields("room", ["..".into(), "a/../b".into(), "system.x".into(), " x".into(), 7.into()])),
        (Some("room"), fields("room", [reserved.into(), not_nfc.into(), doc! { "$gt": "" }.into(), "\u{0}".into()])),
        (
            Some("date"),
            fields("date", ["2026-01-01".into(), f64::NAN.into(), 1_700_000_000_000_i64.into(), false.into()]),
        ),
        (Some("date"), fields("date", [far(first - 1), far(last + 1), far(i64::MAX), far(i64::MIN)])),
        (Some("date"), fields("date", [Bson::Timestamp(Timestamp { time: 1_700_000_000, increment: 1 })])),
        (Some("date"), vec![doc! { "_id": 77, "content": "no time at all", "sender": "Ana" }]),
        (Some("date"), vec![doc! { "_id": "no time", "content": "no time at all", "sender": "Ana", "date": null }]),
        (Some("id"), vec![id("x".repeat(257).into()), id("y".repeat(2_048).into()), id("ñ".repeat(129).into())]),
        (Some("id"), vec![id(binary(vec![1; 257], BinarySubtype::Generic)), id(doc! { "a": "x".repeat(300) }.into())]),
        // What keeps the contract, however strange.
        (None, vec![id(7.into()), id((1_i64 << 53).into()), id(((1_i64 << 53) + 1).into()), id(i64::MAX.into())]),
        (
            None,
            vec![id(0.5.into()), id((-0.0).into()), id(1e300.into()), id(f64::NAN.into()), id(f64::INFINITY.into())],
        ),
        (None, vec![id("".into()), id("ñ/?#%00".into()), id("a\u{0}b".into()), id("x".repeat(256).into())]),
        (None, vec![id("65a1b2c3d4e5f60718293a4b".into()), id("-s61".into()), id(Bson::Null), id(Bson::MinKey)]),
        (
            None,
            vec![id(doc! { "b": 1, "a": { "c": "x" } }.into()), id(doc! {}.into()), id(doc! { "a": [1, 2] }.into())],
        ),
        (None, vec![id(true.into()), id(false.into()), id(far(-1)), id(far(1)), id(Bson::MaxKey)]),
        (None, vec![id(binary(vec![1, 2], BinarySubtype::Generic)), id(binary(vec![], BinarySubtype::Generic))]),
        (
            None,
            vec![id(binary(vec![9; 16], BinarySubtype::Uuid)), id(binary(vec![1, 2], BinarySubtype::UserDefined(200)))],
        ),
        (
            None,
            vec![
                id(Bson::Timestamp(Timestamp { time: 7, increment: 8 })),
                id(Bson::Decimal128("1.50".parse().unwrap())),
                id(Bson::Symbol("s".into())),
            ],
        ),
        (None, vec![without("date"), with("date", Bson::Null), with("date", far(first)), with("date", far(last))]),
        (None, fields("content", ["a\u{0}b".into(), " ".into(), "x".repeat(4_000).into(), "😀".repeat(4_000).into()])),
        (None, fields("recipient", ["".into(), Bson::Null, "Luis".into(), "👩‍👩‍👧".into()])),
        (
            None,
            fields(
                "room",
                ["".into(), Bson::Null, "a/b".into(), "...".into(), "система".into(), "n".repeat(64).into()],
            ),
        ),
        (None, vec![with("extra", deep), with("__v", 0.into()), with("language", 5.into())]),
        (None, vec![with("big", "x".repeat(15 << 20).into())]),
    ];
    let mut cases = Vec::new();
    let neighbour = |cases: &mut Vec<Case>| {
        let content = format!("neighbour {}", cases.len());
        cases.push(Case::new(&with("content", content.into()), None));
    };
    for (breaks, documents) in table {
        for document in documents {
            cases.push(Case::new(&document, breaks));
            if breaks.is_some() {
                neighbour(&mut cases);
            }
        }
    }
    // Bytes that are no UTF-8, written where a marker stands.
    for (field, breaks) in [
        ("content", Some("encoding")),
        ("sender", Some("encoding")),
        ("recipient", Some("encoding")),
        ("room", Some("encoding")),
        ("_id", Some("id")),
        ("extra", None),
        ("@@@", None),
    ] {
        cases.push(Case::no_utf8(&with(field, "@@@".into()), breaks));
        neighbour(&mut cases);
    }
    // A foreign field whose name is no UTF-8 stands before those of the contract.
    let mut strange = doc! { "_id": ObjectId::new(), "@@@": 1 };
    strange.extend(good());
    cases.push(Case::no_utf8(&strange, None));
    neighbour(&mut cases);
    cases
}

/// A good document with a date of its own.
pub fn good() -> Document {
    let id = ObjectId::new();
    doc! { "_id": id, "content": format!("good {id}"), "sender": "Ana", "date": DateTime::now() }
}

pub fn with(field: &str, value: Bson) -> Document {
    let mut document = good();
    document.insert(field, value);
    document
}

fn fields<const N: usize>(field: &str, values: [Bson; N]) -> Vec<Document> {
    values.into_iter().map(|value| with(field, value)).collect()
}

pub fn without(field: &str) -> Document {
    let mut document = good();
    document.remove(field);
    document
}

pub fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

/// With three bytes that are no UTF-8, different for each `n`, where the marker `@@@` stands.
pub fn no_utf8(document: &Document, n: i32) -> RawDocumentBuf {
    let mut bytes = raw(document).into_bytes();
    let at = bytes.windows(3).position(|window| window == b"@@@").expect("the marker");
    bytes[at..at + 3].copy_from_slice(&[0xff, 0xc0 | (n >> 6 & 0x3f) as u8, 0xc0 | (n & 0x3f) as u8]);
    RawDocumentBuf::from_bytes(bytes).unwrap()
}

#[tokio::test]
async fn an_id_that_looks_like_an_operator_finds_nothing_but_itself() {
    let database = FreshDatabase::with_collection().await;
    let server = TestServer::start_on(database.name(), &[]).await;
    let mut follower = server.follow("all=true").await;
    let messages = server.messages();
    messages.insert_one(with("_id", "a".into())).await.unwrap();
    messages.insert_one(with("_id", doc! { "a": 1 }.into())).await.unwrap();
    follower.expect("created").await;
    let nested = follower.expect("created").await["message"]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.fetch(&format!("/api/messages/{nested}")).await.status, 200);
    for operator in [doc! { "$gt": "" }, doc! { "$ne": 1 }, doc! { "$exists": true }, doc! { "$regex": "a" }] {
        // The text form of a document: its tag, its type, its bytes.
        let hex: String = raw(&operator).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("/api/messages/-d03{hex}");
        assert_eq!(nested, format!("-d03{}", hex_of(&doc! { "a": 1 })), "the form that is built here is the form");
        server.fetch(&path).await.expect_problem(404, "not-found");
    }
    server.stop().await;
}

fn hex_of(document: &Document) -> String {
    raw(document).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_room_whose_name_can_not_be_read_hides_no_other() {
    let database = FreshDatabase::with_collection().await;
    let in_room = |room: &str| with("room", room.into());
    let mut documents: Vec<_> = ["a", "b", "c", "x", "z", "ñ"].map(|room| raw(&in_room(room))).into();
    for before in ["b", "x", "ñ"] {
        documents.extend((0..70).map(|n| no_utf8(&in_room(&format!("{before}@@@")), n)));
    }
    // Names that are texts and no names of rooms.
    documents.extend((0..70).map(|n| raw(&in_room(&format!(" {n}")))));
    insert_raw(&database, documents.iter()).await;
    let server = TestServer::start_on(database.name(), &[]).await;
    for limit in [1, 2, 100] {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let page = server.fetch(&format!("/api/rooms?limit={limit}{after}")).await.json();
            let rooms = page["rooms"].as_array().unwrap_or_else(|| panic!("{page}"));
            names.extend(rooms.iter().map(|room| room["room"].as_str().unwrap().to_owned()));
            match page["after"].as_str() {
                Some(name) => after = format!("&after={name}"),
                None => break,
            }
        }
        assert_eq!(names, ["a", "b", "c", "x", "z", "ñ"], "in pages of {limit}");
    }
    server.stop().await;
}

/// The most bytes of one answer of MongoDB to a question for documents, as its profiler has counted them.
async fn largest_answer(database: &mongodb::Database) -> i64 {
    let questions = doc! { "op": "query", "ns": format!("{}.messages", database.name()) };
    let profile = database.collection::<Document>("system.profile");
    let found = profile.find_one(questions).sort(doc! { "responseLength": -1 }).await.unwrap().expect("a question");
    found.get("responseLength").and_then(|length| length.as_i64().or(length.as_i32().map(i64::from))).expect("a length")
}

#[tokio::test]
async fn of_documents_whose_ids_are_large_little_is_read() {
    const COUNT: usize = 40;
    const ID_BYTES: usize = 256 * 1024;
    let database = FreshDatabase::with_collection().await;
    let huge = |n| with("_id", format!("{n:02}{}", "x".repeat(ID_BYTES)).into());
    let documents: Vec<_> = (0..COUNT).map(|n| raw(&huge(n))).chain([raw(&with("content", "read".into()))]).collect();
    insert_raw(&database, documents.iter()).await;
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    // It looks at what stands there when it starts.
    let server = TestServer::start_on(database.name(), &[]).await;
    for path in ["/api/messages", "/api/messages?room=general&limit=200", "/api/messages?q=read"] {
        assert_eq!(contents(&server.fetch(path).await), ["read"], "{path}");
    }
    database.run_command(doc! { "profile": 0 }).await.unwrap();
    let largest = largest_answer(&database).await;
    assert!(largest < ID_BYTES as i64, "MongoDB was asked for {largest} bytes at once");
    server.stop().await;
}
