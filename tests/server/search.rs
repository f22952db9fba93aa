//! Searching: what people type finds what was written, from the newest on, at a bounded cost per request.

use mongodb::bson::{DateTime, Document, doc};
use serde_json::json;

use crate::{
    contract::{insert_raw, raw},
    harness::{FreshDatabase, TestServer, contents, query_of},
    paging::{NOON, insert, measure},
};

/// The contents that one request finds in `general`, oldest first.
async fn find(server: &TestServer, q: &str) -> Vec<String> {
    let query = query_of([("room", "general"), ("q", q)]);
    contents(&server.fetch(&format!("/api/messages?{query}")).await)
}

#[tokio::test]
async fn words_are_found_whatever_their_case_accents_and_order() {
    let server = TestServer::start().await;
    let told = ["¡Canción de cuna!", "una CANCIO\u{301}N más", "canciones", "La nación", "el \u{fb01}n del año"];
    for content in told {
        server.say("general", content).await;
    }
    for (q, expected) in [
        ("cancion", vec![told[0], told[1], told[2]]),
        (" CANCIÓN ", vec![told[0], told[1], told[2]]),
        ("cancio\u{301}n mas", vec![told[1]]),
        ("mas cancion", vec![told[1]]),
        ("cuna canción de", vec![told[0]]),
        ("cion", told[..4].to_vec()),
        ("fin", vec![told[4]]),
        ("ano", vec![told[4]]),
        ("cancion nacion", vec![]),
    ] {
        assert_eq!(find(&server, q).await, expected, "{q}");
    }
    server.stop().await;
}

