//! A message amid its neighbours, and the ways on from it: to older and to newer ones, without a loss and without a
//! repetition, each page at the cost of what it shows.

use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use serde_json::{Value, json};

use crate::{
    contract::{insert_raw, raw},
    harness::{FreshDatabase, TestServer, contents, query_of},
    paging::{Dice, NOON, insert, measure, plant, scopes},
};

fn of_page(page: &Value) -> Vec<String> {
    page["messages"].as_array().unwrap().iter().map(|one| one["content"].as_str().unwrap().to_owned()).collect()
}

/// Walks on from a page to the end of one way. Returns what came, in the order of reading.
async fn walk_on(server: &TestServer, query: &str, limit: usize, way: &str, start: Option<&str>) -> Vec<String> {
    let mut walked = Vec::new();
    let mut place = start.map(str::to_owned);
    for _ in 0..10_000 {
        let Some(from) = place else {
            return walked;
        };
        let page = server.fetch(&format!("/api/messages?{query}&limit={limit}&{way}={from}")).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let page = page.json();
        let mut contents = of_page(&page);
        assert!(contents.len() <= limit);
        if way == "before" {
            contents.reverse();
        }
        walked.extend(contents);
        place = page[way].as_str().map(str::to_owned);
    }
    panic!("the walk over {query} by {limit} does not end");
}

