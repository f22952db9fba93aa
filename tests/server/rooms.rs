//! The list of rooms amid what other programs write: none vanishes, none hides another, and no page looks at all of it.

use mongodb::bson::{RawDocumentBuf, doc};

use crate::{
    contract::{insert_raw, no_utf8, raw},
    harness::{FreshDatabase, TestServer},
};

/// The names of all rooms, in pages; and how many pages there were.
async fn all_rooms(server: &TestServer, limit: usize) -> (Vec<String>, usize) {
    let mut names = Vec::new();
    let mut path = format!("/api/rooms?limit={limit}");
    for pages in 1..100 {
        let page = server.fetch(&path).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let rooms = page.json()["rooms"].as_array().unwrap().clone();
        assert!(rooms.len() <= limit);
        names.extend(rooms.iter().map(|room| room["room"].as_str().unwrap().to_owned()));
        match page.link("next") {
            Some(next) => path = next,
            None => return (names, pages),
        }
    }
    panic!("the list does not end");
}

#[tokio::test]
async fn a_room_does_not_vanish_behind_documents_that_are_no_messages() {
    let database = FreshDatabase::with_collection().await;
    let mut documents: Vec<RawDocumentBuf> = Vec::new();
    for (room, broken) in [("a", 3), ("b", 4), ("c", 5), ("d", 300), ("e", 999), ("gone", 1_000), ("h", 0)] {
        documents.push(raw(&doc! { "content": format!("newest of {room}"), "sender": "Ana", "room": room }));
        for _ in 0..broken {
            documents.push(raw(&doc! { "content": 5, "sender": "Ana", "room": room }));
        }
    }
    insert_raw(&database, documents.iter()).await;
    let server = TestServer::start_on(database.name(), &[]).await;
    for limit in [1, 3, 100] {
        // A room whose newest thousand documents are all broken is left out, and those behind it are not.
        assert_eq!(all_rooms(&server, limit).await.0, ["a", "b", "c", "d", "e", "h"], "by {limit}");
    }
    let page = server.fetch("/api/rooms").await.json();
    assert_eq!(page["rooms"][4]["newest"]["content"], "newest of e");
    server.stop().await;
}

#[tokio::test]
async fn the_list_goes_on_behind_any_number_of_impossible_names() {
    let database = FreshDatabase::with_collection().await;
    let message = |room: &str| raw(&doc! { "content": "x", "sender": "Ana", "room": room });
    let mut documents = vec![message("a"), message("m"), message("z")];
    for n in 0..500 {
        documents.push(message(&format!("b{n} ")));
        documents.push(message(&format!("n{n}\u{7}")));
    }
    for n in 0..300 {
        documents.push(message(&format!("c{}{n}", "x".repeat(70))));
        documents.push(no_utf8(&doc! { "content": "x", "sender": "Ana", "room": format!("d{n}@@@") }, n));
        // Many documents with one name that can not be given back.
        documents.push(no_utf8(&doc! { "content": "x", "sender": "Ana", "room": "e@@@" }, 0));
    }
    insert_raw(&database, documents.iter()).await;
    let server = TestServer::start_on(database.name(), &[]).await;
    for limit in [1, 2, 100] {
        let (names, pages) = all_rooms(&server, limit).await;
        assert_eq!(names, ["a", "m", "z"], "by {limit}");
        assert!((2..40).contains(&pages), "{pages} pages");
    }
    server.stop().await;
}

#[tokio::test]
async fn many_rooms_of_nothing_but_broken_documents_make_short_pages() {
    let database = FreshDatabase::with_collection().await;
    let mut documents = Vec::new();
    for room in 0..10 {
        for _ in 0..1_000 {
            documents.push(raw(&doc! { "content": 5, "sender": "Ana", "room": format!("r{room}") }));
        }
    }
    documents.push(raw(&doc! { "content": "x", "sender": "Ana", "room": "z" }));
    insert_raw(&database, documents.iter()).await;
    let server = TestServer::start_on(database.name(), &[]).await;
    let (names, pages) = all_rooms(&server, 50).await;
    assert_eq!((names, pages), (vec!["z".to_owned()], 3));
    server.stop().await;
}
