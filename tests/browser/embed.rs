//! Pages of other sites use the browser module: the example of `examples/embed/`, as it is.

use mongodb::bson::{DateTime, doc};
use poem::{
    EndpointExt, Route, Server, get, handler,
    listener::{Acceptor, Listener, TcpListener},
    web::{Data, Html},
};

use crate::{
    chromium::{Window, with_chromium},
    harness::TestServer,
};

/// Where the example expects the server.
const SERVER_OF_EXAMPLE: &str = "http://127.0.0.1:3000";

#[handler]
fn example(Data(page): Data<&String>) -> Html<String> {
    Html(page.clone())
}

#[tokio::test]
async fn a_page_of_another_origin_follows_a_room_and_writes_to_it() {
    with_chromium(async |chromium| {
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
        let address = acceptor.local_addr().remove(0);
        let origin = format!("http://{}", address.as_socket_addr().unwrap());
        let server = TestServer::start_with(&["--allow-origin", &origin]).await;
        let page = include_str!("../../examples/embed/index.html").replace(SERVER_OF_EXAMPLE, &server.url);
        assert_eq!(page.matches(&server.url).count(), 2, "the module and the API");
        let site = Server::new_with_acceptor(acceptor).run(Route::new().at("/", get(example)).data(page));
        let site = tokio::spawn(site);
        let messages = server.messages();
        let said = |content: &str| doc! { "content": content, "sender": "robot", "date": DateTime::now() };
        messages.insert_one(said("history")).await.unwrap();
        chromium
            .window(Window::default(), async |ana| {
                ana.open(&origin).await;
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
        site.abort();
        server.stop().await;
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
