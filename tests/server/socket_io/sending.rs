//! Commands over Socket.IO: stored in their order, acknowledged, or answered with a problem.

use mongodb::bson::{doc, oid::ObjectId};
use serde_json::json;

use super::{Client, insert, numbers};
use crate::harness::{FreshDatabase, TestServer};

#[tokio::test]
async fn what_a_socket_sends_is_acknowledged_stored_and_told_to_every_transport() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, json!({})).await;
    let subscribed = client.subscribe(json!({ "room": " dev " })).await;
    assert_eq!(subscribed["topic"], json!({ "room": "dev" }));
    assert!(subscribed["cursor"].is_string(), "{subscribed}");
    client.expect("ready").await;
    let mut follower = server.follow("room=dev").await;
    let id = ObjectId::new().to_hex();
    let message = json!({ "id": id, "room": "dev", "sender": "Ana", "content": "hola" });
    let (answer, before) = client.ask("message", message.clone()).await;
    assert_eq!((&answer["message"]["id"], &answer["message"]["content"]), (&json!(id), &json!("hola")), "{answer}");
    // Its own message comes before the acknowledgement or after it.
    let created = match before.into_iter().find(|(name, _)| name == "created") {
        Some((_, frame)) => frame,
        None => client.expect("created").await,
    };
    assert_eq!(created, follower.expect("created").await);
    assert_eq!(created["message"], answer["message"]);
    // A retry is one message still; other words are a conflict.
    assert_eq!(client.ask("message", message).await.0["message"]["id"], id);
    let other = json!({ "id": id, "room": "dev", "sender": "Ana", "content": "other words" });
    assert_eq!(client.ask("message", other).await.0["problem"]["status"], 409);
    server.messages().update_one(doc! {}, doc! { "$set": { "content": "edited" } }).await.unwrap();
    server.messages().delete_one(doc! {}).await.unwrap();
    assert_eq!(client.expect("updated").await, follower.expect("updated").await);
    assert_eq!(client.expect("deleted").await, follower.expect("deleted").await);
    assert_eq!(server.metric("corriente_inserts_total{source=\"socket.io\",outcome=\"created\"}").await, 1);

    // Direct messages, everything, and no longer the room.
    client.subscribe(json!({ "inbox": "Luis" })).await;
    assert_eq!(client.ask("unsubscribe", json!({ "room": "dev" })).await.0["topic"], json!({ "room": "dev" }));
    server.say("dev", "not followed any longer").await;
    server.post(json!({ "sender": "Ana", "recipient": "Luis", "content": "psst" })).await;
    assert_eq!(client.expect("created").await["message"]["recipient"], "Luis");
    assert_eq!(client.subscribe(json!({ "all": true })).await["topic"], json!({ "all": true }));
    server.stop().await;
}

#[tokio::test]
async fn messages_of_one_socket_keep_their_order_also_when_it_leaves_at_once() {
    let server = TestServer::start().await;
    let mut reader = server.follow("room=general").await;
    let mut client = Client::connect(&server, json!({})).await;
    for n in 0..50 {
        client.send(&format!("42{}", json!(["message", { "sender": "Ana", "content": n.to_string() }]))).await;
    }
    client.socket.close(None).await.unwrap();
    assert_eq!(reader.expect_contents(50).await, numbers(0..50));
    server.stop().await;
}

#[tokio::test]
async fn what_one_socket_sends_at_once_leaves_in_few_batches_and_in_order() {
    const MESSAGES: usize = 60;
    let server = TestServer::start().await;
    let mut reader = server.follow("room=general").await;
    let mut client = Client::connect(&server, json!({})).await;
    for n in 0..MESSAGES {
        let message = json!({ "sender": "Ana", "content": n.to_string() });
        client.send(&format!("42{n}{}", json!(["message", message]))).await;
    }
    assert_eq!(reader.expect_contents(MESSAGES).await, numbers(0..MESSAGES));
    // Each is acknowledged, in the order in which they were sent.
    for n in 0..MESSAGES {
        let answer = client.packet().await.unwrap();
        assert!(answer.starts_with(&format!("43{n}[")) && answer.contains("\"message\""), "{answer}");
    }
    let batches = server.metric("corriente_insert_batch_size_count").await;
    assert!(batches < MESSAGES as u64, "each message left alone");
    server.stop().await;
}

#[tokio::test]
async fn commands_that_are_none_are_answered_with_a_problem_and_the_socket_lives_on() {
    let server = TestServer::start_with(&["--topics-max", "2"]).await;
    let mut client = Client::connect(&server, json!({ "after": 7 })).await;
    let table = [
        ("subscribe", json!("general"), 400),
        ("subscribe", json!({}), 422),
        ("subscribe", json!({ "room": "" }), 422),
        ("subscribe", json!({ "room": "a", "inbox": "b" }), 422),
        ("subscribe", json!({ "room": { "$gt": "" } }), 422),
        ("subscribe", json!({ "room": "a", "after": 7 }), 422),
        ("unsubscribe", json!({ "all": "yes" }), 422),
        ("message", json!(null), 400),
        ("message", json!({ "sender": "Ana", "content": " " }), 422),
        ("message", json!({ "sender": "Ana", "content": "x", "room": { "$gt": "" } }), 422),
        ("message", json!({ "sender": "Ana", "content": "x", "__proto__": 1 }), 422),
    ];
    for (name, argument, status) in table {
        let (answer, _) = client.ask(name, argument.clone()).await;
        assert_eq!(answer["problem"]["status"], status, "{name} {argument}: {answer}");
    }
    for (room, problem) in [("a", json!(null)), ("b", json!(null)), ("c", json!(422))] {
        let answer = client.subscribe(json!({ "room": room })).await;
        assert_eq!(answer["problem"]["status"], problem, "{room}: {answer}");
    }
    // Without an acknowledgement to put it into, a problem is an event.
    client.send(&format!("42{}", json!(["message", { "sender": "", "content": "x", "id": "7" }]))).await;
    let error = client.expect("error").await;
    assert_eq!((&error["id"], &error["problem"]["status"]), (&json!("7"), &json!(422)), "{error}");
    server.say("a", "still here").await;
    assert_eq!(client.expect("created").await["message"]["content"], "still here");
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_is_for_reading_only_acknowledges_with_the_problem() {
    let fresh = FreshDatabase::with_collection().await;
    let server = TestServer::start_on(fresh.name(), &["--read-only"]).await;
    let mut client = Client::connect(&server, json!({})).await;
    client.subscribe(json!({ "room": "general" })).await;
    let (answer, _) = client.ask("message", json!({ "sender": "Ana", "content": "hola" })).await;
    assert_eq!(answer["problem"]["status"], 403, "{answer}");
    insert(&server, "general", &numbers(0..1)).await;
    assert_eq!(client.expect_contents(1).await, ["0"]);
    server.stop().await;
}
