//! Following topics over the WebSocket.

use futures::StreamExt;
use mongodb::bson::doc;
use serde_json::json;
use tokio_tungstenite::tungstenite::{self, Message, protocol::frame::coding::CloseCode};

use crate::harness::{Answer, TestServer};

#[tokio::test]
async fn a_message_reaches_every_follower_of_its_room_and_no_other() {
    let server = TestServer::start().await;
    let mut ana = server.follow("room=dev").await;
    let mut luis = server.follow("room=dev&room=general").await;
    let mut eva = server.follow("room=other").await;
    let sent = server.say("dev", "hola").await;
    for follower in [&mut ana, &mut luis] {
        let frame = follower.expect("created").await;
        assert_eq!(frame["message"], sent);
        assert_eq!(frame["topics"], json!([{ "room": "dev" }]));
        assert!(frame["cursor"].as_str().is_some_and(|cursor| cursor.len() <= 40));
    }
    server.say("other", "adiós").await;
    eva.expect_next_content("adiós").await;
    server.stop().await;
}

#[tokio::test]
async fn a_direct_message_reaches_both_inboxes_and_no_room() {
    let server = TestServer::start().await;
    let mut ana = server.follow("inbox=Ana").await;
    let mut luis = server.follow("inbox=Luis&room=general").await;
    let mut room = server.follow("room=general").await;
    let mut all = server.follow("all=true").await;
    let (status, _) = server.post(json!({ "sender": "Ana", "recipient": "Luis", "content": "psst" })).await;
    assert_eq!(status, 201);
    server.say("general", "to everybody").await;
    let frame = ana.expect("created").await;
    assert_eq!(frame["message"]["recipient"], "Luis");
    assert_eq!(frame["message"].get("room"), None);
    assert_eq!(frame["topics"], json!([{ "inbox": "Ana" }, { "inbox": "Luis" }]));
    assert_eq!(luis.expect_contents(2).await, ["psst", "to everybody"]);
    assert_eq!(all.expect_contents(2).await, ["psst", "to everybody"]);
    room.expect_next_content("to everybody").await;
    server.stop().await;
}

#[tokio::test]
async fn edits_moves_and_deletes_made_in_the_database_are_one_frame_each() {
    let server = TestServer::start().await;
    let mut a = server.follow("room=a").await;
    let mut b = server.follow("room=b").await;
    let mut both = server.follow("room=a&room=b").await;
    let id = mongodb::bson::oid::ObjectId::new();
    let messages = server.messages();
    let this = doc! { "_id": id };
    messages.insert_one(doc! { "_id": id, "content": "one", "sender": "Ana", "room": "a" }).await.unwrap();
    messages.update_one(this.clone(), doc! { "$set": { "content": "two" } }).await.unwrap();
    messages.update_one(this.clone(), doc! { "$set": { "room": "b" } }).await.unwrap();
    messages.replace_one(this.clone(), doc! { "content": "three", "sender": "Ana", "room": "b" }).await.unwrap();
    messages.delete_one(this).await.unwrap();

    for kind in ["created", "updated", "deleted"] {
        assert_eq!(frame_id(&a.expect(kind).await), id.to_hex());
    }
    for kind in ["created", "updated", "deleted"] {
        assert_eq!(frame_id(&b.expect(kind).await), id.to_hex());
    }
    for (kind, content) in [("created", "one"), ("updated", "two"), ("updated", "two"), ("updated", "three")] {
        assert_eq!(both.expect(kind).await["message"]["content"], content);
    }
    assert_eq!(both.expect("deleted").await["topics"], json!([{ "room": "b" }]));
    server.stop().await;
}

