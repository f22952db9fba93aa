//! Replays: dear to make, so few at once; cheap to keep, so that nobody waits for a slow reader of one.

use mongodb::bson::doc;

use crate::harness::{Follower, TestServer, eventually};

const FILLED: &str = "corriente_replays_total{outcome=\"filled\"}";
const COUNT: usize = 2_000;

/// Follows `general` while far more is written than a socket holds. Returns the cursors of all of it.
async fn write_much(server: &TestServer) -> Vec<String> {
    let mut follower = server.follow("room=general").await;
    let mut cursors = Vec::new();
    for batch in 0..COUNT / 100 {
        let content = |n: usize| format!("{} {}", batch * 100 + n, "語".repeat(3_900));
        let documents = (0..100).map(|n| doc! { "content": content(n), "sender": "Ana", "room": "general" });
        server.messages().insert_many(documents).await.unwrap();
        for _ in 0..100 {
            cursors.push(follower.expect("created").await["cursor"].as_str().unwrap().to_owned());
        }
    }
    cursors
}

async fn expect_rest(follower: &mut Follower, first: usize) {
    for (n, content) in (first..COUNT).zip(follower.expect_contents(COUNT - first).await) {
        assert!(content.starts_with(&format!("{n} ")), "{n}: {content:.10}");
    }
}

#[tokio::test]
async fn a_slow_reader_of_a_replay_keeps_nobody_from_another_one() {
    let server = TestServer::start_with(&["--log-entries-max", "150", "--replays-max", "1"]).await;
    let cursors = write_much(&server).await;
    // The later place first: nobody two minutes before it can share what is made for it.
    let mut slow = server.join(&format!("room=general&after={}", cursors[99])).await;
    eventually("the replay", async || (server.metric(FILLED).await == 1).then_some(())).await;
    let seconds = u32::from_str_radix(&cursors[0][9..17], 16).unwrap() - 120;
    let earlier = format!("{}-{seconds:08x}00000001-00000000", &cursors[0][..8]);
    let mut earlier = server.join(&format!("room=general&after={earlier}")).await;
    expect_rest(&mut earlier, 0).await;
    assert_eq!(server.metric(FILLED).await, 2);
    // And what the slow one still reads serves others.
    let mut later = server.join(&format!("room=general&after={}", cursors[199])).await;
    expect_rest(&mut later, 200).await;
    assert_eq!(server.metric(FILLED).await, 2, "one that was at hand was not shared");
    expect_rest(&mut slow, 100).await;
    server.stop().await;
}

#[tokio::test]
async fn replays_have_a_bound_of_memory_together() {
    let flags = ["--log-entries-max", "150", "--replays-kept-bytes-max", "1000000"];
    let server = TestServer::start_with(&flags).await;
    let cursors = write_much(&server).await;
    let mut back = server.join(&format!("room=general&after={}", cursors[9])).await;
    assert_eq!(back.expect("reset").await["reason"], "too much has happened since the cursor");
    server.say("general", "live").await;
    assert_eq!(back.expect_contents(1).await, ["live"]);
    server.stop().await;
}
