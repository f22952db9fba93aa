//! Large answers: each has a bound, and so have all that are on their way to clients that hardly take them.

use mongodb::bson::doc;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use crate::harness::{TestServer, contents, eventually};

const COUNT: usize = 60;
/// A content has at most 4,000 characters: 12,000 bytes of these.
const BYTES: usize = 12_000;

async fn with_long_messages(flags: &[&str]) -> TestServer {
    let server = TestServer::start_with(flags).await;
    let content = |n: usize| format!("{n:04}{}", "語".repeat(3_996));
    let documents = (0..COUNT).map(|n| doc! { "content": content(n), "sender": "Ana", "room": "general" });
    server.messages().insert_many(documents).await.unwrap();
    server
}

#[tokio::test]
async fn a_page_of_long_messages_ends_early_and_goes_on() {
    let server = with_long_messages(&[]).await;
    for query in ["room=general", "room=general&q=語"] {
        let (mut walked, mut pages) = (Vec::new(), 0);
        let mut before = String::new();
        loop {
            let page = server.fetch(&format!("/api/messages?{query}&limit=200{before}")).await;
            assert!(page.text.len() < 300_000, "{query}: {} bytes", page.text.len());
            walked.splice(0..0, contents(&page));
            pages += 1;
            match page.json()["before"].as_str() {
                Some(place) => before = format!("&before={place}"),
                None => break,
            }
        }
        let numbers: Vec<usize> = walked.iter().map(|content| content[..4].parse().unwrap()).collect();
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "{query}");
        assert!(pages > 1 && pages <= COUNT * BYTES / 200_000, "{query}: {pages} pages");
    }
    // And the other way, from the oldest on; and about one.
    let all = server.fetch("/api/messages?room=general").await.json();
    let newest = all["messages"][0]["id"].as_str().unwrap();
    let around = server.fetch(&format!("/api/messages?room=general&limit=200&around={newest}")).await;
    assert!(around.text.len() < 300_000 && !contents(&around).is_empty());
    let (mut after, mut seen) = (around.json()["after"].as_str().map(str::to_owned), contents(&around));
    while let Some(place) = after {
        let page = server.fetch(&format!("/api/messages?room=general&limit=200&after={place}")).await;
        assert!(page.text.len() < 300_000);
        seen.extend(contents(&page));
        after = page.json()["after"].as_str().map(str::to_owned);
    }
    assert!(seen.is_sorted() && seen.last().unwrap().starts_with("0059"), "{:?}", seen.last().map(|last| &last[..4]));
    let html = server.fetch("/rooms/general").await;
    assert!(html.status == 200 && html.text.len() < 400_000, "{} bytes", html.text.len());
    server.stop().await;
}

/// Asks again and again for a page and takes nothing: the kernel's buffers are full, and then the server's memory is used.
async fn stuck(server: &TestServer) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    let address = server.url.trim_start_matches("http://");
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let request = format!("GET /api/messages?room=general&limit=200 HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.repeat(40).as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn answers_that_nobody_takes_have_a_bound_of_memory_together() {
    let server = with_long_messages(&["--answers-bytes-max", "600000"]).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(stuck(&server).await);
    }
    eventually("an answer that has no room", async || {
        let answer = server.fetch("/api/messages?room=general&limit=200").await;
        if answer.status == 200 {
            return None;
        }
        answer.expect_problem(503, "unavailable");
        Some(())
    })
    .await;
    // Small ones need none.
    assert_eq!(server.fetch("/api/messages?room=general&limit=1").await.status, 200);
    drop(held);
    eventually("there is room again", async || {
        let answer = server.fetch("/api/messages?room=general&limit=200").await;
        (answer.status == 200).then_some(())
    })
    .await;
    server.stop().await;
}
