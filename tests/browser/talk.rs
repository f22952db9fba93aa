//! The main job, seen by people.

use mongodb::bson::{Bson, doc, oid::ObjectId};
use serde_json::json;
use thirtyfour::prelude::*;

use crate::{
    chromium::{Window, with_chromium},
    harness::TestServer,
};

#[tokio::test]
async fn two_people_and_a_program_talk_without_reloading() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let room = format!("{}/rooms/general", server.url);
        chromium
            .window(Window::default(), async |ana| {
                chromium
                    .window(Window { width: 400, ..Window::default() }, async |luis| {
                        ana.open_live(&format!("{}/", server.url)).await;
                        luis.open_live(&room).await;
                        ana.say("Ana", "¡Hola, Luis!").await;
                        luis.wait_for_messages(&["¡Hola, Luis!"]).await;
                        luis.say("Luis", "Hola, Ana").await;
                        ana.wait_for_messages(&["¡Hola, Luis!", "Hola, Ana"]).await;

                        // Somebody else's program, which knows only the collection.
                        let messages = server.messages();
                        let id = ObjectId::new();
                        // With a date of its own: that of an ObjectId has whole seconds, and would place it before the others.
                        let date = mongodb::bson::DateTime::now();
                        let document = doc! { "_id": id, "content": "from a program", "sender": "robot", "date": date };
                        messages.insert_one(document).await.unwrap();
                        for person in [&ana, &luis] {
                            person.wait_for_messages(&["¡Hola, Luis!", "Hola, Ana", "from a program"]).await;
                        }
                        let edit = doc! { "$set": { "content": "edited by it" } };
                        messages.update_one(doc! { "_id": id }, edit).await.unwrap();
                        for person in [&ana, &luis] {
                            person.wait_for_messages(&["¡Hola, Luis!", "Hola, Ana", "edited by it"]).await;
                        }
                        ana.picture("two-people-wide").await;
                        luis.picture("two-people-narrow").await;
                        messages.delete_one(doc! { "_id": id }).await.unwrap();
                        for person in [&ana, &luis] {
                            person.wait_for_messages(&["¡Hola, Luis!", "Hola, Ana"]).await;
                        }
                        // What a reload shows is what was there before it.
                        luis.open_live(&room).await;
                        luis.wait_for_messages(&["¡Hola, Luis!", "Hola, Ana"]).await;
                    })
                    .await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_direct_message_shows_in_both_inboxes_and_in_no_room() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |person| {
                for user in ["Ana", "Luis"] {
                    let (status, _) =
                        server.post(json!({ "sender": "Ana", "recipient": "Luis", "content": user })).await;
                    assert_eq!(status, 201);
                }
                person.open_live(&format!("{}/inbox/Luis", server.url)).await;
                person.wait_for_messages(&["Ana", "Luis"]).await;
                person.fill("recipient", "Ana").await;
                person.say("Luis", "answer").await;
                person.wait_for_messages(&["Ana", "Luis", "answer"]).await;
                person.picture("inbox").await;
                person.open_live(&format!("{}/inbox/Ana", server.url)).await;
                person.wait_for_messages(&["Ana", "Luis", "answer"]).await;
                person.open_live(&format!("{}/rooms/general", server.url)).await;
                server.say("general", "for all").await;
                person.wait_for_messages(&["for all"]).await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn without_javascript_the_form_posts_and_comes_back() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let window = Window { without_javascript: true, ..Window::default() };
        chromium
            .window(window, async |ana| {
                let room = format!("{}/rooms/general", server.url);
                ana.open(&room).await;
                ana.fill("sender", "Ana").await;
                ana.fill("content", "sin guion").await;
                ana.driver.find(By::Css("form button#send")).await.unwrap().click().await.unwrap();
                ana.wait("the message is there", async || ana.text_of("[role=log]").await.contains("sin guion")).await;
                assert_eq!(ana.driver.current_url().await.unwrap().as_str(), room, "303 back to the page");
                // A text that breaks a rule is said beside its field, and nothing of it is lost.
                ana.fill("sender", "A\u{202E}na").await;
                ana.fill("content", "keep me").await;
                ana.driver.find(By::Css("form button#send")).await.unwrap().click().await.unwrap();
                ana.wait("the error is shown", async || !ana.text_of("#error-sender").await.is_empty()).await;
                assert_eq!(ana.field("content").await.prop("value").await.unwrap().as_deref(), Some("keep me"));
                assert_eq!(server.messages().count_documents(doc! {}).await.unwrap(), 1);
                ana.picture("without-javascript").await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_others_write_is_text_and_never_markup() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        // What would be left if a text became markup all the same: no script that is not a file of this server.
        let page = server.fetch("/rooms/general").await;
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert!(!policy.contains("ws"), "no script may talk to other hosts, over a WebSocket either: {policy}");
        assert_eq!((page.header("x-content-type-options"), page.header("referrer-policy")), ("nosniff", "same-origin"));
        let attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
        let insert = doc! { "content": attack, "sender": "<b onclick=x>\"'</b>", "room": "</script><i>&amp;" };
        server.messages().insert_one(insert.clone()).await.unwrap();
        let path = "/rooms/%3C%2Fscript%3E%3Ci%3E&amp%3B";
        chromium
            .window(Window::default(), async |person| {
                person.open_live(&format!("{}{path}", server.url)).await;
                person.wait_for_messages(&[attack]).await;
                let elsewhere = "const done = arguments[0];
                    addEventListener('securitypolicyviolation', ({ effectiveDirective }) => done(effectiveDirective));
                    try { new WebSocket('ws://elsewhere.example/') } catch {}";
                let refused = person.driver.execute_async(elsewhere, Vec::new()).await.unwrap();
                assert_eq!(refused.convert::<String>().unwrap(), "connect-src");
                server.messages().insert_one(insert).await.unwrap();
                person.wait_for_messages(&[attack, attack]).await;
                let script = "return [document.title, document.querySelectorAll('article img, article script, article i, b b').length]";
                let seen: (String, u32) = person.driver.execute(script, Vec::new()).await.unwrap().convert().unwrap();
                assert!(!seen.0.contains("owned"), "{seen:?}");
                assert_eq!(seen.1, 0, "no element came from a text");
                // A direct message, with an id that is itself an attack. What is left of the browser's trust is none.
                let id = "\"><script>document.title='owned'</script>";
                let direct = doc! { "_id": id, "content": attack, "sender": "<i>e</i>", "recipient": "<b>x</b>", "date": mongodb::bson::DateTime::now() };
                server.messages().insert_one(direct).await.unwrap();
                person.open_live(&format!("{}/inbox/%3Cb%3Ex%3C%2Fb%3E", server.url)).await;
                person.wait_for_messages(&[attack]).await;
                person.open(&format!("{}/rooms/general?q=%3Cimg", server.url)).await;
                let script = "return [document.title, document.querySelectorAll('article img, article script, article i, b b').length]";
                assert_eq!(person.ask::<(String, u32)>(script).await.1, 0);
                assert!(!person.driver.title().await.unwrap().contains("owned"));
                person.picture("markup").await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_page_speaks_spanish_to_those_who_ask_for_it() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window { spanish: true, ..Window::default() }, async |ana| {
                ana.open(&format!("{}/", server.url)).await;
                ana.wait("it is live, in Spanish", async || ana.connection().await == "En directo").await;
                let language = ana.driver.find(By::Tag("html")).await.unwrap().attr("lang").await.unwrap();
                assert_eq!(language.as_deref(), Some("es"));
                assert_eq!(ana.text_of("button#send").await, "Enviar");
                ana.picture("spanish-empty-room").await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_empty_place_teaches_how_it_is_filled() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                for (path, line) in [("/inbox/Ana", r#"recipient: "Ana""#), ("/rooms/new", r#"room: "new""#)] {
                    ana.open_live(&format!("{}{path}", server.url)).await;
                    let shown = ana.text_of(".empty pre").await;
                    assert!(shown.starts_with("db.messages.insertOne({") && shown.contains(line), "{shown}");
                }
                ana.click("#search-link").await;
                let hint = ana.text_of("#finder-results").await;
                assert!(hint.contains("contains all of the words"), "{hint}");
                server.say("new", "first").await;
                ana.wait_for_messages(&["first"]).await;
                assert_eq!(ana.text_of(".empty").await, "");
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn days_and_times_are_those_of_the_reader_and_a_name_stands_once_over_a_group() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        // 2023-11-14, 22:13:20 in UTC.
        let document = |(secs, sender): (i64, &str)| {
            let date = mongodb::bson::DateTime::from_millis(1_700_000_000_000 + secs * 1_000);
            doc! { "content": secs.to_string(), "sender": sender, "date": date }
        };
        let said = [(0, "Ana"), (299, "Ana"), (599, "Ana"), (600, "Luis"), (601, "Ana"), (4 * 3_600, "Ana")];
        server.messages().insert_many(said.map(document)).await.unwrap();
        server.say("general", "now").await;
        for (spanish, days, times) in [
            (false, ["Tuesday, November 14, 2023", "Wednesday, November 15, 2023"], ["5:13 PM", "9:13 PM"]),
            (true, ["martes, 14 de noviembre de 2023", "miércoles, 15 de noviembre de 2023"], ["5:13 p.m.", "9:13 p.m."]),
        ] {
            chromium
                .window(Window { spanish, ..Window::default() }, async |ana| {
                    for (zone, days, time) in
                        [("America/Lima", &days[..1], times[0]), ("Europe/Berlin", &days[..], "11:13")]
                    {
                        ana.tell_chrome("Emulation.setTimezoneOverride", json!({ "timezoneId": zone })).await;
                        ana.open(&format!("{}/rooms/general", server.url)).await;
                        let shown = "return [...document.querySelectorAll('.day time')].filter((day) => day.offsetParent)
                            .map((day) => day.textContent)";
                        // The last one is today: or was, if it is midnight just now.
                        ana.wait("the days are there", async || {
                            let shown: Vec<String> = ana.ask(shown).await;
                            shown.len() == days.len() + 1 && shown[..days.len()] == *days
                        })
                        .await;
                        let first = ana.text_of("article .when time").await.replace(['\u{202F}', '\u{A0}'], " ");
                        assert!(first.starts_with(time), "{first} in {zone}");
                    }
                    // Five minutes apart, or another's, is another group.
                    let groups = "return [...document.querySelectorAll('#rows .row.first .text')].map((text) => text.textContent)";
                    let groups: Vec<String> = ana.ask(groups).await;
                    assert_eq!(groups, ["0", "599", "600", "601", "14400", "now"]);
                })
                .await;
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn older_messages_come_on_request_and_keep_the_order() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let documents = (0..120).map(|n| {
            let date = mongodb::bson::DateTime::from_millis(1_700_000_000_000 + n * 60_000);
            doc! { "content": n.to_string(), "sender": "Ana", "date": date }
        });
        server.messages().insert_many(documents).await.unwrap();
        let expected: Vec<String> = (0..120).map(|n| n.to_string()).collect();
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                assert!(ana.messages().await.ends_with(&expected[70..]));
                ana.wait("all messages are loaded", async || {
                    let script =
                        "const older = document.querySelector('.older button'); if (older?.offsetParent) older.click()";
                    ana.driver.execute(script, Vec::new()).await.unwrap();
                    ana.messages().await.len() == 120
                })
                .await;
                assert_eq!(ana.messages().await, expected);
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_message_looks_the_same_live_and_after_a_reload() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                let room = format!("{}/rooms/general", server.url);
                ana.open_live(&room).await;
                // The cases with which the server is tested: the browser has a finder of its own.
                let cases: serde_json::Value = serde_json::from_str(include_str!("../../templates/pieces.json")).unwrap();
                let texts: Vec<&str> = cases.as_array().unwrap().iter().filter_map(|case| case[0].as_str()).collect();
                assert!(texts.len() > 5, "{cases}");
                for text in texts.iter().chain(&["two\nlines", "مرحبا", "👩\u{200D}👩\u{200D}👧", "&amp;<i>"]) {
                    server.say("general", text).await;
                }
                let script = "return [...document.querySelectorAll('#rows article')].map(row => [row.dataset.id, row.querySelector('.text').innerHTML])";
                let look = async || -> Vec<(String, String)> {
                    ana.driver.execute(script, Vec::new()).await.unwrap().convert().unwrap()
                };
                ana.wait("all messages are there", async || look().await.len() == texts.len() + 4).await;
                let live = look().await;
                ana.open_live(&room).await;
                assert_eq!(look().await, live);
                let links = "return [...document.querySelectorAll('#rows .text a')].map(({ protocol, rel, target }) =>
                    [protocol, rel, target].join())";
                let links: Vec<String> = ana.ask(links).await;
                assert!(!links.is_empty());
                for link in links {
                    let (protocol, rest) = link.split_once(',').unwrap();
                    assert!(matches!(protocol, "https:" | "http:"), "{link}");
                    assert_eq!(rest, "noopener noreferrer nofollow ugc,_blank");
                }
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_order_after_a_reload_is_the_order_that_was_seen_live() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        let dates = mongodb::bson::DateTime::now().timestamp_millis();
        // By a program: ids of every kind, and dates that come late or are equal.
        let document = |n: i32| {
            let id: Bson = match n % 4 {
                0 => ObjectId::new().into(),
                1 => format!("id {n}").into(),
                2 => n.into(),
                _ => mongodb::bson::DateTime::from_millis(n.into()).into(),
            };
            let date = mongodb::bson::DateTime::from_millis(dates + i64::from(n * 7 % 5) * 1_000);
            doc! { "_id": id, "content": n.to_string(), "sender": "robot", "date": date }
        };
        chromium
            .window(Window::default(), async |ana| {
                let room = format!("{}/rooms/general", server.url);
                ana.open_live(&room).await;
                for batch in 0..4 {
                    server.messages().insert_many((batch * 10..(batch + 1) * 10).map(document)).await.unwrap();
                }
                ana.wait("all are there", async || ana.messages().await.len() == 40).await;
                let live = ana.messages().await;
                let as_written: Vec<String> = (0..40).map(|n| n.to_string()).collect();
                assert_ne!(live, as_written, "they are placed, not appended");
                ana.open_live(&room).await;
                assert_eq!(ana.messages().await, live);
            })
            .await;
        server.stop().await;
    })
    .await;
}
