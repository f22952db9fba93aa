//! Coming back: exactly what was missed, or a `reset` that says why not.

use mongodb::bson::doc;
use serde_json::Value;

use crate::harness::{Follower, TestServer, eventually};

/// The cursor of a frame.
fn cursor(frame: &Value) -> String {
    frame["cursor"].as_str().expect("a cursor").to_owned()
}

/// Follows `general`, sees one message, and leaves with its cursor.
async fn visit(server: &TestServer) -> String {
    let mut follower = server.follow("room=general").await;
    server.say("general", "seen").await;
    cursor(&follower.expect("created").await)
}

async fn say_all(server: &TestServer, range: std::ops::Range<u32>) -> Vec<String> {
    let contents: Vec<String> = range.map(|n| n.to_string()).collect();
    for content in &contents {
        server.say("general", content).await;
    }
    contents
}

async fn expect_reset(follower: &mut Follower) {
    let reset = follower.expect("reset").await;
    assert!(reset["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{reset}");
    follower.expect("ready").await;
}

#[tokio::test]
async fn what_the_log_no_longer_holds_is_replayed_from_the_oplog() {
    let server = TestServer::start_with(&["--log-entries-max", "3"]).await;
    let left_at = visit(&server).await;
    let missed = say_all(&server, 0..20).await;
    let mut back = server.join(&format!("room=general&after={left_at}")).await;
    assert_eq!(back.expect_contents(20).await, missed);
    server.say("general", "live").await;
    assert_eq!(back.expect_contents(1).await, ["live"]);
    assert!(server.metric("corriente_replays_total{outcome=\"filled\"}").await >= 1);
    server.stop().await;
}

#[tokio::test]
async fn a_transaction_cut_in_its_middle_is_replayed_from_its_middle() {
    let server = TestServer::start_with(&["--log-entries-max", "2"]).await;
    let mut follower = server.follow("room=a&room=b").await;
    let client = server.messages().client().clone();
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    for n in 0..8 {
        let room = if n % 2 == 0 { "a" } else { "b" };
        let document = doc! { "content": n.to_string(), "sender": "Ana", "room": room };
        server.messages().insert_one(document).session(&mut session).await.unwrap();
    }
    session.commit_transaction().await.unwrap();
    let mut cursors = Vec::new();
    for _ in 0..8 {
        cursors.push(cursor(&follower.expect("created").await));
    }
    for (n, left_at) in cursors.iter().enumerate() {
        let mut back = server.join(&format!("room=a&room=b&after={left_at}")).await;
        let rest: Vec<String> = (n as u32 + 1..8).map(|n| n.to_string()).collect();
        assert_eq!(back.expect_contents(rest.len()).await, rest, "cut after {n}");
        back.expect("ready").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn ten_thousand_at_once_cut_anywhere_go_on_there_from_memory_and_from_the_oplog() {
    const COUNT: usize = 10_000;
    let server = TestServer::start().await;
    let forgetful = TestServer::start_on(server.database.name(), &["--log-entries-max", "100"]).await;
    let query = "room=general&room=dev";
    let mut follower = server.follow(query).await;
    let documents: Vec<_> = (0..COUNT)
        .map(|n| {
            let room = if n % 3 == 0 { "dev" } else { "general" };
            doc! { "content": n.to_string(), "sender": "Ana", "room": room }
        })
        .collect();
    let messages = server.messages();
    let import = tokio::spawn(async move { messages.insert_many(documents).await });

    // Cut while they are still being written, and on both servers at once.
    let first_cut = rand::random_range(1..COUNT / 2);
    let left_at = expect_counted(&mut follower, 0..first_cut).await;
    drop(follower);
    let query_after = |left_at: &str| format!("{query}&after={left_at}");
    let mut here = server.join(&query_after(&left_at)).await;
    let mut there = forgetful.join(&query_after(&left_at)).await;
    let second_cut = rand::random_range(first_cut + 1..COUNT);
    expect_counted(&mut here, first_cut..COUNT).await;
    let left_at = expect_counted(&mut there, first_cut..second_cut).await;
    drop(there);
    import.await.unwrap().unwrap();

    // And once all is long over: the log of one server holds it, the other's does not.
    for server in [&server, &forgetful] {
        let mut back = server.join(&query_after(&left_at)).await;
        expect_counted(&mut back, second_cut..COUNT).await;
        back.expect("ready").await;
    }
    assert!(forgetful.metric("corriente_replays_total{outcome=\"filled\"}").await >= 1);
    forgetful.stop().await;
    server.stop().await;
}

/// Reads created messages whose contents are these numbers, exactly. Returns the cursor of the last.
async fn expect_counted(follower: &mut Follower, numbers: std::ops::Range<usize>) -> String {
    let mut left_at = String::new();
    for n in numbers.clone() {
        let frame = loop {
            let frame = follower.next().await.expect("the socket stays open");
            // It may have caught up with the import more than once.
            if !matches!(frame["type"].as_str(), Some("ready" | "position")) {
                break frame;
            }
        };
        assert_eq!(frame["message"]["content"], n.to_string(), "of {numbers:?}: {frame}");
        left_at = cursor(&frame);
    }
    left_at
}

#[tokio::test]
async fn a_client_that_missed_more_than_a_replay_holds_is_reset() {
    let server = TestServer::start_with(&["--log-entries-max", "3", "--replay-events-max", "10"]).await;
    let left_at = visit(&server).await;
    say_all(&server, 0..20).await;
    let mut back = server.join(&format!("room=general&after={left_at}")).await;
    expect_reset(&mut back).await;
    server.say("general", "live").await;
    assert_eq!(back.expect_contents(1).await, ["live"]);
    server.stop().await;
}

#[tokio::test]
async fn clients_of_a_restarted_server_go_on_from_memory() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=general").await;
    let mut cursors = vec![];
    for n in 0..5 {
        server.say("general", &n.to_string()).await;
        cursors.push(cursor(&follower.expect("created").await));
    }
    // Held, as the last test that runs would else end the shared mongod between the two servers.
    let (database, _mongo) = (server.database.name().to_owned(), server.mongo.clone());
    server.stop().await;
    let server = TestServer::start_on(&database, &[]).await;
    server.say("general", "5").await;
    for (n, left_at) in cursors.iter().enumerate() {
        let mut back = server.join(&format!("room=general&after={left_at}")).await;
        let rest: Vec<String> = (n as u32 + 1..6).map(|n| n.to_string()).collect();
        assert_eq!(back.expect_contents(rest.len()).await, rest);
    }
    assert_eq!(server.metric("corriente_replays_total{outcome=\"filled\"}").await, 0, "memory was enough");
    server.stop().await;
}

#[tokio::test]
async fn the_log_of_a_restarted_server_begins_also_with_an_edit_that_has_no_image() {
    let server = TestServer::start().await;
    let left_at = visit(&server).await;
    let (database, _mongo) = (server.database.clone(), server.mongo.clone());
    server.stop().await;
    for (is_on, edited) in [(false, true), (true, false)] {
        let images = doc! { "collMod": "messages", "changeStreamPreAndPostImages": { "enabled": is_on } };
        database.run_command(images).await.unwrap();
        if edited {
            let messages = database.collection::<mongodb::bson::Document>("messages");
            messages.update_one(doc! {}, doc! { "$set": { "content": "edited" } }).await.unwrap();
        }
    }
    let server = TestServer::start_on(database.name(), &[]).await;
    let mut back = server.join(&format!("room=general&after={left_at}")).await;
    assert_eq!(back.expect("updated").await["message"]["content"], "edited");
    assert_eq!(server.metric("corriente_replays_total{outcome=\"filled\"}").await, 0, "memory was enough");
    server.stop().await;
}

#[tokio::test]
async fn a_cursor_is_good_on_every_server() {
    let one = TestServer::start().await;
    let other = TestServer::start_on(one.database.name(), &[]).await;
    let mut left_at = visit(&one).await;
    for n in 0..6 {
        let (here, there) = if n % 2 == 0 { (&other, &one) } else { (&one, &other) };
        there.say("general", &n.to_string()).await;
        let mut back = here.join(&format!("room=general&after={left_at}")).await;
        let frame = loop {
            let frame = back.next().await.unwrap();
            match frame["type"].as_str() {
                Some("created") => break frame,
                Some("ready" | "position") => {}
                _ => panic!("{frame}"),
            }
        };
        assert_eq!(frame["message"]["content"], n.to_string());
        left_at = cursor(&frame);
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_reader_that_stops_reading_gets_everything_when_it_reads_again() {
    let server = TestServer::start_with(&["--log-entries-max", "50"]).await;
    let mut slow = server.follow("room=general").await;
    let mut quick = server.follow("room=general").await;
    // Far more than the socket's buffers hold, so that the slow reader's session stands still.
    let content = "x".repeat(4_000);
    for batch in 0..20 {
        let documents = (0..100).map(|n| {
            let content = format!("{} {content}", batch * 100 + n).chars().take(4_000).collect::<String>();
            doc! { "content": content, "sender": "Ana", "room": "general" }
        });
        server.messages().insert_many(documents).await.unwrap();
        assert_eq!(quick.expect_contents(100).await.len(), 100);
    }
    let number = |content: &String| content.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(u32::MAX);
    let seen: Vec<u32> = slow.expect_contents(2_000).await.iter().map(number).collect();
    assert_eq!(seen, (0..2_000).collect::<Vec<u32>>());
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_never_reads_is_closed_and_comes_back_to_its_place() {
    let server = TestServer::start_with(&["--silence-secs", "2"]).await;
    let mut stuck = server.join("room=general").await;
    let mut left_at = cursor(&stuck.expect("ready").await);
    let mut quick = server.follow("room=general").await;
    let contents: Vec<String> = (0..2_000).map(|n| format!("{n} {}", "x".repeat(3_900))).collect();
    for part in contents.chunks(200) {
        let documents = part.iter().map(|content| doc! { "content": content, "sender": "Ana", "room": "general" });
        server.messages().insert_many(documents).await.unwrap();
        assert_eq!(quick.expect_contents(200).await, part);
    }
    drop(quick);
    let connections = "corriente_connections{transport=\"websocket\"}";
    eventually("it is let go", async || (server.metric(connections).await == 0).then_some(())).await;
    // What had been written is still there to be read, to the byte at which the connection ended.
    let mut count = 0;
    while let Some(frame) = stuck.next().await {
        count += usize::from(frame["type"] == "created");
        left_at = cursor(&frame);
    }
    assert!(count < 2_000, "all of it went into buffers");
    let mut back = server.join(&format!("room=general&after={left_at}")).await;
    assert_eq!(back.expect_contents(2_000 - count).await, contents[count..]);
    server.stop().await;
}
