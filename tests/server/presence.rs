//! Who is here: counted over all servers, at the cost of a write every five seconds at most, and of none when nothing
//! changes.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{Document, doc},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    binary::{Program, command},
    harness::{Follower, FreshDatabase, TestServer, eventually, query_of},
};

const COLLECTION: &str = "corriente_presence_messages";

fn documents(server: &TestServer) -> Collection<Document> {
    server.database.collection(COLLECTION)
}

/// How many are in each of these rooms.
async fn here(server: &TestServer, rooms: &[&str]) -> Vec<u64> {
    let query = query_of(rooms.iter().map(|room| ("room", *room)));
    let (status, body) = server.get(&format!("/api/presence?{query}")).await;
    assert_eq!(status, 200, "{body}");
    let counted = body["rooms"].as_array().unwrap();
    assert_eq!(counted.iter().map(|one| one["room"].as_str().unwrap()).collect::<Vec<_>>(), rooms);
    counted.iter().map(|one| one["here"].as_u64().unwrap()).collect()
}

/// Waits until so many are here.
async fn expect_here(server: &TestServer, rooms: &[&str], expected: &[u64]) {
    let what = format!("{expected:?} in {rooms:?}");
    eventually(&what, async || (here(server, rooms).await == expected).then_some(())).await;
}

/// The index by which MongoDB itself removes what no server does.
async fn index(server: &TestServer) -> IndexModel {
    eventually("the index", async || {
        let indexes: Vec<_> = documents(server).list_indexes().await.ok()?.try_collect().await.ok()?;
        indexes.into_iter().find(|index| index.keys == doc! { "at": 1 })
    })
    .await
}

#[tokio::test]
async fn a_session_is_counted_in_each_room_while_it_follows_it() {
    let server = TestServer::start().await;
    let rooms = ["general", "dev", "nowhere"];
    assert_eq!(here(&server, &rooms).await, [0, 0, 0]);
    let mut one = server.follow("room=general&room=dev&room=general&inbox=Ana").await;
    let other = server.follow("room=general").await;
    let _all = server.follow("all=true").await;
    assert_eq!(here(&server, &rooms).await, [2, 1, 0]);
    for frame in [
        json!({ "type": "subscribe", "room": "nowhere" }),
        json!({ "type": "subscribe", "room": "nowhere" }),
        json!({ "type": "unsubscribe", "room": "dev" }),
        json!({ "type": "unsubscribe", "room": "dev" }),
        json!({ "type": "unsubscribe", "room": "general" }),
        json!({ "type": "subscribe", "room": "general" }),
    ] {
        let kind = format!("{}d", frame["type"].as_str().unwrap());
        one.send(frame).await;
        one.expect(&kind).await;
    }
    assert_eq!(here(&server, &rooms).await, [2, 0, 1]);
    drop(other);
    expect_here(&server, &rooms, &[1, 0, 1]).await;
    drop(one);
    expect_here(&server, &rooms, &[0, 0, 0]).await;
    server.stop().await;
}

#[tokio::test]
async fn who_follows_rooms_in_passing_is_counted_only_where_they_say_they_are() {
    let server = TestServer::start().await;
    let rooms = ["general", "dev", "random"];
    let mut one = server.follow("room=general&room=dev&here=general&here=random").await;
    let _nowhere = server.follow("room=general&room=dev&here=").await;
    assert_eq!(here(&server, &rooms).await, [1, 0, 0]);
    for frame in [
        json!({ "type": "subscribe", "room": "random" }),
        json!({ "type": "unsubscribe", "room": "dev" }),
        json!({ "type": "unsubscribe", "room": "general" }),
    ] {
        let kind = format!("{}d", frame["type"].as_str().unwrap());
        one.send(frame).await;
        one.expect(&kind).await;
    }
    assert_eq!(here(&server, &rooms).await, [0, 0, 1]);
    drop(one);
    expect_here(&server, &rooms, &[0, 0, 0]).await;
    assert_eq!(server.fetch("/ws?room=general&here=system.x").await.status, 422);
    server.stop().await;
}

