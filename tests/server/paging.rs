//! Pages of history: a walk over them loses nothing and repeats nothing, in the order of the contract, and each page
//! costs what it shows.

use std::cmp::Ordering;

use futures::TryStreamExt;
use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use serde_json::Value;

use crate::{
    contract::{insert_raw, no_utf8, raw},
    harness::{FreshDatabase, TestServer},
};

/// 2026-01-01 00:00:00, a whole second: a message with this date and one with an ObjectId of this time are as old.
pub const NOON: i64 = 1_767_225_600_000;

/// Numbers that are the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        // Knuth's MMIX constants; the high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.roll(last + 1));
        }
    }
}

/// Where a message goes, in every spelling of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Busy,
    General,
    Direct(&'static str, &'static str),
}

/// A message of the test, and what the order of pages is made of.
pub struct Planted {
    pub label: String,
    pub place: Place,
    millis: i64,
    pub id: Bson,
}

fn object_id_of(seconds: i64, dice: &mut Dice) -> ObjectId {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&(seconds as u32).to_be_bytes());
    bytes[4..].iter_mut().for_each(|byte| *byte = dice.roll(256) as u8);
    ObjectId::from_bytes(bytes)
}

/// Several hundred documents, most of them as old as some others, with ids of many types, and broken ones among them.
pub fn plant(dice: &mut Dice) -> (Vec<Planted>, Vec<mongodb::bson::RawDocumentBuf>) {
    let places = [
        Place::Busy,
        Place::General,
        Place::Direct("Ana", "Luis"),
        Place::Direct("Luis", "Ana"),
        Place::Direct("Ana", "Eva"),
        Place::Direct("Eva", "Luis"),
    ];
    let (mut planted, mut documents) = (Vec::new(), Vec::new());
    for n in 0..360_i32 {
        let place = *dice.pick(&places);
        // Mostly one instant, else a few around it.
        let millis = *dice.pick(&[NOON, NOON, NOON, NOON + 1, NOON - 1, NOON + 1_000, NOON - 1_000, NOON + 2_500]);
        let seconds = millis.div_euclid(1_000);
        let undated = dice.roll(4) == 0;
        let (id, millis) = if undated {
            // No date: the time of the ObjectId counts.
            (Bson::ObjectId(object_id_of(seconds, dice)), seconds * 1_000)
        } else {
            let other_second = *dice.pick(&[seconds, 0, i64::from(u32::MAX)]);
            let id = match dice.roll(6) {
                0 => Bson::ObjectId(object_id_of(other_second, dice)),
                1 => Bson::Int32(n),
                2 => Bson::Double(f64::from(n) + 0.5),
                3 => Bson::String(format!("{}-{n}", dice.pick(&["a", "B", "ñ", "😀"]))),
                4 => Bson::Document(doc! { "n": n }),
                _ => Bson::DateTime(DateTime::from_millis(i64::from(n))),
            };
            (id, millis)
        };
        let label = format!("m{n}");
        let mut document = doc! { "_id": id.clone(), "content": &label };
        match place {
            Place::Busy => {
                document.extend(doc! { "sender": "Ana", "room": "busy" });
                if dice.roll(2) == 0 {
                    document.insert("recipient", dice.pick(&[Bson::Null, "".into()]).clone());
                }
            }
            Place::General => {
                document.insert("sender", "Ana");
                if dice.roll(4) > 0 {
                    document.insert("room", dice.pick(&["general".into(), "".into(), Bson::Null]).clone());
                }
            }
            Place::Direct(sender, recipient) => {
                document.extend(doc! { "sender": sender, "recipient": recipient });
                // The room of a direct message plays no part.
                if dice.roll(3) == 0 {
                    document.insert("room", *dice.pick(&["busy", "general"]));
                }
            }
        }
        if !undated {
            document.insert("date", DateTime::from_millis(millis));
        } else if dice.roll(2) == 0 {
            document.insert("date", Bson::Null);
        }
        if dice.roll(8) == 0 {
            let (field, value) = match dice.roll(7) {
                0 => ("content", Bson::Int32(5)),
                1 => ("sender", " not normal".into()),
                2 => ("date", "2026-01-01".into()),
                3 | 4 => ("_id", format!("{n}{}", "x".repeat(2_000)).into()),
                5 => ("_id", doc! { "n": n, "x": "x".repeat(2_000) }.into()),
                _ => ("_id", "a-@@@".into()),
            };
            // An `_id` that is no ObjectId tells no time, so that the date must.
            document.insert("date", DateTime::from_millis(millis));
            document.insert(field, value);
            document.extend(doc! { "broken": n });
            let marked = document.get_str("_id").is_ok_and(|id| id == "a-@@@");
            documents.push(if marked { no_utf8(&document, n) } else { raw(&document) });
            continue;
        }
        documents.push(raw(&document));
        planted.push(Planted { label, place, millis, id });
    }
    dice.shuffle(&mut documents);
    planted.sort_by(newest_first);
    (planted, documents)
}

