//! What a socket is told: exactly what it missed, however slowly it reads.

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Client, insert, numbers};
use crate::harness::{PATIENCE_SECS, TestServer};

/// How long a client that is stuck may be kept, in seconds: a ping comes within a second here, and may take 20.
const STUCK_SECS_MAX: u64 = 60;

#[tokio::test]
async fn a_place_that_is_none_is_one_reset_however_many_topics_follow() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, json!({ "after": "garbage" })).await;
    client.subscribe(json!({ "room": "a" })).await;
    client.expect("reset").await;
    client.expect("ready").await;
    for room in ["b", "c"] {
        let (_, before) = client.ask("subscribe", json!({ "room": room })).await;
        assert!(before.is_empty(), "{before:?}");
        server.say(room, "live").await;
        assert_eq!(client.expect("created").await["message"]["room"], room);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_socket_that_comes_back_gets_exactly_what_it_missed_in_all_of_its_topics() {
    let server = TestServer::start_with(&["--log-entries-max", "100"]).await;
    let mut follower = server.follow("room=a&room=b").await;
    server.say("a", "seen").await;
    let left_at = follower.expect("created").await["cursor"].as_str().unwrap().to_owned();
    for n in 0..150 {
        insert(&server, if n % 2 == 0 { "a" } else { "b" }, &[n.to_string()]).await;
    }
    let mut back = Client::connect(&server, json!({ "after": left_at })).await;
    // As a page does it: both at once, when it is connected.
    back.send(r#"42["subscribe",{"room":"a"}]"#).await;
    back.send(r#"42["subscribe",{"room":"b"}]"#).await;
    assert_eq!(back.expect_contents(150).await, numbers(0..150));
    back.expect("ready").await;

    // A topic that comes later, with a place of its own, brings the others along: repeated, and in one order.
    let mut late = Client::connect(&server, json!({ "after": left_at })).await;
    late.subscribe(json!({ "room": "a" })).await;
    let evens: Vec<String> = (0..150).step_by(2).map(|n| n.to_string()).collect();
    assert_eq!(late.expect_contents(75).await, evens);
    late.subscribe(json!({ "room": "b" })).await;
    assert_eq!(late.expect_contents(150).await, numbers(0..150));
    // One that needs no past begins now.
    let mut live = Client::connect(&server, json!({})).await;
    live.subscribe(json!({ "room": "a", "after": "" })).await;
    live.expect("ready").await;
    // And a place that is none is a reset.
    live.subscribe(json!({ "room": "b", "after": "garbage" })).await;
    assert!(live.expect("reset").await["reason"].is_string());
    live.expect("ready").await;
    server.stop().await;
}

#[tokio::test]
async fn a_socket_that_stops_reading_gets_everything_when_it_reads_again() {
    let server = TestServer::start().await;
    let mut slow = Client::connect(&server, json!({})).await;
    slow.subscribe(json!({ "room": "general" })).await;
    slow.expect("ready").await;
    let mut quick = server.follow("room=general").await;
    let contents: Vec<String> = (0..2_000).map(|n| format!("{n} {}", "x".repeat(3_900))).collect();
    for part in contents.chunks(200) {
        insert(&server, "general", part).await;
        assert_eq!(quick.expect_contents(200).await, part);
    }
    assert_eq!(slow.expect_contents(2_000).await, contents);
    server.stop().await;
}

#[tokio::test]
async fn a_socket_that_never_reads_is_closed_and_comes_back_to_its_place() {
    let server = TestServer::start_with(&["--silence-secs", "2"]).await;
    let mut stuck = Client::connect(&server, json!({})).await;
    stuck.subscribe(json!({ "room": "general" })).await;
    let mut last = stuck.expect("ready").await["cursor"].as_str().unwrap().to_owned();
    let mut quick = server.follow("room=general").await;
    let contents: Vec<String> = (0..2_000).map(|n| format!("{n} {}", "x".repeat(3_900))).collect();
    for part in contents.chunks(200) {
        insert(&server, "general", part).await;
        assert_eq!(quick.expect_contents(200).await, part);
    }
    let is_let_go = async {
        while server.metric("corriente_connections{transport=\"socket.io\"}").await > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(STUCK_SECS_MAX), is_let_go).await.expect("the stuck socket is let go");
    // What had been written is still there to be read, to the byte at which the connection ended.
    let mut count = 0;
    let reading = async {
        while let Some(Ok(packet)) = stuck.socket.next().await {
            let Some(event) = packet.to_text().ok().and_then(|packet| packet.strip_prefix("42")) else { continue };
            let [name, frame]: [Value; 2] = serde_json::from_str(event).expect("a name and one argument");
            count += usize::from(name == "created");
            last = frame["cursor"].as_str().expect("a cursor").to_owned();
        }
    };
    timeout(Duration::from_secs(PATIENCE_SECS), reading).await.expect("the connection has ended");
    assert!(count < 2_000, "all of it went into buffers");
    let mut back = Client::connect(&server, json!({ "after": last })).await;
    back.subscribe(json!({ "room": "general" })).await;
    assert_eq!(back.expect_contents(2_000 - count).await, contents[count..]);
    server.stop().await;
}