#[tokio::test]
async fn who_is_refused_is_not_counted() {
    let server = TestServer::start_with(&["--topics-max", "2"]).await;
    let url = server.url.replacen("http", "ws", 1);
    let too_many = tokio_tungstenite::connect_async(format!("{url}/ws?room=a&room=b&room=c")).await;
    assert!(too_many.is_err());
    // No upgrade.
    assert_eq!(server.fetch("/ws?room=a").await.status, 426);
    let mut one = server.follow("room=a&room=b").await;
    one.send(json!({ "type": "subscribe", "room": "c" })).await;
    one.expect("error").await;
    assert_eq!(here(&server, &["a", "b", "c"]).await, [1, 1, 0]);
    server.stop().await;
}

#[tokio::test]
async fn servers_over_one_database_count_together_and_one_that_stops_counts_no_longer() {
    let one = TestServer::start().await;
    let other = TestServer::start_on(one.database.name(), &[]).await;
    let _on_one = [one.follow("room=general").await, one.follow("room=general").await];
    let _on_other = [other.follow("room=general").await, other.follow("room=dev").await];
    for server in [&one, &other] {
        expect_here(server, &["general", "dev"], &[3, 1]).await;
    }
    let said: Vec<Document> = documents(&one).find(doc! {}).await.unwrap().try_collect().await.unwrap();
    assert_eq!(said.len(), 2, "one document each: {said:?}");
    other.stop().await;
    assert_eq!(documents(&one).count_documents(doc! {}).await.unwrap(), 1, "its document went with it");
    expect_here(&one, &["general", "dev"], &[2, 0]).await;
    one.stop().await;
}

#[tokio::test]
async fn what_a_killed_server_has_said_counts_for_a_minute_and_other_documents_never() {
    let server = TestServer::start().await;
    let ago = |secs: i64| {
        let millis = mongodb::bson::DateTime::now().timestamp_millis() - secs * 1_000;
        mongodb::bson::DateTime::from_millis(millis)
    };
    let rooms = |here: i64| vec![doc! { "room": "general", "here": here }];
    documents(&server)
        .insert_many([
            doc! { "_id": "alive", "rooms": rooms(7), "at": ago(30) },
            doc! { "_id": "killed", "rooms": rooms(100), "at": ago(65) },
            doc! { "_id": "from the future", "rooms": rooms(1_000), "at": ago(-3_600) },
            doc! { "_id": "no date", "rooms": rooms(10_000), "at": "now" },
            doc! { "_id": "no list", "rooms": 5, "at": ago(0) },
            doc! { "_id": "no rooms", "rooms": [5, "general", { "room": " general", "here": 1 }], "at": ago(0) },
        ])
        .await
        .unwrap();
    let _session = server.follow("room=general").await;
    assert_eq!(here(&server, &["general"]).await, [8]);

    // MongoDB itself removes what no server does.
    assert_eq!(index(&server).await.options.unwrap().expire_after, Some(Duration::from_secs(60)));
    server.stop().await;
}

#[tokio::test]
async fn a_hundred_sockets_that_come_and_go_cost_a_write_every_five_seconds_at_most() {
    let server = TestServer::start().await;
    // With that the server is done with what it does when it begins.
    index(&server).await;
    server.database.run_command(doc! { "profile": 2 }).await.unwrap();
    let start = Instant::now();
    let (mut sockets, mut opened) = (Vec::new(), 0);
    while start.elapsed() < Duration::from_secs(12) {
        while sockets.len() < 100 {
            opened += 1;
            sockets.push(server.follow(&format!("room=general&room=r{opened}")).await);
        }
        sockets.drain(..50);
        sleep(Duration::from_millis(200)).await;
    }
    // Nothing changes any more: what was said is only said again before it expires.
    eventually("the last is written", async || {
        let said = documents(&server).find_one(doc! {}).await.unwrap()?;
        let rooms = said.get_array("rooms").unwrap();
        let busiest = rooms.first()?.as_document().unwrap();
        (busiest == &doc! { "room": "general", "here": 50_i64 }).then_some(())
    })
    .await;
    let elapsed = start.elapsed().as_secs();
    let written = writes(&server).await;
    assert!((2..=elapsed / 5 + 1).contains(&written), "{written} writes in {elapsed} s");
    sleep(Duration::from_secs(7)).await;
    assert!(writes(&server).await <= written + 1);

    // Nobody is here: that is said, and then only that there is a server.
    drop(sockets);
    eventually("nobody is left", async || {
        let nobody = doc! { "rooms": [], "server.stream": "live" };
        (documents(&server).count_documents(nobody).await.unwrap() == 1).then_some(())
    })
    .await;
    let written = writes(&server).await;
    sleep(Duration::from_secs(7)).await;
    assert!(writes(&server).await <= written + 1);
    server.stop().await;
}