/// The order of the contract, as MongoDB's manual has the order of types; nothing of the server's code.
fn newest_first(a: &Planted, b: &Planted) -> Ordering {
    let rank = |id: &Bson| match id {
        Bson::Int32(_) | Bson::Double(_) => 1,
        Bson::String(_) => 2,
        Bson::Document(_) => 3,
        Bson::ObjectId(_) => 4,
        Bson::DateTime(_) => 5,
        other => panic!("{other} is not planted"),
    };
    let number = |id: &Bson| match id {
        Bson::Int32(number) => f64::from(*number),
        Bson::Double(number) => *number,
        other => panic!("{other} is no number"),
    };
    let within = match (&a.id, &b.id) {
        (Bson::String(a), Bson::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Bson::Document(a), Bson::Document(b)) => a.get_i32("n").unwrap().cmp(&b.get_i32("n").unwrap()),
        (Bson::ObjectId(a), Bson::ObjectId(b)) => a.bytes().cmp(&b.bytes()),
        (Bson::DateTime(a), Bson::DateTime(b)) => a.cmp(b),
        (a, b) if rank(a) == rank(b) => number(a).total_cmp(&number(b)),
        (a, b) => rank(a).cmp(&rank(b)),
    };
    a.millis.cmp(&b.millis).then(within).reverse()
}

/// Walks all pages, and returns their messages, newest first. While each page is read, newer messages come in.
async fn walk(server: &TestServer, query: &str, limit: usize) -> Vec<Value> {
    let newer = server.messages();
    newer.delete_many(doc! { "content": "new" }).await.unwrap();
    let mut messages = Vec::new();
    let mut before = String::new();
    for _ in 0..10_000 {
        let path = format!("/api/messages?{query}&limit={limit}{before}");
        let documents = [
            doc! { "content": "new", "sender": "Ana", "room": "busy" },
            doc! { "content": "new", "sender": "Ana", "date": DateTime::now() },
            doc! { "content": "new", "sender": "Luis", "recipient": "Ana", "date": DateTime::now() },
        ];
        let (page, inserted) = tokio::join!(server.fetch(&path), newer.insert_many(documents));
        inserted.unwrap();
        assert_eq!(page.status, 200, "{}", page.text);
        let page = page.json();
        let of_page = page["messages"].as_array().unwrap();
        assert!(of_page.len() <= limit, "a page of {}", of_page.len());
        messages.extend(of_page.iter().rev().cloned());
        match page["before"].as_str() {
            Some(token) => before = format!("&before={token}"),
            None => return messages,
        }
    }
    panic!("the walk over {query} in pages of {limit} does not end");
}

#[tokio::test]
async fn a_walk_loses_and_repeats_nothing_whatever_the_dates_and_ids() {
    let database = FreshDatabase::with_collection().await;
    let mut dice = Dice(1);
    let (planted, documents) = plant(&mut dice);
    insert_raw(&database, documents.iter()).await;
    let server = TestServer::start_on(database.name(), &[]).await;

    for (query, belongs) in scopes() {
        let expected: Vec<&str> =
            planted.iter().filter(|one| belongs(&one.place)).map(|one| one.label.as_str()).collect();
        assert!(expected.len() > 30, "{query} is worth a walk");
        for limit in [1, 7, 50] {
            let walked = walk(&server, query, limit).await;
            let old: Vec<&str> =
                walked.iter().flat_map(|one| one["content"].as_str()).filter(|content| *content != "new").collect();
            assert_eq!(old, expected, "{query} in pages of {limit}");
            expect_order_of_texts(&walked);
        }
    }
    server.stop().await;
}

/// Whether a message belongs to what a query asks for.
pub type Belongs = fn(&Place) -> bool;