#[tokio::test]
async fn no_character_of_a_search_has_a_meaning_of_its_own() {
    let server = TestServer::start().await;
    let told = ["what is a .* b", "{\"$where\": \"sleep(1)\"}", "100% (a|b)[c]^$\\", "it's \"so\"", "a_b", "😀 -minus"];
    for content in told {
        server.say("general", content).await;
    }
    for (q, expected) in [
        (".*", vec![told[0]]),
        ("$where", vec![told[1]]),
        ("{\"$where\":", vec![told[1]]),
        ("\"so\"", vec![told[3]]),
        ("it's", vec![told[3]]),
        ("(a|b)[c]^$\\", vec![told[2]]),
        ("%", vec![told[2]]),
        ("a_b", vec![told[4]]),
        ("-minus", vec![told[5]]),
        ("😀", vec![told[5]]),
        ("a.b", vec![]),
        ("^", vec![told[2]]),
        ("\u{202e}", vec![]),
    ] {
        assert_eq!(find(&server, q).await, expected, "{q}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_can_not_be_searched_for_is_named() {
    let server = TestServer::start().await;
    server.say("general", "not to be shown by a mistake").await;
    let place = "0000000000000000";
    let long = "ñ".repeat(201);
    for (pairs, at_fault) in [
        (vec![("q", "")], "q"),
        (vec![("q", " \u{a0}\u{2003}")], "q"),
        (vec![("q", long.as_str())], "q"),
        (vec![("q", "a\0b")], "q"),
        (vec![("q", "a\nb")], "q"),
        (vec![("q", "\u{301}\u{308}")], "q"),
        (vec![("q", "a"), ("q", "b")], "q"),
        (vec![("q[$regex]", ".*")], "q[$regex]"),
        (vec![("q", "a"), ("after", place)], "after"),
        (vec![("q", "a"), ("around", "65a1b2c3d4e5f60718293a4b")], "around"),
        (vec![("q", "a"), ("limit", "0")], "limit"),
        (vec![("q", "a"), ("before", "garbage")], "before"),
    ] {
        let answer = server.fetch(&format!("/api/messages?{}", query_of(pairs.clone()))).await;
        let problem = answer.expect_problem(422, "invalid-field");
        assert_eq!(problem["errors"][0]["field"], at_fault, "{pairs:?}: {problem}");
        assert!(answer.text.len() < 1_000 && !answer.text.contains("by a mistake"), "{}", answer.text);
    }
    // The longest that is allowed.
    assert_eq!(find(&server, &"ñ".repeat(200)).await, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test]
async fn each_scope_is_searched_alone_and_broken_documents_are_never_found() {
    let server = TestServer::start().await;
    server.say("general", "hola in general").await;
    server.say("dev", "hola in dev").await;
    for (sender, recipient) in [("Ana", "Luis"), ("Luis", "Ana"), ("Ana", "Eva")] {
        let content = format!("hola from {sender} to {recipient}");
        server.send(json!({ "sender": sender, "recipient": recipient, "content": content })).await;
    }
    for broken in [
        doc! { "content": "hola, broken", "sender": " Ana ", "room": "dev" },
        doc! { "content": ["hola"], "sender": "Ana", "room": "dev" },
        doc! { "content": "hola ".repeat(1_000), "sender": "Ana", "room": "dev" },
    ] {
        server.messages().insert_one(broken).bypass_document_validation(true).await.unwrap();
    }
    let direct = ["hola from Ana to Luis", "hola from Luis to Ana", "hola from Ana to Eva"];
    for (scope, expected) in [
        ("room=general", vec!["hola in general"]),
        ("room=dev", vec!["hola in dev"]),
        ("inbox=Ana", direct.to_vec()),
        ("inbox=Ana&with=Luis", direct[..2].to_vec()),
        ("inbox=Eva", direct[2..].to_vec()),
        ("", [&["hola in general", "hola in dev"][..], &direct].concat()),
    ] {
        let found = contents(&server.fetch(&format!("/api/messages?{scope}&q=hola")).await);
        assert_eq!(found, expected, "{scope}");
    }
    server.stop().await;
}

#[tokio::test]
async fn finds_come_in_pages_from_the_newest_on() {
    let server = TestServer::start().await;
    for n in 0..7 {
        server.say("general", &format!("wanted {n}")).await;
        server.say("general", "other").await;
    }
    let mut pages = Vec::new();
    let mut path = "/api/messages?room=general&q=WANTED&limit=3".to_owned();
    loop {
        let page = server.fetch(&path).await;
        assert!(page.json()["cursor"].is_string() && page.json()["after"].is_null(), "{}", page.text);
        pages.push(contents(&page));
        assert_eq!(page.json()["before"].is_null(), page.link("next").is_none());
        match page.link("next") {
            Some(next) => path = next,
            None => break,
        }
    }
    let expected =
        [vec!["wanted 4", "wanted 5", "wanted 6"], vec!["wanted 1", "wanted 2", "wanted 3"], vec!["wanted 0"]];
    assert_eq!(pages, expected);
    server.stop().await;
}

#[tokio::test]
async fn a_search_is_as_new_as_the_cursor_that_it_is_asked_for() {
    let writer = TestServer::start().await;
    let reader = TestServer::start_on(writer.database.name(), &[]).await;
    let mut follower = writer.follow("room=general").await;
    for n in 0..20 {
        let content = format!("needle{n}");
        writer.messages().insert_one(doc! { "content": &content, "sender": "Ana" }).await.unwrap();
        let frame = follower.expect("created").await;
        let since = frame["cursor"].as_str().unwrap();
        let path = format!("/api/messages?q={content}&since={since}");
        assert_eq!(contents(&reader.fetch(&path).await), [content]);
    }
    writer.stop().await;
    reader.stop().await;
}

/// The bound of one search, as it is documented.
const SEARCH_DOCUMENTS_MAX: i64 = 5_000;

#[tokio::test]
async fn rare_finds_among_twenty_thousand_are_each_found_once_at_a_bounded_cost() {
    let database = FreshDatabase::with_collection().await;
    let mut documents = Vec::new();
    let mut expected = Vec::new();
    for n in 0..20_000_i64 {
        let mut document = doc! { "sender": "Ana", "room": "big", "content": "nothing to see here, go on" };
        // Every third has no date but that of its id, and every tenth is broken.
        if n % 3 > 0 {
            // Four of a kind, as after an import.
            document.insert("date", DateTime::from_millis(NOON + n / 4));
        }
        if n % 10 == 1 {
            document.insert("sender", 5);
        }
        if [3, 4, 9_002, 9_003, 9_004, 15_555, 19_999].contains(&n) {
            let content = format!("aquí está la AGUJA {n}");
            document.insert("content", &content);
            document.insert("sender", "Ana");
            document.insert("date", DateTime::from_millis(NOON + n / 4));
            expected.push(content);
        }
        documents.push(raw(&document));
    }
    insert_raw(&database, documents.iter()).await;
    let server = TestServer::start_on(database.name(), &[]).await;
    for limit in [1, 2, 200] {
        let mut found = Vec::new();
        let mut before = String::new();
        for n in 0.. {
            assert!(n < 20, "the search does not end");
            let path = format!("/api/messages?room=big&q=aguja&limit={limit}{before}");
            let (cost, page) = measure(&server, &path).await;
            // Each of the two scans that are merged may look at so many, and a few more to know whether there are others.
            assert!(cost.documents <= 2 * SEARCH_DOCUMENTS_MAX + 10, "{cost:?}");
            assert!(cost.keys <= 2 * SEARCH_DOCUMENTS_MAX + 10, "{cost:?}");
            let of_page = page["messages"].as_array().unwrap();
            assert!(of_page.len() <= limit);
            found.extend(of_page.iter().rev().map(|one| one["content"].as_str().unwrap().to_owned()));
            match page["before"].as_str() {
                Some(place) => before = format!("&before={place}"),
                None => break,
            }
        }
        found.reverse();
        let mut by_date = expected.clone();
        // Those of one millisecond are in the order of their ids, which is that of their making.
        by_date.sort_by_key(|content| content.rsplit(' ').next().unwrap().parse::<i64>().unwrap());
        assert_eq!(found, by_date, "by {limit}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_found_among_the_newest_costs_little() {
    let server = TestServer::start().await;
    let documents: Vec<Document> = (0..3_000)
        .map(|n| doc! { "content": "x y", "sender": "Ana", "date": DateTime::from_millis(NOON + n) })
        .collect();
    insert(&server, documents).await;
    let (cost, page) = measure(&server, "/api/messages?room=general&q=Y").await;
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(50));
    assert!(cost.documents <= 210, "{cost:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_search_of_nothing_but_broken_documents_comes_to_an_end() {
    let database = FreshDatabase::with_collection().await;
    let date = DateTime::from_millis(NOON);
    let broken = |n: i32| raw(&doc! { "_id": format!("{n}{}", "x".repeat(2_000)), "content": "x", "date": date });
    let good = raw(&doc! { "_id": -1, "content": "x", "sender": "Ana", "date": date });
    let documents: Vec<_> = (0..900).map(broken).chain([good]).collect();
    insert_raw(&database, documents.iter()).await;
    let server = TestServer::start_on(database.name(), &[]).await;
    let page = server.fetch("/api/messages?q=x").await;
    assert_eq!(contents(&page).len(), 1);
    assert!(page.json()["before"].is_null());
    server.stop().await;
}

#[tokio::test]
async fn mongodb_is_told_how_long_each_read_of_a_search_or_a_page_may_take() {
    let server = TestServer::start().await;
    server.say("general", "una canción").await;
    for query in ["room=general&q=cancion", "room=general"] {
        server.database.run_command(doc! { "profile": 2 }).await.unwrap();
        assert_eq!(contents(&server.fetch(&format!("/api/messages?{query}")).await), ["una canción"]);
        server.database.run_command(doc! { "profile": 0 }).await.unwrap();
        let profile = server.database.collection::<Document>("system.profile");
        let reads = doc! { "op": "query", "ns": format!("{}.messages", server.database.name()) };
        let unbounded = doc! { "$nor": [{ "command.maxTimeMS": { "$gt": 0, "$lte": 5_000 } }] };
        assert!(profile.count_documents(reads.clone()).await.unwrap() > 0, "{query}: no read");
        let unbounded = profile.find_one(doc! { "$and": [reads, unbounded] }).await.unwrap();
        assert!(unbounded.is_none(), "{query}: {unbounded:?}");
        profile.drop().await.unwrap();
    }
    server.stop().await;
}