fn frame_id(frame: &serde_json::Value) -> String {
    let id = if frame["id"].is_null() { &frame["message"]["id"] } else { &frame["id"] };
    id.as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_edit_that_breaks_the_contract_deletes_and_one_that_mends_it_creates() {
    // On a collection of somebody else's, as our own validator would refuse the edit.
    let database = format!("test_{}", mongodb::bson::oid::ObjectId::new().to_hex());
    let mongo = crate::harness::mongo().await;
    let client = mongodb::Client::with_uri_str(mongo.uri()).await.unwrap();
    client.database(&database).create_collection("messages").await.unwrap();
    let server = TestServer::start_on(&database, &["--pre-images"]).await;
    let mut follower = server.follow("room=general").await;
    let messages = server.messages();
    messages.insert_one(doc! { "content": "one", "sender": "Ana" }).await.unwrap();
    messages.update_many(doc! {}, doc! { "$set": { "content": 5 } }).await.unwrap();
    messages.update_many(doc! {}, doc! { "$set": { "content": "two" } }).await.unwrap();
    follower.expect("created").await;
    follower.expect("deleted").await;
    follower.expect_next_content("two").await;
    server.stop().await;
}

#[tokio::test]
async fn without_pre_images_a_move_and_a_delete_are_told_to_everybody() {
    let database = format!("test_{}", mongodb::bson::oid::ObjectId::new().to_hex());
    let mongo = crate::harness::mongo().await;
    let client = mongodb::Client::with_uri_str(mongo.uri()).await.unwrap();
    client.database(&database).create_collection("messages").await.unwrap();
    let server = TestServer::start_on(&database, &[]).await;
    let mut a = server.follow("room=a").await;
    let mut b = server.follow("room=b").await;
    let mut elsewhere = server.follow("room=c").await;
    let messages = server.messages();
    messages.insert_one(doc! { "content": "one", "sender": "Ana", "room": "a" }).await.unwrap();
    messages.update_many(doc! {}, doc! { "$set": { "content": "two" } }).await.unwrap();
    a.expect("created").await;
    a.expect("updated").await;
    messages.update_many(doc! {}, doc! { "$set": { "room": "b" } }).await.unwrap();
    assert_eq!(a.expect("deleted").await["topics"], json!([]));
    assert_eq!(b.expect("updated").await["message"]["content"], "two");
    assert_eq!(elsewhere.expect("deleted").await["topics"], json!([]));
    messages.delete_many(doc! {}).await.unwrap();
    for follower in [&mut a, &mut b, &mut elsewhere] {
        assert_eq!(follower.expect("deleted").await["topics"], json!([]));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_comes_back_with_its_cursor_gets_exactly_what_it_missed() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=general&inbox=Ana").await;
    server.say("general", "1").await;
    let cursor = follower.expect("created").await["cursor"].as_str().unwrap().to_owned();
    drop(follower);
    for content in ["2", "3"] {
        server.say("general", content).await;
    }
    server.say("elsewhere", "not mine").await;
    server.post(json!({ "sender": "Luis", "recipient": "Ana", "content": "4" })).await;
    let mut back = server.join(&format!("room=general&inbox=Ana&after={cursor}")).await;
    assert_eq!(back.expect_contents(3).await, ["2", "3", "4"]);
    server.stop().await;
}

#[tokio::test]
async fn a_transaction_cut_in_its_middle_goes_on_in_its_middle() {
    // All events of a transaction have one cluster time, on every version of MongoDB.
    let server = TestServer::start().await;
    let mut follower = server.follow("room=a&room=b").await;
    let client = server.messages().client().clone();
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    for n in 0..6 {
        let room = if n % 2 == 0 { "a" } else { "b" };
        let document = doc! { "content": n.to_string(), "sender": "Ana", "room": room };
        server.messages().insert_one(document).session(&mut session).await.unwrap();
    }
    session.commit_transaction().await.unwrap();
    let mut cursors = Vec::new();
    for n in 0..6 {
        let frame = follower.expect("created").await;
        assert_eq!(frame["message"]["content"], n.to_string());
        cursors.push(frame["cursor"].as_str().unwrap().to_owned());
    }
    for (n, cursor) in cursors.iter().enumerate() {
        let mut back = server.join(&format!("room=a&room=b&after={cursor}")).await;
        let rest: Vec<String> = (n + 1..6).map(|n| n.to_string()).collect();
        assert_eq!(back.expect_contents(rest.len()).await, rest);
        back.expect("ready").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn cursors_that_are_none_are_reset_never_an_error() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=general").await;
    server.say("general", "0").await;
    let good = follower.expect("created").await["cursor"].as_str().unwrap().to_owned();
    let other_epoch = format!("{}{}", if good.starts_with('0') { '1' } else { '0' }, &good[1..]);
    let far_ahead = format!("{}f{}", &good[..9], &good[10..]);
    for cursor in ["garbage", "%00", &"0".repeat(2_000), &other_epoch, &far_ahead] {
        let mut follower = server.join(&format!("room=general&after={cursor}")).await;
        follower.expect("reset").await;
        follower.expect("ready").await;
    }
    let mut live = server.join("room=general&after=").await;
    live.expect("ready").await;
    server.stop().await;
}

#[tokio::test]
async fn a_cursor_a_little_ahead_of_this_server_waits_and_then_goes_on() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=general").await;
    server.say("general", "0").await;
    let cursor = follower.expect("created").await["cursor"].as_str().unwrap().to_owned();
    // Two seconds on: the time of a message that another server was faster to see.
    let seconds = u32::from_str_radix(&cursor[9..17], 16).unwrap() + 2;
    let ahead = format!("{}{seconds:08x}00000001-00000000", &cursor[..9]);
    let mut waiting = server.join(&format!("room=general&after={ahead}")).await;
    server.say("general", "below its cursor").await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    server.say("general", "above its cursor").await;
    // `ready` may come before it or after it, when the stream's position passes the cursor.
    let frames = [waiting.next().await.unwrap(), waiting.next().await.unwrap()];
    let created: Vec<_> = frames.iter().filter(|frame| frame["type"] == "created").collect();
    assert_eq!(created.len(), 1, "{frames:?}");
    assert_eq!(created[0]["message"]["content"], "above its cursor");
    server.stop().await;
}

#[tokio::test]
async fn topics_can_be_added_and_removed_on_an_open_socket() {
    let server = TestServer::start().await;
    let mut follower = server.follow("").await;
    server.say("dev", "before").await;
    follower.send(json!({ "type": "subscribe", "room": " dev " })).await;
    let subscribed = follower.expect("subscribed").await;
    assert_eq!(subscribed["topic"], json!({ "room": "dev" }));
    let since = subscribed["cursor"].as_str().unwrap().to_owned();
    server.say("dev", "after").await;
    // Whether the message before is told as well depends on whether the server had it when it answered; in the
    // history since the answer's cursor it is in any case.
    while follower.expect("created").await["message"]["content"] != "after" {}
    let (status, page) = server.get(&format!("/api/messages?room=dev&since={since}")).await;
    assert_eq!(status, 200);
    let contents: Vec<_> = page["messages"].as_array().unwrap().iter().map(|message| &message["content"]).collect();
    assert!(contents.contains(&&json!("before")), "{page}");

    follower.send(json!({ "type": "subscribe", "inbox": "Luis" })).await;
    follower.expect("subscribed").await;
    follower.send(json!({ "type": "unsubscribe", "room": "dev" })).await;
    assert_eq!(follower.expect("unsubscribed").await["topic"], json!({ "room": "dev" }));
    server.say("dev", "not followed any longer").await;
    server.post(json!({ "sender": "Ana", "recipient": "Luis", "content": "psst" })).await;
    follower.expect_next_content("psst").await;
    server.stop().await;
}

#[tokio::test]
async fn a_message_sent_over_the_socket_is_acknowledged_and_comes_back_once() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=general").await;
    let id = mongodb::bson::oid::ObjectId::new().to_hex();
    let send = json!({ "type": "send", "id": id, "room": "general", "sender": "Ana", "content": "hola" });
    let mut kinds = Vec::new();
    follower.send(send.clone()).await;
    for _ in 0..2 {
        let frame = follower.next().await.unwrap();
        assert_eq!(frame_id(&frame), id);
        kinds.push(frame["type"].as_str().unwrap().to_owned());
    }
    kinds.sort();
    assert_eq!(kinds, ["created", "sent"]);
    // A retry is one message still; other words are a conflict.
    follower.send(send).await;
    follower.expect("sent").await;
    let other = json!({ "type": "send", "id": id, "room": "general", "sender": "Ana", "content": "other words" });
    follower.send(other).await;
    let error = follower.expect("error").await;
    assert_eq!((&error["id"], &error["problem"]["status"]), (&json!(id), &json!(409)), "{error}");
    assert_eq!(server.messages().count_documents(doc! {}).await.unwrap(), 1);
    server.stop().await;
}

#[tokio::test]
async fn messages_of_one_socket_keep_their_order() {
    let server = TestServer::start().await;
    let mut reader = server.follow("room=general").await;
    let mut writer = server.follow("").await;
    for n in 0..100 {
        let content = n.to_string();
        writer.send(json!({ "type": "send", "sender": "Ana", "content": content })).await;
    }
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(reader.expect_contents(100).await, expected);
    server.stop().await;
}

#[tokio::test]
async fn what_was_sent_before_the_socket_closed_is_stored() {
    let server = TestServer::start().await;
    let mut reader = server.follow("room=general").await;
    let mut writer = server.follow("").await;
    for n in 0..20 {
        writer.send(json!({ "type": "send", "sender": "Ana", "content": n.to_string() })).await;
    }
    writer.socket.close(None).await.unwrap();
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(reader.expect_contents(20).await, expected);
    server.stop().await;
}

#[tokio::test]
async fn frames_that_are_none_get_an_error_and_the_socket_lives_on() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=general").await;
    let frames = [
        ("", 400),
        ("[]", 400),
        ("{\"type\":", 400),
        (&"[".repeat(60_000), 400),
        ("{}", 422),
        (r#"{"type":"shout"}"#, 422),
        (r#"{"type":"subscribe","room":""}"#, 422),
        (r#"{"type":"subscribe","room":{"$gt":""}}"#, 422),
        (r#"{"type":"subscribe","room":"a","inbox":"b"}"#, 422),
        (r#"{"type":"send","sender":"Ana","content":" "}"#, 422),
        (r#"{"type":"send","sender":"Ana","content":"x","room":{"$gt":""}}"#, 422),
        (r#"{"type":"send","sender":"Ana","content":"x","__proto__":1}"#, 422),
        (r#"{"type":"send","sender":"Ana","content":"x","id":"7"}"#, 422),
    ];
    for (frame, status) in frames {
        follower.send_text(frame).await;
        let error = follower.expect("error").await;
        assert_eq!(error["problem"]["status"], status, "{frame:.60} gave {error}");
    }
    server.say("general", "still here").await;
    follower.expect_next_content("still here").await;
    server.stop().await;
}

#[tokio::test]
async fn handshakes_that_are_none_are_refused_in_words() {
    let server = TestServer::start_with(&["--topics-max", "2"]).await;
    assert_eq!(server.get("/ws").await.0, 426);
    let url = server.url.replacen("http", "ws", 1);
    for (query, status) in [("room=", 422), ("room=..", 422), ("all=perhaps", 422), ("room=a&room=b&room=c", 422)] {
        match tokio_tungstenite::connect_async(format!("{url}/ws?{query}")).await {
            Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), status, "{query}"),
            other => panic!("{query}: {other:?}"),
        }
    }
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let version = ("sec-websocket-version", "13");
    for (headers, status) in [
        (vec![version], 400),
        (vec![version, ("sec-websocket-key", "short")], 400),
        (vec![key], 426),
        (vec![key, ("sec-websocket-version", "12")], 426),
    ] {
        let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let mut request = server.request(reqwest::Method::GET, "/ws?room=general");
        for (name, value) in upgrade.into_iter().chain(headers.clone()) {
            request = request.header(name, value);
        }
        let answer = Answer::to(request).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{}", answer.text);
        // What it would take, as RFC 6455 (4.4) asks.
        assert_eq!(answer.header("sec-websocket-version"), if status == 426 { "13" } else { "" });
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_closes_its_sockets_with_1012() {
    let server = TestServer::start().await;
    let mut followers = [server.follow("room=general").await, server.follow("all=true").await];
    server.stop().await;
    for follower in &mut followers {
        // The place to come back with, and then the close.
        follower.expect("position").await;
        match follower.socket.next().await {
            Some(Ok(Message::Close(Some(close)))) => assert_eq!(close.code, CloseCode::Restart),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_dropped_and_recreated_collection_is_a_reset_and_then_live() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=general").await;
    server.say("general", "old").await;
    let old = follower.expect("created").await["cursor"].as_str().unwrap().to_owned();
    server.messages().drop().await.unwrap();
    let reset = loop {
        // Depending on when the stream ends, the drop may be told as deletes first.
        let frame = follower.next().await.unwrap();
        if frame["type"] == "reset" {
            break frame;
        }
    };
    assert_ne!(reset["cursor"].as_str().unwrap()[..8], old[..8], "a new epoch");
    follower.expect("ready").await;
    server.messages().insert_one(doc! { "content": "new", "sender": "Ana" }).await.unwrap();
    // The collection that the insert made is another one still, so there is one more place to begin at.
    let reset = follower.expect("reset").await;
    let created = follower.expect("created").await;
    assert_eq!(created["message"]["content"], "new");
    assert_eq!(reset["cursor"].as_str().unwrap()[..8], created["cursor"].as_str().unwrap()[..8]);
    let mut back = server.join(&format!("room=general&after={old}")).await;
    back.expect("reset").await;
    server.stop().await;
}
