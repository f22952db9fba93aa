//! One story over every transport, told by clients of other people's over a network that breaks: a room and an inbox while
//! somebody writes, edits and deletes. In the end all of them show the same messages as the history, and none was reset.

use std::collections::BTreeMap;

use mongodb::bson::{doc, oid::ObjectId};
use serde_json::{Value, json};

use crate::{harness::TestServer, programs::Language, relay::Relay};

/// How often each client's connection is cut, and after how many bytes.
const CUTS: usize = 2;
const CUT_AFTER_BYTES: usize = 15_000;

/// What somebody does while the clients follow. Its last message is `end`.
async fn live(server: &TestServer) {
    let messages = server.messages();
    let mut ids = Vec::new();
    for round in 0..30 {
        let burst = (0..10).map(|n| {
            let id = ObjectId::new();
            ids.push(id);
            let content = format!("{round}.{n}");
            match n {
                0 => doc! { "_id": id, "content": content, "sender": "Ana", "recipient": "Luis" },
                1 => doc! { "_id": id, "content": content, "sender": "Ana", "room": "elsewhere" },
                _ => doc! { "_id": id, "content": content, "sender": "Ana", "room": "general" },
            }
        });
        messages.insert_many(burst.collect::<Vec<_>>()).await.unwrap();
        let of = |n: usize| doc! { "_id": ids[ids.len() - n] };
        messages.update_one(of(3), doc! { "$set": { "content": format!("{round}, edited") } }).await.unwrap();
        messages.update_one(of(4), doc! { "$set": { "room": "elsewhere" } }).await.unwrap();
        messages.update_one(of(9), doc! { "$set": { "room": "general" } }).await.unwrap();
        messages.delete_one(of(5)).await.unwrap();
    }
    let (status, _) = server.post(json!({ "sender": "Ana", "recipient": "Luis", "content": "end" })).await;
    assert_eq!(status, 201);
}

/// What there is to be seen, by id.
async fn history(server: &TestServer) -> BTreeMap<String, Value> {
    let mut shown = BTreeMap::new();
    for scope in ["room=general", "inbox=Luis"] {
        let mut before = String::new();
        loop {
            let (_, page) = server.get(&format!("/api/messages?{scope}&limit=200{before}")).await;
            for message in page["messages"].as_array().expect("messages") {
                shown.insert(message["id"].as_str().expect("an id").to_owned(), message.clone());
            }
            match page["before"].as_str() {
                Some(place) => before = format!("&before={place}"),
                None => break,
            }
        }
    }
    shown
}

#[tokio::test]
async fn the_same_story_over_every_transport_ends_as_the_history_does() {
    let Some(node) = Language::node().await else {
        return;
    };
    // Its log is short, so that some come back to the oplog.
    let server = TestServer::start_with(&["--log-entries-max", "60"]).await;
    let (_, page) = server.get("/api/messages?room=general").await;
    let cursor = page["cursor"].as_str().expect("a cursor");
    let mut relays = Vec::new();
    for transport in ["websocket", "sse", "socket.io", "polling"] {
        // With polling, a connection carries one answer only.
        let after_bytes = if transport == "polling" { 2_000 } else { CUT_AFTER_BYTES };
        relays.push((transport, Relay::to(&server.url, CUTS, after_bytes).await));
    }
    let clients = relays.iter().map(async |(transport, relay)| {
        let printed = node.run("story.cjs", &[transport, &relay.url, cursor]).await;
        (*transport, serde_json::from_str::<Value>(&printed).expect("a story"))
    });
    let (stories, ()) = tokio::join!(futures::future::join_all(clients), live(&server));

    let expected = history(&server).await;
    assert_eq!(expected.len(), 30 * 8 + 1, "the history is as somebody left it");
    for (transport, story) in &stories {
        let shown: BTreeMap<String, Value> = serde_json::from_value(story["messages"].clone()).expect("messages by id");
        assert_eq!(shown, expected, "over {transport}");
        assert_eq!(story["kinds"], stories[0].1["kinds"], "over {transport}: as many of each as over the WebSocket");
        assert_eq!(story["kinds"]["reset"], Value::Null, "over {transport}");
    }
    for (transport, relay) in &relays {
        assert_eq!(relay.cut(), CUTS, "{transport}");
    }
    server.stop().await;
}