/// Every kind of query, and which of the planted messages it asks for.
pub fn scopes() -> [(&'static str, Belongs); 7] {
    fn of_two(place: &Place, one: &str, other: &str) -> bool {
        match place {
            Place::Direct(sender, recipient) => [(one, other), (other, one)].contains(&(*sender, *recipient)),
            _ => false,
        }
    }
    fn of_one(place: &Place, user: &str) -> bool {
        matches!(place, Place::Direct(sender, recipient) if [sender, recipient].contains(&&user))
    }
    [
        ("room=busy", |place| *place == Place::Busy),
        ("room=general", |place| *place == Place::General),
        ("inbox=Ana", |place| of_one(place, "Ana")),
        ("inbox=Luis", |place| of_one(place, "Luis")),
        ("inbox=Ana&with=Luis", |place| of_two(place, "Ana", "Luis")),
        ("inbox=Eva&with=Luis", |place| of_two(place, "Eva", "Luis")),
        ("", |_| true),
    ]
}

/// A client that has nothing but the texts of date and id puts messages in the same order: for every type of id but
/// documents, whose texts have an order of their own.
fn expect_order_of_texts(newest_first: &[Value]) {
    let of =
        |message: &Value| (message["date"].as_str().unwrap().to_owned(), message["id"].as_str().unwrap().to_owned());
    let texts: Vec<_> = newest_first.iter().map(of).filter(|(_, id)| !id.starts_with("-d")).collect();
    for pair in texts.windows(2) {
        assert!(pair[0] > pair[1], "{pair:?}");
    }
}

#[tokio::test]
async fn broken_documents_alone_are_empty_pages_that_come_to_an_end() {
    let database = FreshDatabase::with_collection().await;
    let date = DateTime::from_millis(NOON);
    let broken = |n: i32| match n % 3 {
        0 => raw(&doc! { "_id": n, "content": 5, "sender": "Ana", "date": date }),
        1 => raw(&doc! { "_id": format!("{n}{}", "x".repeat(2_000)), "content": "x", "sender": "Ana", "date": date }),
        _ => no_utf8(&doc! { "_id": "@@@", "content": "x", "sender": "Ana", "date": date }, n),
    };
    let good = raw(&doc! { "_id": -1, "content": "below all of them", "sender": "Ana", "date": date });
    let documents: Vec<_> = (0..40).map(broken).chain([good]).collect();
    insert_raw(&database, documents.iter()).await;
    let server = TestServer::start_on(database.name(), &[]).await;
    for query in ["", "room=general"] {
        for limit in [1, 7, 50] {
            let walked = walk(&server, query, limit).await;
            let contents = walked.iter().map(|message| message["content"].as_str().unwrap());
            let contents: Vec<_> = contents.filter(|content| *content != "new").collect();
            assert_eq!(contents, ["below all of them"], "{query} in pages of {limit}");
        }
    }
    server.stop().await;
}

/// What a page cost.
#[derive(Debug)]
pub struct Cost {
    pub documents: i64,
    pub keys: i64,
    /// For whoever reads why it was too much.
    #[allow(dead_code)]
    commands: Vec<String>,
}

/// Asks for a page, and for what MongoDB's profiler says of the finds that it took.
pub async fn measure(server: &TestServer, path: &str) -> (Cost, Value) {
    let profile = server.database.collection::<Document>("system.profile");
    server.database.run_command(doc! { "profile": 0 }).await.unwrap();
    profile.drop().await.unwrap();
    server.database.run_command(doc! { "profile": 2 }).await.unwrap();
    let page = server.fetch(path).await;
    assert_eq!(page.status, 200, "{}", page.text);
    server.database.run_command(doc! { "profile": 0 }).await.unwrap();
    let ours = doc! { "appName": "corriente", "$or": [
        { "command.find": "messages" },
        { "originatingCommand.find": "messages" },
    ] };
    let finds: Vec<Document> = profile.find(ours).await.unwrap().try_collect().await.unwrap();
    assert!(!finds.is_empty(), "the profiler saw nothing");
    let sum = |field| finds.iter().map(|find| i64::from(find.get_i32(field).unwrap_or_default())).sum();
    let commands = finds.iter().map(|find| {
        let plan = find.get_str("planSummary").unwrap_or_default();
        format!(
            "{} documents, {} keys: {plan}",
            find.get_i32("docsExamined").unwrap_or(-1),
            find.get_i32("keysExamined").unwrap_or(-1)
        )
    });
    (Cost { documents: sum("docsExamined"), keys: sum("keysExamined"), commands: commands.collect() }, page.json())
}

/// Walks some pages, the first and deep ones, and asserts that none costs more than it may.
async fn expect_bounded(server: &TestServer, query: &str, pages: usize) {
    const LIMIT: i64 = 50;
    let mut before = String::new();
    for n in 0..pages {
        let (cost, page) = measure(server, &format!("/api/messages?{query}&limit={LIMIT}{before}")).await;
        assert_eq!(page["messages"].as_array().map(Vec::len), Some(LIMIT as usize), "page {n} of {query}");
        // Twice the page, and a few to know whether there are older ones.
        let bound = 2 * LIMIT + 10;
        assert!(cost.keys <= bound, "page {n} of {query}: {cost:#?}");
        // An inbox is a merge of two scans, in which MongoDB counts a document in its scan and again after the merge.
        let is_inbox = query.starts_with("inbox") && !query.contains("with");
        let bound = if is_inbox { 2 * bound } else { bound };
        assert!(cost.documents <= bound, "page {n} of {query}: {cost:#?}");
        before = format!("&before={}", page["before"].as_str().expect("older ones"));
    }
}

pub async fn insert(server: &TestServer, documents: Vec<Document>) {
    for chunk in documents.chunks(5_000) {
        server.messages().insert_many(chunk).await.unwrap();
    }
}

#[tokio::test]
async fn a_page_behind_ten_thousand_newer_messages_of_others_costs_no_more() {
    let server = TestServer::start().await;
    let date = |n: i64| DateTime::from_millis(NOON + n);
    let mut documents = Vec::new();
    for n in 0..500 {
        let old = date(n * 7 % 500);
        documents.push(doc! { "content": "x", "sender": "Ana", "room": "quiet", "date": old });
        documents.push(doc! { "content": "x", "sender": "Ana", "date": old });
        let (sender, recipient) = if n % 2 == 0 { ("Ana", "Luis") } else { ("Luis", "Ana") };
        documents.push(doc! { "content": "x", "sender": sender, "recipient": recipient, "date": old });
    }
    for n in 0..10_000 {
        let (sender, recipient) = (format!("s{}", n % 50), format!("r{}", n % 70));
        documents.push(doc! { "content": "x", "sender": sender, "recipient": recipient, "date": date(10_000 + n) });
    }
    // Ana wrote much to others, and Luis too: their conversation is behind all of that.
    for n in 0..2_000 {
        let sender = if n % 2 == 0 { "Ana" } else { "Luis" };
        documents.push(doc! { "content": "x", "sender": sender, "recipient": "Eva", "date": date(30_000 + n) });
    }
    insert(&server, documents).await;
    for query in ["room=quiet", "room=general", "inbox=Ana", "inbox=s7", "inbox=Ana&with=Luis", ""] {
        expect_bounded(&server, query, 3).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_page_of_a_dense_mix_of_dated_and_undated_costs_at_most_twice_itself() {
    let server = TestServer::start().await;
    let mut dice = Dice(2);
    let mut documents = Vec::new();
    for n in 0..6_000 {
        let seconds = NOON / 1_000 + n / 40;
        let mut document = doc! { "_id": object_id_of(seconds, &mut dice), "content": "x" };
        match dice.roll(4) {
            0 => document.extend(doc! { "sender": "Ana", "recipient": "Luis" }),
            1 => document.extend(doc! { "sender": "Luis", "recipient": "Ana" }),
            2 => document.extend(doc! { "sender": "Ana", "room": "mixed" }),
            _ => document.extend(doc! { "sender": "Ana" }),
        }
        if dice.roll(2) == 0 {
            document.insert("date", DateTime::from_millis(seconds * 1_000 + dice.roll(3) as i64));
        }
        documents.push(document);
    }
    dice.shuffle(&mut documents);
    insert(&server, documents).await;
    for query in ["room=mixed", "room=general", "inbox=Ana", "inbox=Ana&with=Luis", ""] {
        expect_bounded(&server, query, 5).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_page_amid_thousands_of_equal_dates_costs_no_more() {
    // What one insertMany of another program, or an import, looks like.
    let server = TestServer::start().await;
    let date = DateTime::from_millis(NOON);
    let mut documents = Vec::new();
    for n in 0..4_000 {
        let mut document = match n % 4 {
            0 => doc! { "sender": "Ana", "recipient": "Luis" },
            1 => doc! { "sender": "Luis", "recipient": "Ana" },
            2 => doc! { "sender": "Ana", "room": "import" },
            _ => doc! { "sender": "Ana" },
        };
        document.extend(doc! { "content": "x", "date": date });
        if n % 8 < 4 {
            document.insert("_id", n);
        }
        documents.push(document);
    }
    insert(&server, documents).await;
    for query in ["room=import", "room=general", "inbox=Ana", "inbox=Ana&with=Luis", ""] {
        expect_bounded(&server, query, 12).await;
    }
    server.stop().await;
}
