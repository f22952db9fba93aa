//! Large answers: each has a bound, and so have all that are on their way to clients that hardly take them.

use std::net::IpAddr;

use mongodb::bson::doc;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use crate::harness::{Answer, TestServer, contents, eventually};

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

/// The pages of [`with_long_messages`], at most, in bytes.
const PAGE_BYTES_MAX: usize = 300_000;
const PAGE: &str = "/api/messages?room=general&limit=200";

/// Asks again and again for a page and takes nothing: the kernel's buffers are full, and then the server's memory is used.
async fn stuck(server: &TestServer) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    let address = server.url.trim_start_matches("http://");
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let request = format!("GET {PAGE} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.repeat(40).as_bytes()).await.unwrap();
    stream
}

/// Waits for the refusal of an answer that has no room.
async fn refused(server: &TestServer) -> Answer {
    eventually("an answer that has no room", async || {
        let answer = server.fetch(PAGE).await;
        (answer.status != 200).then_some(answer)
    })
    .await
}

/// Each network may have this much of the room.
const SHARES: usize = 8;

async fn with_room_for_two_pages_each() -> TestServer {
    let bytes_max = (SHARES * 2 * PAGE_BYTES_MAX).to_string();
    with_long_messages(&["--answers-bytes-max", &bytes_max, "--allow-origin", "https://app.example"]).await
}

#[tokio::test]
async fn answers_that_nobody_takes_fill_the_part_of_their_address_and_others_are_served() {
    let server = with_room_for_two_pages_each().await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(stuck(&server).await);
    }
    refused(&server).await.expect_problem(503, "unavailable");
    // Small ones need none.
    assert_eq!(server.fetch("/api/messages?room=general&limit=1").await.status, 200);
    let other = reqwest::Client::builder().local_address(IpAddr::from([127, 0, 0, 2])).build().unwrap();
    for _ in 0..10 {
        let answer = other.get(format!("{}{PAGE}", server.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.unwrap().len() > 100_000);
    }
    refused(&server).await;
    drop(held);
    eventually("there is room again", async || (server.fetch(PAGE).await.status == 200).then_some(())).await;
    server.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_refused_is_told_as_one() {
    let server = with_room_for_two_pages_each().await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(stuck(&server).await);
    }
    let answer = refused(&server).await;
    assert!(!answer.header("x-request-id").is_empty(), "{:?}", answer.headers);
    let series = r#"corriente_http_requests_total{route="/api/messages",method="GET",status="503"}"#;
    assert!(server.metric(series).await >= 1);
    // A page of an origin that is allowed may know it, too.
    let page = reqwest::Client::new().get(format!("{}{PAGE}", server.url)).header("origin", "https://app.example");
    let answer = page.send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["access-control-allow-origin"]),
        (503, &"https://app.example".parse().unwrap())
    );
    drop(held);
    server.stop().await;
}

#[tokio::test]
async fn an_answer_of_which_nothing_is_taken_is_given_up_though_its_connection_lives() {
    // Within this time all must have been asked for.
    let flags = ["--silence-secs", "8", "--answers-bytes-max", &(SHARES * 2 * PAGE_BYTES_MAX).to_string()];
    let server = with_long_messages(&flags).await;
    let socket = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let (requests, connection) =
        h2::client::Builder::new().initial_window_size(1_000).handshake::<_, bytes::Bytes>(socket).await.unwrap();
    let mut connection = connection;
    let mut pings = connection.ping_pong().unwrap();
    let driving = tokio::spawn(async move {
        let _ = connection.await;
    });
    let mut held = Vec::new();
    for _ in 0..6 {
        let request = poem::http::Request::get(format!("{}{PAGE}", server.url)).body(()).unwrap();
        let mut ready = requests.clone().ready().await.unwrap();
        held.push(ready.send_request(request, true).unwrap().0);
    }
    refused(&server).await.expect_problem(503, "unavailable");
    eventually("there is room again", async || {
        pings.ping(h2::Ping::opaque()).await.expect("the connection lives");
        (server.fetch(PAGE).await.status == 200).then_some(())
    })
    .await;
    pings.ping(h2::Ping::opaque()).await.expect("the connection lives");
    drop(held);
    driving.abort();
    server.stop().await;
}
