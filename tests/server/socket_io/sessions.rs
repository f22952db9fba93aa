//! How sessions begin, count and end.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::{Client, frame, handshake, poll};
use crate::harness::{Answer, PATIENCE_SECS, TestServer, eventually};

#[tokio::test]
async fn sessions_are_counted_and_bounded_and_pages_of_other_sites_have_none() {
    let server = TestServer::start_with(&["--connections-max", "8"]).await;
    let open = "/socket.io/?EIO=4&transport=polling";
    for query in
        ["", "EIO=4", "EIO=3&transport=polling", "EIO=4&transport=carrier-pigeon", "EIO=4&transport=polling&sid=x"]
    {
        assert_eq!(server.fetch(&format!("/socket.io/?{query}")).await.status, 400, "{query}");
    }
    // Of one address alone a session and its connection count: there is no room for eight.
    let elsewhere = reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    let mut sids = Vec::new();
    for n in 0..8 {
        let answer = match n {
            ..4 => poll(|method, path| server.request(method, path)).await,
            _ => poll(|method, path| elsewhere.request(method, format!("{}{path}", server.url))).await,
        };
        assert_eq!(answer.status, 200, "{}", answer.text);
        let open: Value = serde_json::from_str(answer.text.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(open["upgrades"], json!(["websocket"]));
        sids.push(open["sid"].as_str().unwrap().to_owned());
    }
    server.fetch(open).await.expect_problem(503, "unavailable");
    assert_eq!(server.metric("corriente_connections{transport=\"socket.io\"}").await, 8);
    let path = format!("{open}&sid={}", sids[0]);
    let left = Answer::to(server.request(Method::POST, &path).body("1")).await;
    assert_eq!(left.status, 200, "{}", left.text);
    eventually("its place is free", async || (server.fetch(open).await.status == 200).then_some(())).await;

    let path = format!("{open}&sid={}", sids[1]);
    let huge = Answer::to(server.request(Method::POST, &path).body("4".repeat(200_000))).await;
    huge.expect_problem(413, "too-large");
    let broken = Answer::to(server.request(Method::POST, &path).body(&b"4\xFF"[..])).await;
    broken.expect_problem(400, "syntax");
    for method in [Method::GET, Method::POST] {
        let foreign = server.request(method, open).header("Origin", "https://evil.example");
        Answer::to(foreign).await.expect_problem(403, "forbidden");
    }
    server.stop().await;
}

#[tokio::test]
async fn one_address_can_not_take_the_places_of_all_with_sockets_that_it_closes_at_once() {
    const PLACES: usize = 12;
    let places = PLACES.to_string();
    let server = TestServer::start_with(&["--connections-max", &places, "--connections-per-address-max", "4"]).await;
    let url = format!("{}/socket.io/?EIO=4&transport=websocket", server.url.replacen("http", "ws", 1));
    let mut begun = 0;
    // The server keeps a session that nobody has joined for a while.
    for _ in 0..100 {
        match connect_async(&url).await {
            Ok(_) => begun += 1,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
        if begun == PLACES {
            break;
        }
    }
    let elsewhere = reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    let opened = poll(|method, path| elsewhere.request(method, format!("{}{path}", server.url))).await;
    assert_eq!(opened.status, 200, "after {begun} sockets of the other address: {}", opened.text);
    server.stop().await;
}

#[tokio::test]
async fn attachments_of_which_the_last_does_not_come_are_kept_up_to_a_bound() {
    let server = TestServer::start().await;
    // Nothing of this protocol has any, and a few are harmless.
    let mut polite = Client::connect(&server, json!({})).await;
    polite.send(r#"451-7["message",{"content":{"_placeholder":true,"num":0},"sender":"Ana"}]"#).await;
    polite.socket.send(Message::binary(vec![1; 1_000])).await.unwrap();
    let answer = polite.packet().await.expect("an answer");
    assert!(answer.starts_with("437[") && answer.contains("takes an object"), "{answer}");
    for (declared, bytes, sent) in [(17, 0, 0), (2, 40_000, 1), (16, 40_000, 2), (16, 5_000, 13)] {
        let mut client = Client::connect(&server, json!({})).await;
        client.send(&format!("45{declared}-[\"message\",{{}}]")).await;
        for _ in 0..sent {
            client.socket.send(Message::binary(vec![1; bytes])).await.unwrap();
        }
        let is_too_much = declared > 16 || bytes * sent > 64 * 1024;
        let patience = if is_too_much { Duration::from_secs(PATIENCE_SECS) } else { Duration::from_millis(300) };
        let end = timeout(patience, client.packet()).await;
        // Engine.IO says `1` before it closes.
        let is_closed = matches!(end.as_ref().map(Option::as_deref), Ok(None | Some("1")));
        assert_eq!(is_closed, is_too_much, "{sent} of {declared} attachments, each of {bytes} bytes: {end:?}");
    }
    server.stop().await;
}

// The library joins sockets and hears them on other threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_goes_with_its_socket_also_when_that_leaves_while_it_joins() {
    const CLIENTS: usize = 8;
    let server = TestServer::start().await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let clients = (0..CLIENTS).map(|client| {
        let address = address.clone();
        tokio::spawn(async move {
            for round in 0..200 {
                let mut socket = TcpStream::connect(&address).await.unwrap();
                socket.set_nodelay(true).unwrap();
                socket.write_all(&handshake("/socket.io/?EIO=4&transport=websocket")).await.unwrap();
                let mut said = Vec::new();
                while !said.ends_with(b"}") {
                    assert_ne!(socket.read_buf(&mut said).await.unwrap(), 0, "the connection ends early");
                }
                let between = frame("3").repeat((round + client) % 60);
                let packets = [frame("40"), between, frame("41")].concat();
                socket.write_all(&packets).await.unwrap();
                // Until the server has heard it all.
                let _ = socket.shutdown().await;
                let _ = socket.read_to_end(&mut said).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    eventually("no session is left", async || {
        (server.metric("corriente_connections{transport=\"socket.io\"}").await == 0).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_tells_the_place_and_closes_below_so_that_clients_come_back() {
    for is_upgraded in [false, true] {
        let server = TestServer::start().await;
        let mut client = match is_upgraded {
            false => Client::connect(&server, json!({})).await,
            true => Client::upgrade(&server).await,
        };
        client.subscribe(json!({ "room": "general" })).await;
        client.expect("ready").await;
        let stopped = timeout(Duration::from_secs(PATIENCE_SECS), server.stop()).await;
        stopped.expect("it waits for no client to leave by itself");
        client.expect("position").await;
        // `41` would tell official clients to stay away; this closes what is below, and they come back.
        let closed = client.socket.next().await.expect("an end that is said").unwrap();
        assert!(matches!(&closed, Message::Close(Some(close)) if u16::from(close.code) == 1012), "{closed:?}");
    }
}

#[tokio::test]
async fn sessions_end_one_after_the_other_when_the_server_stops() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    // Over two seconds, then. Few of them ask, so that a slow machine has time for all.
    for _ in 0..400 {
        clients.push(Client::connect(&server, json!({})).await);
    }
    let is_one_gone = AtomicBool::new(false);
    let asking = clients.iter_mut().take(20).map(async |client| {
        let mut answers = 0;
        // Until it is closed.
        while client.socket.send(Message::text(r#"421["unsubscribe",{"room":"general"}]"#)).await.is_ok() {
            let Some(packet) = client.packet().await else { break };
            answers += usize::from(packet.starts_with("431") && is_one_gone.load(Ordering::Relaxed));
            sleep(Duration::from_millis(20)).await;
        }
        is_one_gone.store(true, Ordering::Relaxed);
        answers
    });
    let (answers, ()) = tokio::join!(futures::future::join_all(asking), server.stop());
    // The first one may have been on its way.
    assert!(answers.iter().any(|count| *count > 1), "when one was gone, nobody was served any more: {answers:?}");
}
