//! Pages of other sites use the browser module: the example of `examples/embed/`, as it is.

use std::io;

use mongodb::bson::{DateTime, doc};
use poem::{
    EndpointExt, Route, Server, get, handler,
    listener::{Acceptor, Listener, TcpListener},
    web::{Data, Html},
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    chromium::{Window, with_chromium},
    harness::TestServer,
};

/// Where the example expects the server.
const SERVER_OF_EXAMPLE: &str = "http://127.0.0.1:3000";

/// The example on an origin of its own, and the server that lets it in.
struct Embedded {
    origin: String,
    server: TestServer,
    site: JoinHandle<io::Result<()>>,
}

impl Embedded {
    /// With what `change` makes of the example.
    async fn start(change: impl FnOnce(String) -> String) -> Self {
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.expect("a port");
        let address = acceptor.local_addr().remove(0);
        let origin = format!("http://{}", address.as_socket_addr().expect("an address"));
        let server = TestServer::start_with(&["--allow-origin", &origin]).await;
        let page = include_str!("../../examples/embed/index.html").replace(SERVER_OF_EXAMPLE, &server.url);
        assert_eq!(page.matches(&server.url).count(), 2, "the module and the API");
        let site = Route::new().at("/", get(example)).data(change(page));
        let site = tokio::spawn(Server::new_with_acceptor(acceptor).run(site));
        Self { origin, server, site }
    }

    async fn stop(self) {
        self.site.abort();
        self.server.stop().await;
    }
}

#[handler]
fn example(Data(page): Data<&String>) -> Html<String> {
    Html(page.clone())
}