#[tokio::test]
async fn a_message_stands_in_the_middle_of_its_page() {
    let server = TestServer::start().await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(server.say("general", &n.to_string()).await["id"].as_str().unwrap().to_owned());
    }
    for (at, limit, expected, has_older, has_newer) in [
        (10, 5, 8..13, true, true),
        (10, 6, 7..13, true, true),
        (10, 1, 10..11, true, true),
        (10, 2, 9..11, true, true),
        (10, 3, 9..12, true, true),
        (0, 5, 0..3, false, true),
        (19, 5, 17..20, true, false),
        (2, 5, 0..5, false, true),
        (17, 5, 15..20, true, false),
        (10, 200, 0..20, false, false),
        (0, 1, 0..1, false, true),
        (19, 1, 19..20, true, false),
    ] {
        let page = server.fetch(&format!("/api/messages?room=general&limit={limit}&around={}", ids[at])).await;
        let expected: Vec<String> = expected.map(|n: usize| n.to_string()).collect();
        assert_eq!(contents(&page), expected, "{at} by {limit}");
        assert_eq!((page.json()["before"].is_string(), page.json()["after"].is_string()), (has_older, has_newer));
        assert_eq!((page.link("next").is_some(), page.link("prev").is_some()), (has_older, has_newer), "{at} {limit}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_ways_on_from_any_message_lead_to_all_others_once() {
    let database = FreshDatabase::with_collection().await;
    let mut dice = Dice(3);
    let (planted, documents) = plant(&mut dice);
    insert_raw(&database, documents.iter()).await;
    let server = TestServer::start_on(database.name(), &[]).await;
    let ids: std::collections::HashMap<String, String> = {
        let mut page = server.fetch("/api/messages?limit=200").await.json();
        let mut ids = std::collections::HashMap::new();
        loop {
            for one in page["messages"].as_array().unwrap() {
                let of = |name: &str| one[name].as_str().unwrap().to_owned();
                ids.insert(of("content"), of("id"));
            }
            let Some(before) = page["before"].as_str() else {
                break ids;
            };
            page = server.fetch(&format!("/api/messages?limit=200&before={before}")).await.json();
        }
    };
    for (query, belongs) in scopes() {
        let mut expected: Vec<&str> =
            planted.iter().filter(|one| belongs(&one.place)).map(|one| one.label.as_str()).collect();
        expected.reverse();
        let count = expected.len();
        let mut about = vec![0, 1, count - 1];
        about.extend((0..6).map(|_| dice.roll(count)));
        for at in about {
            let limit = *dice.pick(&[1, 2, 7, 30]);
            let id = &ids[expected[at]];
            let page = server.fetch(&format!("/api/messages?{query}&limit={limit}&around={id}")).await.json();
            let middle = of_page(&page);
            assert!(middle.len() <= limit && middle.contains(&expected[at].to_owned()), "{page}");
            let mut whole = walk_on(&server, query, limit, "before", page["before"].as_str()).await;
            whole.reverse();
            whole.extend(middle);
            whole.extend(walk_on(&server, query, limit, "after", page["after"].as_str()).await);
            assert_eq!(whole, expected, "{query} around {} by {limit}", expected[at]);
        }
        // From the oldest on, which is newer than anything that a place can say.
        for limit in [1, 7, 50] {
            let walked = walk_on(&server, query, limit, "after", Some("8000000000000000")).await;
            assert_eq!(walked, expected, "{query} forwards by {limit}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn who_turns_round_meets_the_same_messages_again() {
    let database = FreshDatabase::with_collection().await;
    let mut dice = Dice(4);
    let (planted, documents) = plant(&mut dice);
    insert_raw(&database, documents.iter()).await;
    let server = TestServer::start_on(database.name(), &[]).await;
    for (query, belongs) in scopes() {
        let expected: Vec<&str> =
            planted.iter().rev().filter(|one| belongs(&one.place)).map(|one| one.label.as_str()).collect();
        let mut path = format!("/api/messages?{query}&limit=7");
        let mut read = 0;
        loop {
            let page = server.fetch(&path).await;
            read += contents(&page).len();
            // All that was read before this page, newest page by newest page, once more on the way back.
            let back = walk_on(&server, query, 5, "after", page.json()["after"].as_str()).await;
            assert_eq!(back, expected[expected.len() - read + contents(&page).len()..], "{path}");
            match page.link("next") {
                Some(next) => path = next,
                None => break,
            }
        }
        assert_eq!(read, expected.len());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_page_without_messages_still_leads_back() {
    let server = TestServer::start().await;
    let date = DateTime::from_millis(NOON);
    let documents: Vec<Document> =
        (0..3).map(|n| doc! { "_id": n, "content": n.to_string(), "sender": "Ana", "date": date }).collect();
    insert(&server, documents).await;
    let newest = server.fetch("/api/messages?around=-nc000000000000000000").await.json();
    assert_eq!(of_page(&newest), ["0", "1", "2"]);
    let all = ["0".to_owned(), "1".into(), "2".into()];
    for (path, way) in [("before=0000000000000000", "after"), ("after=7000000000000000", "before")] {
        let empty = server.fetch(&format!("/api/messages?room=general&{path}")).await.json();
        assert!(of_page(&empty).is_empty(), "{empty}");
        let mut back = walk_on(&server, "room=general", 50, way, empty[way].as_str()).await;
        back.sort();
        assert_eq!(back, all, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_last_newer_page_joins_the_stream() {
    let server = TestServer::start().await;
    let first = server.say("general", "0").await["id"].as_str().unwrap().to_owned();
    for n in 1..10 {
        server.say("general", &n.to_string()).await;
    }
    let mut page = server.fetch(&format!("/api/messages?room=general&limit=4&around={first}")).await.json();
    let mut read = of_page(&page);
    while let Some(after) = page["after"].as_str() {
        page = server.fetch(&format!("/api/messages?room=general&limit=4&after={after}")).await.json();
        read.extend(of_page(&page));
    }
    assert_eq!(read, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    server.say("general", "10").await;
    let cursor = page["cursor"].as_str().unwrap();
    let mut follower = server.join(&format!("room=general&after={cursor}")).await;
    // What is told may begin before what was read, never after it.
    let mut told = String::new();
    while told != "10" {
        told = follower.expect_contents(1).await.remove(0);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_is_not_in_what_is_asked_for_is_not_found() {
    let server = TestServer::start().await;
    let of = |message: &Value| message["id"].as_str().unwrap().to_owned();
    let in_dev = of(&server.say("dev", "in dev").await);
    let direct = json!({ "sender": "Ana", "recipient": "Luis", "room": "dev", "content": "psst" });
    let direct = of(&server.post(direct).await.1);
    let broken = ObjectId::new();
    let document = doc! { "_id": broken, "content": 5, "sender": "Ana", "room": "dev" };
    server.messages().insert_one(document).bypass_document_validation(true).await.unwrap();
    let (nobody, broken) = (ObjectId::new().to_hex(), broken.to_hex());
    let long = "0".repeat(3_000);
    for (scope, id) in [
        ("room=dev", nobody.as_str()),
        ("room=dev", &direct),
        ("room=general", &in_dev),
        ("inbox=Ana", &in_dev),
        ("inbox=Eva", &direct),
        ("inbox=Ana&with=Eva", &direct),
        ("room=dev", &broken),
        ("", &broken),
        ("", ""),
        ("", "x"),
        ("", "%00"),
        ("", "$ne"),
        ("", "-d0300000000"),
        ("", &long),
    ] {
        let answer = server.fetch(&format!("/api/messages?{scope}&around={id}")).await;
        answer.expect_problem(404, "not-found");
        assert!(!answer.text.contains("psst"));
    }
    for (scope, id) in
        [("room=dev", &in_dev), ("", &in_dev), ("inbox=Luis", &direct), ("inbox=Luis&with=Ana", &direct), ("", &direct)]
    {
        assert_eq!(server.fetch(&format!("/api/messages?{scope}&around={id}")).await.status, 200, "{scope}");
    }
    let place = "0000000000000000";
    for (pairs, at_fault) in [
        (vec![("around", in_dev.as_str()), ("before", place)], "around"),
        (vec![("around", in_dev.as_str()), ("after", place)], "around"),
        (vec![("around", in_dev.as_str()), ("q", "x")], "around"),
        (vec![("before", place), ("after", place)], "after"),
        (vec![("after", "")], "after"),
        (vec![("after", "garbage")], "after"),
        (vec![("after", "0000000000000000.-1001")], "after"),
        (vec![("around", in_dev.as_str()), ("limit", "201")], "limit"),
    ] {
        let answer = server.fetch(&format!("/api/messages?{}", query_of(pairs.clone()))).await;
        let problem = answer.expect_problem(422, "invalid-field");
        assert_eq!(problem["errors"][0]["field"], at_fault, "{pairs:?}: {problem}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_page_around_a_message_or_after_one_costs_at_most_twice_itself() {
    let server = TestServer::start().await;
    let mut dice = Dice(5);
    let mut documents = Vec::new();
    // Both dense and equal dates, with and without a field for them, and ids of two types.
    for n in 0..4_000_i32 {
        let mut document = match n % 4 {
            0 => doc! { "sender": "Ana", "recipient": "Luis" },
            1 => doc! { "sender": "Luis", "recipient": "Ana" },
            2 => doc! { "sender": "Ana", "room": "mixed" },
            _ => doc! { "sender": "Ana" },
        };
        document.insert("content", "x");
        if dice.roll(3) > 0 {
            document.insert("date", DateTime::from_millis(NOON + i64::from(n / 1_000)));
            if dice.roll(2) == 0 {
                document.insert("_id", n);
            }
        }
        documents.push(raw(&document));
    }
    dice.shuffle(&mut documents);
    insert_raw(&server.database, documents.iter()).await;
    for query in ["room=mixed", "room=general", "inbox=Ana", "inbox=Ana&with=Luis", ""] {
        let page = server.fetch(&format!("/api/messages?{query}&limit=200&after=8000000000000000")).await.json();
        let middle = page["messages"][150]["id"].as_str().unwrap().to_owned();
        let mut path = format!("/api/messages?{query}&limit=50&around={middle}");
        for _ in 0..4 {
            let (cost, page) = measure(&server, &path).await;
            assert_eq!(page["messages"].as_array().map(Vec::len), Some(50), "{path}");
            let bound = 2 * 50 + 15;
            assert!(cost.keys <= bound, "{path}: {cost:#?}");
            let is_inbox = query.starts_with("inbox") && !query.contains("with");
            assert!(cost.documents <= if is_inbox { 2 * bound } else { bound }, "{path}: {cost:#?}");
            path = format!("/api/messages?{query}&limit=50&after={}", page["after"].as_str().unwrap());
        }
    }
    server.stop().await;
}
