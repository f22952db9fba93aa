//! Cursors as nobody gave them out: each is a `reset` or an answer, never an error, and costs next to nothing.

use std::time::Duration;

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::harness::{PATIENCE_SECS, TestServer};

/// The cursor of a message, and that of the message after it.
async fn two_cursors(server: &TestServer) -> [String; 2] {
    let mut follower = server.follow("room=general").await;
    server.say("general", "before").await;
    let before = follower.expect("created").await;
    server.say("general", "after").await;
    let after = follower.expect("created").await;
    [before, after].map(|frame| frame["cursor"].as_str().expect("a cursor").to_owned())
}

/// Every text that differs from `cursor` in one bit. Written as a URL has them.
fn each_bit_flipped(cursor: &str) -> Vec<String> {
    let flipped = (0..cursor.len() * 8).map(|bit| {
        let mut bytes = cursor.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        percent_encoding::percent_encode(&bytes, percent_encoding::NON_ALPHANUMERIC).to_string()
    });
    flipped.collect()
}

/// The time in a text that still is a cursor.
fn time_of(text: &str) -> Option<u64> {
    let text = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
    let cursor: corriente::cursor::Cursor = text.parse().ok()?;
    Some(u64::from(cursor.time.seconds) << 32 | u64::from(cursor.time.increment))
}

#[tokio::test]
async fn a_cursor_with_any_bit_flipped_is_a_reset_or_an_answer_over_the_socket() {
    let server = TestServer::start().await;
    let [good, newest] = two_cursors(&server).await;
    let all = each_bit_flipped(&good);
    let began = Instant::now();
    let joins = all.iter().map(async |flipped| {
        let mut follower = server.join(&format!("room=general&after={flipped}")).await;
        // One of a time to come waits for that: it must be served, and is told nothing of the past.
        let is_ahead = time_of(flipped) > time_of(&newest);
        if is_ahead {
            follower.send(serde_json::json!({ "type": "unsubscribe", "room": "general" })).await;
        }
        let frame = follower.next().await.expect("the socket stays open");
        match frame["type"].as_str() {
            Some("reset" | "ready") => {}
            Some("unsubscribed") if is_ahead => {}
            // Of an earlier place, or of a change of the same time that is not known: then of all of that time again.
            Some("created") if !is_ahead => {}
            _ => panic!("{flipped}: {frame}"),
        }
    });
    join_all(joins).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(PATIENCE_SECS), "{} cursors took {took:?}", all.len());
    // Only one that lies before the log, in a time that the oplog may hold, is worth a stream; neighbours share one.
    let text = server.fetch("/metrics").await.text;
    let replays = text.lines().filter(|line| line.starts_with("corriente_replays_total{"));
    let replays: u64 = replays.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum();
    assert!(replays <= 32, "{replays} replays for {} cursors", all.len());
    server.stop().await;
}

#[tokio::test]
async fn a_read_since_a_cursor_with_any_bit_flipped_is_an_answer_or_names_the_parameter() {
    let server = TestServer::start().await;
    let [good, newest] = two_cursors(&server).await;
    let all = each_bit_flipped(&good);
    let reads = all.iter().map(async |flipped| {
        let answer = server.fetch(&format!("/api/messages?since={flipped}")).await;
        match answer.status.as_u16() {
            200 => {}
            422 => assert_eq!(answer.expect_problem(422, "invalid-field")["errors"][0]["field"], "since"),
            // This server has not come to that time within its patience; another one may have.
            503 if time_of(flipped) > time_of(&newest) => assert!(!answer.header("retry-after").is_empty()),
            status => panic!("{status} to {flipped}: {}", answer.text),
        }
    });
    join_all(reads).await;
    server.stop().await;
}

#[tokio::test]
async fn a_cursor_of_a_megabyte_is_refused_before_it_is_read() {
    let server = TestServer::start().await;
    let long = "0".repeat(1 << 20);
    for (path, handshake) in [
        (format!("/ws?room=general&after={long}"), "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        (format!("/api/messages?since={long}"), ""),
    ] {
        let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{handshake}\r\n");
        // It may be refused, and closed, before all of it is written.
        let _ = socket.write_all(head.as_bytes()).await;
        let mut answer = [0; 12];
        let read = timeout(Duration::from_secs(PATIENCE_SECS), socket.read_exact(&mut answer)).await;
        match read.expect("an answer or an end within the deadline") {
            Ok(_) => {
                let answer = String::from_utf8_lossy(&answer).into_owned();
                assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
    server.say("general", "the server lives on").await;
    server.stop().await;
}

#[tokio::test]
async fn another_epoch_tells_a_restored_database_from_what_it_was_before() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=general").await;
    server.say("general", "before").await;
    let left_at = follower.expect("created").await["cursor"].as_str().unwrap().to_owned();
    let restored = TestServer::start_on(server.database.name(), &["--epoch", "restored"]).await;
    let mut back = restored.join(&format!("room=general&after={left_at}")).await;
    assert_eq!(back.expect("reset").await["reason"], "the cursor is of another collection");
    back.expect("ready").await;
    assert_eq!(restored.fetch(&format!("/api/messages?since={left_at}")).await.status, 422);
    restored.say("general", "after").await;
    let cursor = back.expect("created").await["cursor"].as_str().unwrap().to_owned();
    let mut back = restored.join(&format!("room=general&after={cursor}")).await;
    back.expect("ready").await;
    restored.stop().await;
    server.stop().await;
}