#[tokio::test]
async fn a_page_of_another_origin_follows_a_room_and_writes_to_it() {
    with_chromium(async |chromium| {
        let embedded = Embedded::start(|page| page).await;
        let server = &embedded.server;
        let messages = server.messages();
        let said = |content: &str| doc! { "content": content, "sender": "robot", "date": DateTime::now() };
        messages.insert_one(said("history")).await.unwrap();
        chromium
            .window(Window::default(), async |ana| {
                ana.open(&embedded.origin).await;
                let shows = async |expected: &[&str]| {
                    let rows: Vec<String> = ana
                        .ask("return [...document.querySelectorAll('[role=log] li')].map(row => row.innerText)")
                        .await;
                    rows == expected
                };
                ana.wait("its history is there", async || shows(&["robot history"]).await).await;
                ana.wait("it is live", async || ana.connection().await == "live").await;
                let live = messages.insert_one(said("<b>live</b>")).await.unwrap().inserted_id;
                ana.wait("it follows", async || shows(&["robot history", "robot <b>live</b>"]).await).await;
                ana.say("Ana", "from elsewhere").await;
                let all = ["robot history", "robot <b>live</b>", "Ana from elsewhere"];
                ana.wait("its own message is there", async || shows(&all).await).await;
                assert_eq!(messages.count_documents(doc! { "sender": "Ana", "room": "general" }).await.unwrap(), 1);
                messages.delete_one(doc! { "_id": live }).await.unwrap();
                ana.wait("a deletion too", async || shows(&["robot history", "Ana from elsewhere"]).await).await;
                // What can not be told any more is loaded again.
                messages.drop().await.unwrap();
                messages.insert_one(said("anew")).await.unwrap();
                ana.wait("it starts anew", async || shows(&["robot anew"]).await).await;
            })
            .await;
        embedded.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_example_loses_no_text_and_keeps_its_rows_in_bounds() {
    with_chromium(async |chromium| {
        let embedded = Embedded::start(|page| {
            assert_eq!(page.matches("ROWS_MAX = 500").count(), 1);
            page.replace("ROWS_MAX = 500", "ROWS_MAX = 52")
        })
        .await;
        let server = &embedded.server;
        let date = |n: i64| DateTime::from_millis(1_700_000_000_000 + n * 1_000);
        let said = |n: i64| doc! { "content": n.to_string(), "sender": "robot", "date": date(n) };
        server.messages().insert_many((0..60).map(said)).await.unwrap();
        chromium
            .window(Window::default(), async |ana| {
                // Nothing can be loaded at first: nothing can be sent into the void either.
                ana.tell_chrome("Network.enable", json!({})).await;
                ana.tell_chrome("Network.setBlockedURLs", json!({ "urls": ["*/api/messages*"] })).await;
                ana.open(&embedded.origin).await;
                ana.wait("it says so", async || ana.connection().await.starts_with("offline")).await;
                assert!(ana.ask::<bool>("return document.getElementById('fields').disabled").await);
                ana.tell_chrome("Network.setBlockedURLs", json!({ "urls": [] })).await;
                ana.wait("it is live", async || ana.connection().await == "live").await;
                let shown =
                    "return [...document.querySelectorAll('[role=log] li')].map(row => row.innerText.split(' ')[1])";
                let expect = async |first: i64, last: i64| {
                    let expected: Vec<String> = (first..=last).map(|n| n.to_string()).collect();
                    ana.wait(&format!("it shows {first} to {last}"), async || {
                        ana.ask::<Vec<String>>(shown).await == expected
                    })
                    .await;
                };
                expect(10, 59).await;
                // What belongs before them is on a page that is not loaded.
                let old = doc! { "content": "old", "sender": "robot", "date": date(5) };
                server.messages().insert_one(old).await.unwrap();
                server.messages().insert_many((60..65).map(said)).await.unwrap();
                expect(13, 64).await;
                // A text that is refused is there to be mended.
                ana.say("A\u{202E}na", "precious").await;
                ana.wait("it is refused", async || ana.connection().await.starts_with("sender")).await;
                assert_eq!(ana.field("content").await.prop("value").await.unwrap().as_deref(), Some("precious"));
                assert_eq!(ana.text_of("#waiting").await, "");
                ana.say("Ana", "mended").await;
                ana.wait("it is shown", async || {
                    ana.ask::<Vec<String>>(shown).await.last().is_some_and(|last| last == "mended")
                })
                .await;
                assert_eq!(ana.text_of("#waiting").await, "");
            })
            .await;
        embedded.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_ids_that_the_module_makes_grow_and_can_not_be_guessed() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open(&format!("{}/nowhere", server.url)).await;
                let make = "const done = arguments[0]; import('/client.js').then(({ newId }) =>
                    done(Array.from({ length: 1000 }, newId)))";
                let ids: Vec<String> = ana.driver.execute_async(make, Vec::new()).await.unwrap().convert().unwrap();
                assert!(ids.is_sorted_by(|one, other| one < other), "messages of one date stand in their order");
                let ends: std::collections::BTreeSet<&str> = ids.iter().map(|id| &id[12..]).collect();
                assert_eq!((ends.len(), ids[0].len()), (1_000, 24));
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_pauses_between_attempts_are_random_below_a_bound_that_doubles_up_to_15_seconds() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open(&format!("{}/nowhere", server.url)).await;
                // A server that is never there, and a clock that does not wait.
                let attempt = |share: f64| {
                    format!(
                        "const done = arguments[0]; import('/client.js').then(({{ connect }}) => {{
                        Math.random = () => {share};
                        window.WebSocket = class {{
                            constructor() {{ queueMicrotask(() => this.onclose({{ code: 1006 }})); }}
                            close() {{}} }};
                        const pauses = [];
                        window.setTimeout = (run, ms) => {{
                            pauses.push(ms);
                            if (pauses.length < 7) queueMicrotask(run);
                            else {{ connection.close(); done(pauses); }} }};
                        const connection = connect({{ topics: [{{ room: 'general' }}] }}); }})"
                    )
                };
                for (share, expected) in [
                    (1.0, [1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]),
                    (0.5, [500, 1_000, 2_000, 4_000, 7_500, 7_500, 7_500]),
                    (0.0, [0; 7]),
                ] {
                    let pauses = ana.driver.execute_async(attempt(share), Vec::new()).await.unwrap();
                    assert_eq!(pauses.convert::<Vec<u32>>().unwrap(), expected, "{share} of the bound");
                }
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_topic_that_is_followed_while_the_connection_opens_is_not_lost() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open(&format!("{}/nowhere", server.url)).await;
                let follow = "const done = arguments[0]; import('/client.js').then(({ connect }) => {
                    const connection = connect({ topics: [{ room: 'general' }], onSubscribed: (topic) => {
                        connection.close(); done(topic.room); } });
                    connection.subscribe({ room: 'dev' }); setTimeout(done, 20000, 'none'); })";
                let room: String = ana.driver.execute_async(follow, Vec::new()).await.unwrap().convert().unwrap();
                assert_eq!(room, "dev");
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_message_too_large_for_a_frame_is_refused_and_the_next_one_is_sent() {
    with_chromium(async |chromium| {
        let server = TestServer::start().await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open(&format!("{}/nowhere", server.url)).await;
                let send = "const done = arguments[0]; import('/client.js').then(({ connect }) => {
                    const told = [];
                    const connection = connect({
                        onError: (problem, id, isRepeated) => told.push(`${problem.status} ${id === large} ${isRepeated}`),
                        onSent: (id) => { connection.close(); done([...told, `sent ${id === small}`]); } });
                    const large = connection.send({ room: 'general', sender: 'Ana', content: 'ñ'.repeat(32768) });
                    const small = connection.send({ room: 'general', sender: 'Ana', content: 'ñ' });
                    setTimeout(done, 20000, told); })";
                let told: Vec<String> = ana.driver.execute_async(send, Vec::new()).await.unwrap().convert().unwrap();
                assert_eq!(told, ["413 true false", "sent true"]);
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_topic_that_is_one_too_many_does_not_keep_the_connection_from_coming_back() {
    with_chromium(async |chromium| {
        let server = TestServer::start_with(&["--topics-max", "2"]).await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open(&format!("{}/nowhere", server.url)).await;
                // Left and come back to, as by the back button, the page opens its connection again.
                let follow = "const done = arguments[0]; import('/client.js').then(({ connect }) => {
                    const told = [];
                    const connection = connect({
                        topics: [{ room: 'general' }],
                        onSubscribed: ({ room }) => told.push(room),
                        onState: (state) => {
                            if (state !== 'live') return;
                            if (told.length > 0) { connection.close(); done([...told, 'live']); return; }
                            connection.subscribe({ room: 'dev' });
                            connection.subscribe({ room: 'one-too-many' });
                        },
                        onError: ({ status }) => {
                            told.push(String(status));
                            dispatchEvent(new Event('pagehide'));
                            dispatchEvent(new Event('pageshow')); } });
                    setTimeout(done, 20000, told); })";
                let told: Vec<String> = ana.driver.execute_async(follow, Vec::new()).await.unwrap().convert().unwrap();
                assert_eq!(told, ["dev", "422", "live"]);
            })
            .await;
        server.stop().await;
    })
    .await;
}