/// How often the server has written into the collection, as MongoDB's profiler has it.
async fn writes(server: &TestServer) -> u64 {
    let ours = doc! {
        "appName": "corriente",
        "ns": format!("{}.{COLLECTION}", server.database.name()),
        "op": { "$in": ["update", "insert", "remove"] },
    };
    server.database.collection::<Document>("system.profile").count_documents(ours).await.unwrap()
}

#[tokio::test]
async fn a_server_that_may_not_write_its_numbers_counts_its_own_and_says_so_once() {
    let database = FreshDatabase::new().await;
    // As good as no right to: the name is that of a view, which nothing can be written into.
    let view = doc! { "create": COLLECTION, "viewOn": "messages" };
    database.run_command(view).await.unwrap();
    let mut program = program_on(&database);
    let (_, url) = program.ready().await;
    let _sessions = [Follower::join(&url, "room=general").await, Follower::join(&url, "room=general").await];
    let http = reqwest::Client::new();
    let start = Instant::now();
    // As long as two writes would take.
    while start.elapsed() < Duration::from_secs(12) {
        let answer = http.get(format!("{url}/api/presence?room=general")).send().await.unwrap();
        assert_eq!(answer.json::<Value>().await.unwrap()["rooms"][0]["here"], 2);
        sleep(Duration::from_millis(500)).await;
    }
    program.signal("TERM").await;
    let ended = program.ended(Duration::from_secs(10)).await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let said = ended.stderr.lines().filter(|line| line.contains("presence")).count();
    assert_eq!(said, 1, "{}", ended.stderr);
}

#[tokio::test]
async fn a_killed_server_leaves_its_numbers_and_they_expire() {
    let database = FreshDatabase::new().await;
    let mut program = program_on(&database);
    let (_, url) = program.ready().await;
    let _session = Follower::join(&url, "room=general").await;
    let server = TestServer::start_on(database.name(), &[]).await;
    expect_here(&server, &["general"], &[1]).await;
    program.child.kill().await.unwrap();
    assert_eq!(documents(&server).count_documents(doc! { "rooms.room": "general" }).await.unwrap(), 1);
    // A minute later.
    let later = doc! { "$set": { "at": mongodb::bson::DateTime::from_millis(0) } };
    documents(&server).update_many(doc! {}, later).await.unwrap();
    expect_here(&server, &["general"], &[0]).await;
    server.stop().await;
}

fn program_on(database: &FreshDatabase) -> Program {
    let mut command = command();
    command.env("MONGODB_URI", database.uri()).env("DATABASE", database.name());
    Program::start(command)
}

#[tokio::test]
async fn what_can_not_be_asked_is_named() {
    let server = TestServer::start().await;
    let many = |count: usize| (0..count).map(|n| format!("room=r{n}")).collect::<Vec<_>>().join("&");
    for (query, at_fault) in [
        ("".to_owned(), "room"),
        ("room=".into(), "room"),
        ("room=a&room=..".into(), "room"),
        ("room[$ne]=x".into(), "room[$ne]"),
        ("room=a&inbox=Ana".into(), "inbox"),
        (many(101), "room"),
    ] {
        let answer = server.fetch(&format!("/api/presence?{query}")).await;
        let problem = answer.expect_problem(422, "invalid-field");
        assert_eq!(problem["errors"][0]["field"], at_fault, "{query:.60}: {problem}");
    }
    let (_, body) = server.get(&format!("/api/presence?{}", many(100))).await;
    assert_eq!(body["rooms"].as_array().map(Vec::len), Some(100));
    // A name in another form is the same room, and is told in its normal one.
    let _session = server.follow("room=caf%C3%A9").await;
    let (_, body) = server.get("/api/presence?room=cafe%CC%81&room=%20caf%C3%A9&room=x").await;
    let expected: Value = json!([{ "room": "café", "here": 1 }, { "room": "x", "here": 0 }]);
    assert_eq!(body["rooms"], expected);
    server.stop().await;
}
