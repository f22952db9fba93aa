//! REST as a program uses it: to send, to read, to find rooms, and to join a page to the stream.

use std::collections::BTreeSet;

use futures::future::join_all;
use mongodb::bson::{doc, oid::ObjectId};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, TestServer, contents};

#[tokio::test]
async fn a_sent_message_is_created_and_stands_at_its_location() {
    let server = TestServer::start().await;
    for (body, keys) in [
        (json!({ "sender": "Ana", "room": "dev", "content": "¡Hola!" }), ["content", "date", "id", "room", "sender"]),
        (
            json!({ "sender": "Ana", "recipient": "Luis", "content": "psst" }),
            ["content", "date", "id", "recipient", "sender"],
        ),
    ] {
        let sent = server.send(body.clone()).await;
        assert_eq!(sent.status, 201, "{}", sent.text);
        let message = sent.json();
        let mut names: Vec<&str> = message.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, keys);
        for (name, value) in body.as_object().unwrap() {
            assert_eq!(&message[name], value);
        }
        let id = message["id"].as_str().unwrap();
        assert_eq!(sent.header("location"), format!("/api/messages/{id}"));
        let read = server.fetch(sent.header("location")).await;
        assert_eq!((read.status.as_u16(), read.json()), (200, message.clone()));

        // What other programs find: the types of the data contract, and nothing that is not in it.
        let stored =
            server.messages().find_one(doc! { "_id": ObjectId::parse_str(id).unwrap() }).await.unwrap().unwrap();
        let mut stored_names: Vec<&str> = stored.keys().map(|name| if name == "_id" { "id" } else { name }).collect();
        stored_names.sort_unstable();
        assert_eq!(stored_names, keys);
        let date = stored.get_datetime("date").unwrap().try_to_rfc3339_string().unwrap();
        let of = |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap();
        assert_eq!(of(&date), of(message["date"].as_str().unwrap()));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_without_room_and_recipient_is_sent_to_general() {
    let server = TestServer::start().await;
    for body in [
        json!({ "sender": "Ana", "content": "1" }),
        json!({ "sender": "Ana", "content": "2", "room": null, "recipient": null, "id": null }),
        json!({ "sender": "Ana", "content": "3", "room": "", "recipient": "" }),
    ] {
        let sent = server.send(body).await;
        assert_eq!((sent.status.as_u16(), &sent.json()["room"]), (201, &json!("general")));
    }
    assert_eq!(contents(&server.fetch("/api/messages?room=general").await), ["1", "2", "3"]);
    server.stop().await;
}

#[tokio::test]
async fn a_retry_with_the_same_id_gets_the_stored_message() {
    let server = TestServer::start().await;
    let body = json!({ "id": "65a1b2c3d4e5f60718293a4b", "sender": "Ana", "content": "once" });
    let first = server.send(body.clone()).await;
    assert_eq!(first.status, 201);
    assert_eq!(first.json()["id"], body["id"]);
    let capitals = json!({ "id": "65A1B2C3D4E5F60718293A4B", "sender": " Ana ", "room": "general", "content": "once" });
    for again in [body, capitals] {
        let retry = server.send(again).await;
        assert_eq!((retry.status.as_u16(), retry.json()), (200, first.json()));
        assert_eq!(retry.header("location"), first.header("location"));
    }
    assert_eq!(server.messages().count_documents(doc! {}).await.unwrap(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_hundred_sends_of_one_id_at_once_are_one_message() {
    let server = TestServer::start().await;
    let mut follower = server.follow("all=true").await;
    let body = json!({ "id": ObjectId::new().to_hex(), "sender": "Ana", "content": "once" });
    let answers = join_all((0..100).map(|_| server.send(body.clone()))).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    let repeated = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((created, repeated), (1, 99));
    let bodies: BTreeSet<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(server.messages().count_documents(doc! {}).await.unwrap(), 1);
    server.say("general", "after").await;
    assert_eq!(follower.expect_contents(2).await, ["once", "after"]);
    server.stop().await;
}

#[tokio::test]
async fn the_same_id_with_other_words_is_a_conflict_that_shows_nothing() {
    let server = TestServer::start().await;
    let id = ObjectId::new().to_hex();
    let stored = json!({ "id": id, "sender": "Zoe", "room": "hidden", "content": "secret" });
    assert_eq!(server.send(stored.clone()).await.status, 201);
    for (field, other) in
        [("content", "guess"), ("sender", "Eva"), ("room", "elsewhere"), ("recipient", "Eva"), ("content", "secret ")]
    {
        let mut body = stored.clone();
        body[field] = other.into();
        let answer = server.send(body).await;
        let problem = answer.expect_problem(409, "conflict");
        assert!(problem["detail"].as_str().unwrap().contains(&id), "{problem}");
        for shown in ["secret", "Zoe", "hidden", "date"] {
            assert!(!answer.text.contains(shown), "{field}: {}", answer.text);
        }
    }
    assert_eq!(server.messages().count_documents(doc! {}).await.unwrap(), 1);
    server.stop().await;
}

#[tokio::test]
async fn an_id_of_another_programs_broken_document_is_a_conflict() {
    let server = TestServer::start().await;
    let id = ObjectId::new();
    let broken = doc! { "_id": id, "sender": "Ana", "content": 5 };
    server.messages().insert_one(broken).bypass_document_validation(true).await.unwrap();
    let answer = server.send(json!({ "id": id.to_hex(), "sender": "Ana", "content": "mine" })).await;
    answer.expect_problem(409, "conflict");
    server.fetch(&format!("/api/messages/{}", id.to_hex())).await.expect_problem(404, "not-found");
    server.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_makes_a_retry_harmless_for_its_sender() {
    let server = TestServer::start().await;
    let send = |key: Vec<u8>, body: Value| {
        let request = server.request(Method::POST, "/api/messages").header("Idempotency-Key", key).json(&body);
        Answer::to(request)
    };
    let message = json!({ "sender": "Ana", "content": "once" });
    let first = send(b"k1".to_vec(), message.clone()).await;
    assert_eq!(first.status, 201);
    let retry = send(b"k1".to_vec(), message.clone()).await;
    assert_eq!((retry.status.as_u16(), retry.json()), (200, first.json()));
    send(b"k1".to_vec(), json!({ "sender": "Ana", "content": "other" })).await.expect_problem(409, "conflict");
    assert_eq!(send(b"k1".to_vec(), json!({ "sender": "Luis", "content": "once" })).await.status, 201);
    assert_eq!(send(b"k2".to_vec(), message.clone()).await.status, 201);

    let both = json!({ "sender": "Ana", "content": "once", "id": ObjectId::new().to_hex() });
    send(b"k3".to_vec(), both).await.expect_problem(422, "invalid-field");
    send(vec![b'k'; 257], message.clone()).await.expect_problem(422, "invalid-field");
    // A header of bytes that are no text can not be a key; it must not be taken for none either.
    for strange in [&b"\xff\xfe"[..], "ñ".as_bytes(), b""] {
        send(strange.to_vec(), message.clone()).await.expect_problem(422, "invalid-field");
    }
    assert_eq!(server.messages().count_documents(doc! {}).await.unwrap(), 3);
    server.stop().await;
}

#[tokio::test]
async fn names_are_brought_into_normal_form_wherever_a_client_writes_them() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=caf%65%CC%81&inbox=%20Jose%CC%81%20").await;
    let sent =
        server.send(json!({ "sender": "\t Jose\u{301} ", "room": " cafe\u{301}", "content": "in" })).await.json();
    assert_eq!((&sent["sender"], &sent["room"]), (&json!("José"), &json!("café")));
    let direct = server.send(json!({ "sender": "Ana", "recipient": " Jose\u{301}", "content": "to" })).await.json();
    assert_eq!(direct["recipient"], "José");
    assert_eq!(follower.expect_contents(2).await, ["in", "to"]);
    for query in ["room=%20caf%65%CC%81", "room=caf%C3%A9"] {
        assert_eq!(contents(&server.fetch(&format!("/api/messages?{query}")).await), ["in"], "{query}");
    }
    for query in ["inbox=Jose%CC%81", "inbox=Ana&with=Jose%CC%81%20", "inbox=Jos%C3%A9&with=Ana"] {
        assert_eq!(contents(&server.fetch(&format!("/api/messages?{query}")).await), ["to"], "{query}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_conversation_holds_what_two_people_told_each_other_and_nothing_else() {
    let server = TestServer::start().await;
    for (sender, recipient, content) in [
        ("Ana", "Luis", "a-l"),
        ("Luis", "Ana", "l-a"),
        ("Ana", "Eva", "a-e"),
        ("Eva", "Luis", "e-l"),
        ("Ana", "Ana", "a note to herself"),
    ] {
        let body = json!({ "sender": sender, "recipient": recipient, "content": content });
        assert_eq!(server.send(body).await.status, 201);
    }
    server.say("general", "to all").await;
    for (query, expected) in [
        ("inbox=Ana&with=Luis", vec!["a-l", "l-a"]),
        ("inbox=Luis&with=Ana", vec!["a-l", "l-a"]),
        ("inbox=Ana&with=Ana", vec!["a note to herself"]),
        ("inbox=Ana", vec!["a-l", "l-a", "a-e", "a note to herself"]),
        ("inbox=Luis", vec!["a-l", "l-a", "e-l"]),
        ("inbox=Nobody", vec![]),
        ("inbox=Ana&with=Nobody", vec![]),
        ("room=general", vec!["to all"]),
        ("", vec!["a-l", "l-a", "a-e", "e-l", "a note to herself", "to all"]),
    ] {
        assert_eq!(contents(&server.fetch(&format!("/api/messages?{query}")).await), expected, "{query}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_link_of_a_page_leads_to_the_next_older_one() {
    let server = TestServer::start().await;
    let room = "a&b=c ñ/é?#";
    for n in 0..5 {
        server.say(room, &n.to_string()).await;
    }
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("room", room).finish();
    let mut path = format!("/api/messages?limit=2&{query}");
    let mut pages = Vec::new();
    loop {
        let page = server.fetch(&path).await;
        pages.push(contents(&page));
        assert_eq!(page.json()["before"].is_null(), page.link("next").is_none());
        assert_eq!(page.json()["after"].is_null(), page.link("prev").is_none());
        match page.link("next") {
            Some(next) => path = next,
            None => break,
        }
    }
    assert_eq!(pages, [vec!["3", "4"], vec!["1", "2"], vec!["0"]]);
    let mut back = Vec::new();
    while let Some(prev) = server.fetch(&path).await.link("prev") {
        back.push(contents(&server.fetch(&prev).await));
        path = prev;
    }
    assert_eq!(back, [vec!["1", "2"], vec!["3", "4"]]);
    server.stop().await;
}

#[tokio::test]
async fn rooms_are_listed_by_name_with_their_newest_message() {
    let server = TestServer::start().await;
    for room in ["zebra", "Zebra", "ñandú", "dev", "🦀", "a/b"] {
        server.say(room, "older").await;
        server.say(room, &format!("newest of {room}")).await;
    }
    // `general` exists by documents that name no room at all.
    let messages = server.messages();
    for (n, room) in [mongodb::bson::Bson::Null, "".into()].into_iter().enumerate() {
        messages.insert_one(doc! { "content": n.to_string(), "sender": "pymongo", "room": room }).await.unwrap();
    }
    messages.insert_one(doc! { "content": "newest of general", "sender": "pymongo" }).await.unwrap();
    // Neither a direct message nor a broken document makes a room, and a broken one is not its newest message.
    server.send(json!({ "sender": "Ana", "recipient": "Luis", "room": "private", "content": "psst" })).await;
    for broken in [
        doc! { "content": 5, "sender": "Ana", "room": "dev" },
        doc! { "content": "x", "sender": "Ana", "room": " not normal" },
        doc! { "content": "x", "sender": " ", "room": "only-broken" },
    ] {
        messages.insert_one(broken).bypass_document_validation(true).await.unwrap();
    }
    let expected = ["Zebra", "a/b", "dev", "general", "zebra", "ñandú", "🦀"];
    for limit in [1, 3, 7, 100] {
        let mut rooms = Vec::new();
        let mut path = format!("/api/rooms?limit={limit}");
        loop {
            let page = server.fetch(&path).await;
            let body = page.json();
            let of_page = body["rooms"].as_array().unwrap();
            assert!(!of_page.is_empty() && of_page.len() <= limit, "{body}");
            for room in of_page {
                let name = room["room"].as_str().unwrap();
                assert_eq!(room["newest"]["content"], format!("newest of {name}"));
                assert_eq!(room["newest"]["room"], name);
                rooms.push(name.to_owned());
            }
            match page.link("next") {
                Some(next) => path = next,
                None => break,
            }
            assert_eq!(body["after"], rooms.last().unwrap().as_str());
        }
        assert_eq!(rooms, expected, "in pages of {limit}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_read_since_a_cursor_of_the_socket_holds_what_the_cursor_stands_for() {
    let writer = TestServer::start().await;
    // Another process over the same database, which may be slower or faster.
    let reader = TestServer::start_on(writer.database.name(), &[]).await;
    let mut follower = writer.follow("room=general").await;
    for n in 0..50 {
        let content = n.to_string();
        writer.messages().insert_one(doc! { "content": &content, "sender": "Ana" }).await.unwrap();
        let frame = follower.expect("created").await;
        let path = format!("/api/messages?room=general&limit=1&since={}", frame["cursor"].as_str().unwrap());
        for server in [&reader, &writer] {
            assert_eq!(contents(&server.fetch(&path).await), [content.as_str()]);
        }
    }
    writer.stop().await;
    reader.stop().await;
}

#[tokio::test]
async fn since_a_place_that_is_none_of_this_collection_or_not_yet_reached_is_a_problem() {
    let server = TestServer::start().await;
    let page = server.fetch("/api/messages").await.json();
    let good = page["cursor"].as_str().unwrap();
    let since = |cursor: &str| format!("/api/messages?since={cursor}");
    assert_eq!(server.fetch(&since(good)).await.status, 200);
    let other_epoch = format!("{}{}", if good.starts_with('0') { '1' } else { '0' }, &good[1..]);
    for cursor in [other_epoch.as_str(), "", "garbage", "%00", &good[1..], &good.replace('-', "_"), &"0".repeat(3_000)]
    {
        let problem = server.fetch(&since(cursor)).await.expect_problem(422, "invalid-field");
        assert_eq!(problem["errors"][0]["field"], "since", "{cursor}");
    }
    let far_ahead = format!("{}ffffffff{}", &good[..9], &good[17..]);
    let answer = server.fetch(&since(&far_ahead)).await;
    answer.expect_problem(503, "unavailable");
    assert!(answer.header("retry-after").parse::<u32>().is_ok());
    server.stop().await;
}

#[tokio::test]
async fn a_page_read_at_any_moment_and_the_events_after_its_cursor_make_the_whole() {
    let server = TestServer::start().await;
    let messages = server.messages();
    let writer = tokio::spawn(async move {
        for n in 0..300 {
            messages.insert_one(doc! { "content": n.to_string(), "sender": "Ana", "room": "busy" }).await.unwrap();
        }
    });
    let mut joined = Vec::new();
    while !writer.is_finished() {
        let page = server.fetch("/api/messages?room=busy&limit=200").await;
        let cursor = page.json()["cursor"].as_str().unwrap().to_owned();
        joined.push((contents(&page), server.join(&format!("room=busy&after={cursor}")).await));
    }
    writer.await.unwrap();
    server.say("busy", "end").await;
    for (read, mut follower) in joined {
        let mut seen: BTreeSet<String> = read.iter().cloned().collect();
        let first: usize = read.first().map_or(0, |content| content.parse().unwrap());
        loop {
            let frame = follower.next().await.expect("a frame");
            match frame["type"].as_str() {
                Some("created") if frame["message"]["content"] == "end" => break,
                Some("created") => seen.extend(frame["message"]["content"].as_str().map(str::to_owned)),
                Some("ready" | "position") => {}
                _ => panic!("{frame}"),
            }
        }
        let expected: BTreeSet<String> = (first..300).map(|n| n.to_string()).collect();
        assert_eq!(seen, expected, "from {first} on");
    }
    server.stop().await;
}
