//! The collection: what the server puts on one that it makes, and what it leaves alone on one of others.

use std::collections::BTreeMap;

use mongodb::bson::{Bson, DateTime, Document, doc};

use crate::{
    contract::{good, with, without},
    harness::{FreshDatabase, TestServer},
};

#[tokio::test]
async fn the_collection_that_we_make_refuses_what_breaks_the_contract() {
    let server = TestServer::start().await;
    let messages = server.messages();
    let far = |millis| Bson::DateTime(DateTime::from_millis(millis));
    let broken = [
        without("content"),
        with("content", "".into()),
        with("content", 5.into()),
        with("content", "ñ".repeat(4_001).into()),
        without("sender"),
        with("sender", "".into()),
        with("sender", Bson::Null),
        with("sender", "ñ".repeat(65).into()),
        with("recipient", 5.into()),
        with("recipient", "ñ".repeat(65).into()),
        with("room", doc! { "$gt": "" }.into()),
        with("room", "ñ".repeat(65).into()),
        with("date", "2026-01-01".into()),
        with("date", f64::NAN.into()),
        with("date", 1_700_000_000_000_i64.into()),
        with("date", far(-62_135_596_800_001)),
        with("date", far(253_402_300_800_000)),
        doc! { "_id": 7, "content": "no time", "sender": "Ana" },
        doc! { "_id": "x", "content": "no time", "sender": "Ana", "date": null },
    ];
    for document in broken {
        let error = messages.insert_one(&document).await.expect_err("refused");
        assert_eq!(code_of(&error), Some(121), "{document:.200} gave {error}");
    }
    let good = [
        good(),
        without("date"),
        with("date", Bson::Null),
        with("date", far(-62_135_596_800_000)),
        with("date", far(253_402_300_799_999)),
        with("content", "ñ".repeat(4_000).into()),
        with("content", "😀".repeat(4_000).into()),
        with("recipient", "".into()),
        with("recipient", Bson::Null),
        with("recipient", "ñ".repeat(64).into()),
        with("room", "".into()),
        with("room", Bson::Null),
        with("_id", 7.into()),
        with("_id", "x".into()),
        with("__v", 0.into()),
    ];
    for document in &good {
        messages.insert_one(document).await.unwrap_or_else(|error| panic!("{document:.200}: {error}"));
    }
    let edit = messages.update_one(doc! { "_id": 7 }, doc! { "$set": { "content": 5 } }).await;
    assert_eq!(code_of(&edit.expect_err("refused")), Some(121));
    assert_eq!(server.fetch("/api/messages").await.json()["messages"].as_array().map(Vec::len), Some(good.len()));
    server.stop().await;
}

fn code_of(error: &mongodb::error::Error) -> Option<i32> {
    match &*error.kind {
        mongodb::error::ErrorKind::Write(mongodb::error::WriteFailure::WriteError(error)) => Some(error.code),
        _ => None,
    }
}

/// Of each index: its name, its key, and what is partial about it.
type Indexes = BTreeMap<String, (Document, Option<Document>)>;

/// The indexes that the server needs.
fn expected_indexes() -> Indexes {
    let to_somebody = Some(doc! { "recipient": { "$gt": "" } });
    let to_nobody = Some(doc! { "recipient": { "$in": [null, ""] } });
    let indexes = [
        ("_id_", doc! { "_id": 1 }, None),
        ("corriente_all", doc! { "date": -1, "_id": -1 }, None),
        ("corriente_room", doc! { "room": 1, "date": -1, "_id": -1 }, to_nobody),
        ("corriente_conversation", doc! { "sender": 1, "recipient": 1, "date": -1, "_id": -1 }, to_somebody.clone()),
        ("corriente_sent", doc! { "sender": 1, "date": -1, "_id": -1 }, to_somebody.clone()),
        ("corriente_received", doc! { "recipient": 1, "date": -1, "_id": -1 }, to_somebody),
    ];
    indexes.into_iter().map(|(name, key, partial)| (name.to_owned(), (key, partial))).collect()
}

