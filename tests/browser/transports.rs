//! The other transports as browsers speak them: an `EventSource`, and the official client of Socket.IO.

use std::fs;

use mongodb::bson::doc;
use poem::{EndpointExt, IntoResponse, Route, endpoint::make_sync, listener::TcpAcceptor};
use serde_json::json;

use crate::{
    chromium::{Person, Window, with_chromium},
    faults::{fresh, start_program},
    harness::{TestServer, mongo},
    programs::Language,
};

impl Person {
    /// The contents that the script of a test has kept.
    async fn wait_for_contents(&self, expected: &[&str]) {
        let what = format!("{expected:?} was told");
        self.wait(&what, async || self.ask::<Vec<String>>("return window.contents").await == expected).await;
    }
}

#[tokio::test]
async fn an_event_source_goes_on_by_itself_where_a_killed_server_left_it() {
    with_chromium(async |chromium| {
        let _mongo = mongo().await;
        let (database, uri) = fresh().await;
        let messages = database.collection("messages");
        let (mut program, url) = start_program(&uri, database.name(), "0").await;
        chromium
            .window(Window::default(), async |page| {
                page.open(&format!("{url}/rooms/general")).await;
                let follow = "window.contents = []; window.resets = 0;
                    window.source = new EventSource('/api/events?room=general');
                    source.addEventListener('created', ({ data, lastEventId }) => {
                        const { message, cursor } = JSON.parse(data);
                        contents.push(cursor === lastEventId ? message.content : 'another cursor');
                    });
                    source.addEventListener('ready', () => { window.isReady = true; });
                    source.addEventListener('reset', () => { window.resets += 1; });";
                page.driver.execute(follow, Vec::new()).await.unwrap();
                page.wait("it is live", async || page.ask::<bool>("return window.isReady === true").await).await;
                let write = async |content: &str| {
                    let document = doc! { "content": content, "sender": "robot", "room": "general" };
                    messages.insert_one(document).await.unwrap();
                };
                write("before").await;
                page.wait_for_contents(&["before"]).await;
                program.kill().await.expect("it is killed");
                write("while it was away").await;
                let port = url.rsplit_once(':').unwrap().1;
                let (_program, _) = start_program(&uri, database.name(), port).await;
                page.wait_for_contents(&["before", "while it was away"]).await;
                write("after").await;
                page.wait_for_contents(&["before", "while it was away", "after"]).await;
                assert_eq!(page.ask::<u32>("return window.resets").await, 0);
            })
            .await;
        database.drop().await.unwrap();
    })
    .await;
}

/// A page of somebody else's, at an origin of its own, with the official client.
async fn foreign_page(script: String) -> (String, tokio::task::JoinHandle<()>) {
    let html =
        "<!doctype html><html lang=en><title>A page of somebody else's</title><script src=/socket.io.js></script>";
    let page = Route::new()
        .at("/", make_sync(move |_| html.with_content_type("text/html; charset=utf-8").into_response()))
        .at("/socket.io.js", make_sync(move |_| script.clone().with_content_type("text/javascript").into_response()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let acceptor = TcpAcceptor::from_tokio(listener).expect("an acceptor");
    let serving = tokio::spawn(async move {
        // It goes on until it is aborted.
        let _ = poem::Server::new_with_acceptor(acceptor).run(page.map_to_response()).await;
    });
    (origin, serving)
}

#[tokio::test]
async fn the_official_socket_io_client_follows_and_sends_on_a_page_of_another_origin() {
    let Some(node) = Language::node().await else { return };
    with_chromium(async |chromium| {
        let script = node.folder.join("node_modules/socket.io-client/dist/socket.io.js");
        let (origin, serving) = foreign_page(fs::read_to_string(script).expect("the client")).await;
        let server = TestServer::start_with(&["--allow-origin", &origin]).await;
        chromium
            .window(Window::default(), async |page| {
                for (transports, ends_with) in
                    [(json!(["polling"]), "polling"), (json!(["polling", "websocket"]), "websocket")]
                {
                    page.open(&origin).await;
                    let follow = format!(
                        "window.contents = []; let cursor;
                        window.socket = io('{}', {{
                            transports: {transports}, reconnectionDelay: 100, auth: (give) => give({{ after: cursor }}),
                        }});
                        socket.on('connect', () => socket.emit('subscribe', {{ room: 'general' }}));
                        socket.on('ready', (frame) => {{ cursor = frame.cursor; window.isReady = true; }});
                        socket.on('created', (frame) => {{ cursor = frame.cursor; contents.push(frame.message.content); }});
                        socket.on('reset', () => contents.push('reset'));",
                        server.url
                    );
                    page.driver.execute(follow, Vec::new()).await.unwrap();
                    page.wait("it is live", async || page.ask::<bool>("return window.isReady === true").await).await;
                    let transport = "return window.socket.io.engine.transport.name";
                    page.wait("it has upgraded", async || page.ask::<String>(transport).await == ends_with).await;
                    let send = "socket.emit('message', { room: 'general', sender: 'Ana', content: 'hola' },
                        ({ message, problem }) => { window.answer = message?.content ?? problem.detail; })";
                    page.driver.execute(send, Vec::new()).await.unwrap();
                    page.wait_for_contents(&["hola"]).await;
                    let answer = "return window.answer ?? ''";
                    page.wait("it is acknowledged", async || page.ask::<String>(answer).await == "hola").await;
                    // Its connection breaks; what happens meanwhile comes afterwards, once.
                    page.driver.execute("socket.io.engine.close()", Vec::new()).await.unwrap();
                    server.say("general", "meanwhile").await;
                    page.wait_for_contents(&["hola", "meanwhile"]).await;
                }
            })
            .await;
        server.stop().await;
        serving.abort();
    })
    .await;
}