async fn indexes(database: &mongodb::Database) -> Indexes {
    let reply = database.run_command(doc! { "listIndexes": "messages" }).await.unwrap();
    let batch = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
    let read = |index: &Bson| {
        let index = index.as_document().unwrap();
        let partial = index.get_document("partialFilterExpression").ok().cloned();
        (index.get_str("name").unwrap().to_owned(), (index.get_document("key").unwrap().clone(), partial))
    };
    batch.iter().map(read).collect()
}

async fn options(database: &mongodb::Database) -> Document {
    let reply = database.run_command(doc! { "listCollections": 1, "filter": { "name": "messages" } }).await.unwrap();
    let batch = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
    batch[0].as_document().unwrap().get_document("options").unwrap().clone()
}

#[tokio::test]
async fn the_collection_that_we_make_has_validator_pre_images_and_indexes() {
    let server = TestServer::start().await;
    let made = options(&server.database).await;
    assert!(made.get_document("validator").is_ok_and(|validator| validator.contains_key("$jsonSchema")), "{made}");
    assert_eq!(made.get_str("validationAction").unwrap(), "error");
    assert_eq!(made.get_str("validationLevel").unwrap(), "strict");
    assert_eq!(made.get_document("changeStreamPreAndPostImages").unwrap(), &doc! { "enabled": true });
    assert_eq!(indexes(&server.database).await, expected_indexes());
    // A second server finds all of it, and changes nothing.
    let second = TestServer::start_on(server.database.name(), &[]).await;
    assert_eq!(options(&server.database).await, made);
    assert_eq!(indexes(&server.database).await, expected_indexes());
    second.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn two_servers_that_start_at_once_make_one_collection() {
    let database = FreshDatabase::new().await;
    let (one, other) =
        tokio::join!(TestServer::start_on(database.name(), &[]), TestServer::start_on(database.name(), &[]));
    assert_eq!(indexes(&database).await, expected_indexes());
    let mut follower = other.follow("room=general").await;
    one.say("general", "hola").await;
    follower.expect_next_content("hola").await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn on_a_collection_of_others_nothing_but_indexes_changes_unless_asked() {
    let theirs = doc! { "$jsonSchema": { "required": ["theirs"] } };
    for (flags, validator_is_ours, images) in [
        (&[][..], false, false),
        (&["--validator"], true, false),
        (&["--pre-images"], false, true),
        (&["--validator", "--pre-images"], true, true),
    ] {
        let database = FreshDatabase::new().await;
        let create = doc! {
            "create": "messages",
            "validator": theirs.clone(),
            "validationLevel": "moderate",
            "validationAction": "warn",
        };
        database.run_command(create).await.unwrap();
        let index = doc! { "key": { "theirs": 1 }, "name": "theirs" };
        database.run_command(doc! { "createIndexes": "messages", "indexes": [index] }).await.unwrap();
        // What stands in it already need not keep the contract.
        database.collection("messages").insert_one(doc! { "content": 5 }).await.unwrap();
        let before = options(&database).await;

        let server = TestServer::start_on(database.name(), flags).await;
        let after = options(&database).await;
        if validator_is_ours {
            assert_ne!(after.get_document("validator").unwrap(), &theirs, "{flags:?}");
            assert_eq!(after.get_str("validationAction").unwrap(), "error", "{flags:?}");
            let broken = server.messages().insert_one(doc! { "content": 5 }).await;
            assert_eq!(code_of(&broken.expect_err("refused")), Some(121), "{flags:?}");
        } else {
            for name in ["validator", "validationLevel", "validationAction"] {
                assert_eq!(after.get(name), before.get(name), "{flags:?}");
            }
        }
        let enabled = after.get_document("changeStreamPreAndPostImages").and_then(|images| images.get_bool("enabled"));
        assert_eq!(enabled.unwrap_or(false), images, "{flags:?}");
        let mut expected = expected_indexes();
        expected.insert("theirs".into(), (doc! { "theirs": 1 }, None));
        assert_eq!(indexes(&database).await, expected, "{flags:?}");
        server.say("general", "hola").await;
        server.stop().await;
    }
}
